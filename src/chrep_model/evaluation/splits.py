"""Which sections are held out together."""

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
        Of the test section.
    split : {"section", "patient"}
        What was left out.
    train : tuple of Section
        All that may be looked at while fitting.
    test : HeldOutSection
        Closed until it is predicted, and its counts until it is scored.
    features : mapping
        Name of a training section -> (n, d) float32; those of the test section are its own.
    """

    name: str
    split: Split
    train: tuple[Section, ...]
    test: HeldOutSection
    features: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    def with_features(self, cohort: Cohort, features: Mapping[str, NDArray[np.float32]]) -> Fold:
        """Give the fold the features of its sections; `features` may hold those of others as well."""
        return replace(
            self,
            test=HeldOutSection(cohort[self.name], features[self.name]),
            features={section.name: features[section.name] for section in self.train},
        )


def make_folds(cohort: Cohort, split: Split, test_sections: Sequence[str] = ()) -> list[Fold]:
    """One fold per test section: without that section, or without any of its patient's.

    Parameters
    ----------
    cohort : Cohort
        All sections.
    split : {"section", "patient"}
        Leave one section out, or the whole patient. Sections of one patient are near-replicates: the first
        asks for the next section of a known tumour, the second for a tumour never seen.
    test_sections : sequence of str
        Test these only; all unless given.

    Raises
    ------
    CohortError
        Fewer than two training sections would be left, or a name is unknown.
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
