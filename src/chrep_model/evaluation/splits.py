"""Folds of a cohort: which sections are trained on, and which one is tested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from chrep_model.cohorts.cohort import Cohort
from chrep_model.cohorts.section import Section
from chrep_model.errors import CohortError
from chrep_model.evaluation.guard import HeldOutSection

Split = Literal["section", "patient"]


@dataclass(frozen=True)
class Fold:
    """Sections to train on, and one section to test.

    Attributes
    ----------
    name : str
        Name of the test section.
    split : {"section", "patient"}
        Whether the section or its whole patient is held out.
    train : tuple of Section
        Training sections.
    test : HeldOutSection
        Test section; readable from the prediction on, its counts only for scoring.
    features : mapping
        Name of a training section -> (n, d) float32 features; `test` holds its own.
    """

    name: str
    split: Split
    train: tuple[Section, ...]
    test: HeldOutSection
    features: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    def with_features(self, cohort: Cohort, features: Mapping[str, NDArray[np.float32]]) -> Fold:
        """Return the fold with the features of its sections; `features` may hold those of others too."""
        return replace(
            self,
            test=HeldOutSection(cohort[self.name], features[self.name]),
            features={section.name: features[section.name] for section in self.train},
        )


def make_folds(cohort: Cohort, split: Split, test_sections: Sequence[str] = ()) -> list[Fold]:
    """Make one fold per test section, trained without that section or without its patient.

    Parameters
    ----------
    cohort : Cohort
        All sections.
    split : {"section", "patient"}
        Hold out one section, or its whole patient. Sections of one patient are nearly replicates: the first
        tests a new section of a known tumour, the second a new tumour.
    test_sections : sequence of str
        Sections to test; all unless given.

    Raises
    ------
    CohortError
        Fewer than two training sections would remain, or a name is unknown.
    """
    wanted = cohort.only(test_sections).sections if test_sections else cohort.sections
    folds = []
    for test in wanted:
        train = tuple(
            s
            for s in cohort.sections
            if s.name != test.name and (split == "section" or s.patient != test.patient)
        )
        if len(train) < 2:
            raise CohortError(
                f"without {'patient ' + test.patient if split == 'patient' else 'section ' + test.name} "
                f"{len(train)} section(s) are left to train on; it takes two",
                path=cohort.path,
                remedy="Add sections" + (", or use --split section." if split == "patient" else "."),
            )
        folds.append(Fold(test.name, split, train, HeldOutSection(test)))
    return folds
