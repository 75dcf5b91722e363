"""Which sections are held out together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from chrep_model.cohorts.cohort import Cohort
from chrep_model.cohorts.section import Section
from chrep_model.errors import CohortError

Split = Literal["section", "patient"]


@dataclass(frozen=True)
class Fold:
    """Sections to train on, and one section to test.

    Attributes
    ----------
    name : str
        Of the test section.
    train : tuple of Section
        All that may be looked at while fitting.
    test : Section
        Only its pixels are looked at before it is scored.
    """

    name: str
    train: tuple[Section, ...]
    test: Section


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
        folds.append(Fold(test.name, train, test))
    return folds
