"""The YAML manifest of a cohort: its fields, and how it is written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from chrep_model.cohorts.slide_names import MANIFEST_SUFFIXES
from chrep_model.errors import CohortError
from chrep_model.files import write_atomically

if TYPE_CHECKING:
    from chrep_model.cohorts.cohort import Cohort


class _Strict(BaseModel):
    # A misspelt key is an error, and `patient: 7` means the patient called "7".
    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True, str_strip_whitespace=True)


class ManifestSection(_Strict):
    """One section of a manifest; paths are relative to the manifest.

    `counts` is an h5ad, or a folder that `chrep_model.cohorts.readers` reads; only beside such a folder may
    `slide` be left out, and only there `bin_um` means something.
    """

    slide: str | None = Field(default=None, min_length=1)
    counts: str = Field(min_length=1)
    name: str | None = Field(default=None, min_length=1)
    patient: str | None = Field(default=None, min_length=1)
    um_per_px: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    scene: str | None = Field(default=None, min_length=1)
    bin_um: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    library: str | None = Field(default=None, min_length=1)


class Manifest(_Strict):
    """The name of a cohort and its sections, in order."""

    name: str | None = Field(default=None, min_length=1)
    sections: list[ManifestSection] = Field(min_length=1)


def write_manifest(cohort: Cohort, path: str | os.PathLike[str]) -> None:
    """Write a cohort as a manifest for `open_cohort`, with absolute paths, patients and scales.

    Parameters
    ----------
    cohort : Cohort
    path : path-like
        Ends in ``.yaml`` or ``.yml``; an older file is replaced as a whole or not at all.

    Raises
    ------
    CohortError
        The name ends otherwise, or the file cannot be written.
    """
    import yaml

    path = Path(path)
    if path.suffix.lower() not in MANIFEST_SUFFIXES:
        raise CohortError(
            "the name of a manifest ends in .yaml", path=path, remedy=f"Call it {path.name}.yaml."
        )
    sections = [
        ManifestSection(
            slide=str(section.slide_path.absolute()),
            counts=str(section.counts_path.absolute()),
            name=section.name,
            patient=section.patient,
            um_per_px=section.mpp,
            scene=section.scene,
            bin_um=section.bin_um,
            library=section.library,
        )
        for section in cohort
    ]
    content = Manifest(name=cohort.name, sections=sections).model_dump(exclude_none=True)
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    with write_atomically(path, CohortError, "the manifest cannot be written") as part:
        part.write_text(text, encoding="utf-8")
