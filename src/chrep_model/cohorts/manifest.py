"""The YAML form of a cohort."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class _Strict(BaseModel):
    # A misspelt key is an error, and `patient: 7` means the patient called "7".
    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True, str_strip_whitespace=True)


class ManifestSection(_Strict):
    """One section; paths are relative to the manifest."""

    slide: str = Field(min_length=1)
    counts: str = Field(min_length=1)
    name: str | None = Field(default=None, min_length=1)
    patient: str | None = Field(default=None, min_length=1)
    um_per_px: float | None = Field(default=None, gt=0, allow_inf_nan=False)


class Manifest(_Strict):
    """A cohort: its name and its sections, in order."""

    name: str | None = Field(default=None, min_length=1)
    sections: list[ManifestSection] = Field(min_length=1)
