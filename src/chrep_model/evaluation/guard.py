"""Leak guard: access to a test section is limited by stage, and galleries are checked for test spots.

While a method is fitted, a fold's test section cannot be read. For predicting, its pixels, positions and
features can be read; its counts only for scoring, after the prediction. Reading too early raises an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chrep_model.calibration.gallery import Gallery
from chrep_model.cohorts.section import Section
from chrep_model.errors import LeakError


class GuardStage(IntEnum):
    """Stages of a fold, each with access to more of the test section than the one before."""

    FITTING = 0
    PREDICTING = 1
    SCORING = 2


_OPENS: Mapping[str, tuple[GuardStage, str]] = {
    "slide_path": (GuardStage.PREDICTING, "pixels"),
    "open_slide": (GuardStage.PREDICTING, "pixels"),
    "features": (GuardStage.PREDICTING, "features"),
    "xy": (GuardStage.PREDICTING, "spot positions"),
    "spot_ids": (GuardStage.PREDICTING, "spots"),
    "counts": (GuardStage.SCORING, "counts"),
    "counts_path": (GuardStage.SCORING, "counts"),
    "genes": (GuardStage.SCORING, "gene names"),
}
_DOING = {
    GuardStage.FITTING: "fitted",
    GuardStage.PREDICTING: "asked for a prediction",
    GuardStage.SCORING: "scored",
}


class HeldOutSection(Section):
    """A test section whose data can only be read in the right stage.

    Name, patient and scale can always be read. The stage is FITTING, except inside `during`.

    Parameters
    ----------
    section : Section
        The held-out section.
    features : ndarray, optional
        (n, d) float32 features of its spots.
    """

    features: NDArray[np.float32]
    _stage: GuardStage

    def __init__(self, section: Section, features: NDArray[np.float32] | None = None) -> None:
        values = {field.name: getattr(section, field.name) for field in fields(Section)}
        if features is not None:
            values["features"] = features
        for name, value in (values | {"_stage": GuardStage.FITTING}).items():
            object.__setattr__(self, name, value)  # a section is frozen

    def __getattribute__(self, name: str) -> Any:
        opens = _OPENS.get(name)
        if opens is not None and (stage := object.__getattribute__(self, "_stage")) < opens[0]:
            raise LeakError(
                f"the {opens[1]} of test section {object.__getattribute__(self, 'name')} were read while a "
                f"method was being {_DOING[stage]}",
                remedy="Fit on the fold's training sections alone, predict from the test section's features, "
                "and look at its counts to score.",
            )
        return object.__getattribute__(self, name)

    def __repr__(self) -> str:
        return f"HeldOutSection({self.name!r})"

    @contextmanager
    def during(self, stage: GuardStage) -> Iterator[HeldOutSection]:
        """Allow access to the data of a stage until the end of the ``with`` block."""
        object.__setattr__(self, "_stage", stage)
        try:
            yield self
        finally:
            object.__setattr__(self, "_stage", GuardStage.FITTING)


def check_gallery(gallery: Gallery, train: tuple[Section, ...], test: Section, *, by_patient: bool) -> None:
    """Check that a gallery holds no spots of the test section or of other held-out sections.

    Parameters
    ----------
    gallery : Gallery
        Gallery of a method fitted on the fold.
    train : tuple of Section
        The fold's training sections.
    test : Section
        The fold's test section.
    by_patient : bool
        Whether all sections of the test section's patient are held out.

    Raises
    ------
    LeakError
        The gallery holds spots of the test section, of its held-out patient, or of a section that is not in
        the fold's training sections.
    """
    patient_of = {section.name: section.patient for section in train}
    for number in np.unique(gallery.section):
        name = gallery.section_names[int(number)]
        if name == test.name:
            what = "spots of the test section itself"
        elif name not in patient_of:
            what = f"spots of section {name}, which the fold does not train on"
        elif by_patient and patient_of[name] == test.patient:
            what = f"spots of section {name} of the same patient ({test.patient}), who is left out"
        else:
            continue
        raise LeakError(
            f"the gallery that test section {test.name} is to be compared with holds {what}",
            remedy="Build the gallery of the fold's training sections alone.",
        )


def check_distinct(sections: Sequence[Section]) -> None:
    """Check that no section occurs twice, because one copy would be trained on while the other is tested.

    Raises
    ------
    LeakError
        Two sections have the same counts.
    """
    seen: dict[tuple[tuple[int, ...], bytes, bytes], str] = {}
    for section in sections:
        counts = section.counts
        content = (counts.shape, counts.indices.tobytes(), counts.data.tobytes())
        if (other := seen.setdefault(content, section.name)) != section.name:
            raise LeakError(
                f"sections {other} and {section.name} have the same counts",
                path=section.counts_path,
                remedy="Keep one of them in the cohort.",
            )
