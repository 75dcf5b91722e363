"""The YAML manifest of a cohort: its fields, and how it is read and written."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chrep_model.cohorts.slide_names import MANIFEST_SUFFIXES
from chrep_model.errors import CohortError
from chrep_model.files import write_atomically

if TYPE_CHECKING:
    from chrep_model.cohorts.section import Section


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


def read_manifest(path: Path) -> tuple[str, list[dict[str, Any]]]:
    """Read a manifest: return the cohort's name and the keywords of `read_section` for each section.

    Raises
    ------
    CohortError
        It is no YAML, or says no cohort.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        manifest = Manifest.model_validate(content)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise CohortError(
            f"this is not valid YAML ({reason})", path=path, remedy="Correct the file."
        ) from error
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc']) or 'the file'}: {fault['msg']}"
            for fault in error.errors()[:3]
        )
        raise CohortError(
            f"the manifest does not say a cohort ({faults})",
            path=path,
            remedy="Expected: sections: "
            "[{slide: A.svs, counts: A.h5ad, name, patient, um_per_px, library, scene}, ...].",
        ) from error
    entries = [
        {
            "slide_path": None if entry.slide is None else path.parent / entry.slide,
            "counts_path": path.parent / entry.counts,
            "name": entry.name,
            "patient": entry.patient,
            "um_per_px": entry.um_per_px,
            "scene": entry.scene,
            "library": entry.library,
            **({} if entry.bin_um is None else {"bin_um": entry.bin_um}),
        }
        for entry in manifest.sections
    ]
    return manifest.name or path.stem, entries


def write_manifest(name: str, sections: Iterable[Section], path: str | os.PathLike[str]) -> None:
    """Write a cohort as a manifest for `open_cohort`, with absolute paths, patients and scales.

    Parameters
    ----------
    name : str
        Of the cohort.
    sections : iterable of Section
        As they were read.
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
    entries = [
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
        for section in sections
    ]
    content = Manifest(name=name, sections=entries).model_dump(exclude_none=True)
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    with write_atomically(path, CohortError, "the manifest cannot be written") as part:
        part.write_text(text, encoding="utf-8")
