"""Folds: the test section, or its whole patient, is never among the training sections."""

from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from chrep_model.cohorts.cohort import Cohort
from chrep_model.cohorts.section import Section
from chrep_model.errors import CohortError
from chrep_model.evaluation.splits import make_folds


def cohort_of(**patients):
    """A cohort of sections by name: ``cohort_of(A1="P1", ...)``."""
    sections = tuple(
        Section(
            name=name, patient=patient, slide_path=Path(f"{name}.png"), counts_path=Path(f"{name}.h5ad"),
            counts=sparse.csr_matrix((1, 1), dtype=np.float32), genes=("G",), xy=np.zeros((1, 2)),
            spot_ids=("s",), mpp=0.5, spot_diameter_px=None,
        )
        for name, patient in patients.items()
    )  # fmt: skip
    return Cohort(Path("cohort"), "cohort", sections)


COHORT = cohort_of(A1="P1", A2="P1", B1="P2", C1="P3", C2="P3")


def names(sections):
    return [s.name for s in sections]


def test_every_section_is_left_out_once():
    folds = make_folds(COHORT, "section")
    assert [fold.name for fold in folds] == ["A1", "A2", "B1", "C1", "C2"]
    for fold in folds:
        assert fold.test.name == fold.name
        assert names(fold.train) == [n for n in COHORT.names if n != fold.name]


def test_a_patient_is_left_out_with_all_sections():
    folds = make_folds(COHORT, "patient")
    assert len(folds) == 5
    for fold in folds:
        assert fold.test.patient not in {s.patient for s in fold.train}
    assert names(folds[0].train) == ["B1", "C1", "C2"]


def test_only_some_are_tested_and_all_others_still_train():
    folds = make_folds(COHORT, "section", ("C1", "A2"))
    assert [fold.name for fold in folds] == ["A2", "C1"]  # in the cohort's order
    assert names(folds[1].train) == ["A1", "A2", "B1", "C2"]


def test_an_unknown_test_section():
    with pytest.raises(CohortError, match="A9"):
        make_folds(COHORT, "section", ("A9",))


@pytest.mark.parametrize(
    ("cohort", "split", "left"),
    [
        (cohort_of(A="P1", B="P2"), "section", "1 section"),
        (cohort_of(A="P1"), "section", "0 section"),
        (cohort_of(A="P1", B="P1", C="P2"), "patient", "1 section"),
        (cohort_of(A="P1", B="P1", C="P1"), "patient", "0 section"),
    ],
)
def test_too_few_sections_to_train_on(cohort, split, left):
    with pytest.raises(CohortError, match=left) as caught:
        make_folds(cohort, split)
    assert caught.value.path == "cohort"
    assert ("--split section" in caught.value.remedy) == (split == "patient")


def test_a_patient_can_be_tested_where_the_others_suffice():
    cohort = cohort_of(A="P1", B="P1", C="P2")
    (fold,) = make_folds(cohort, "patient", ("C",))
    assert names(fold.train) == ["A", "B"]
