"""The guard raises on each kind of read out of turn, and names the section and what was read."""

import dataclasses
import pickle

import numpy as np
import pytest

from chrep_model.calibration.gallery import Gallery
from chrep_model.cohorts.gene_panel import GenePanel
from chrep_model.errors import LeakError
from chrep_model.evaluation import fits as jobs
from chrep_model.evaluation.fits import FitTask, Plan, do_job
from chrep_model.evaluation.guard import GuardStage, HeldOutSection, check_distinct, check_gallery
from chrep_model.evaluation.splits import make_folds
from chrep_model.methods.method_settings import MethodSettings

READS = {
    "counts": lambda s: s.counts,
    "counts file": lambda s: s.counts_path,
    "gene names": lambda s: s.genes,
    "expression": lambda s: GenePanel(("G01", "G02"), np.zeros(2), np.ones(2)).expression(s),
    "panel": lambda s: GenePanel.fit([s], 5),
    "copy": dataclasses.replace,
    "features": lambda s: s.features,
    "slide": lambda s: s.open_slide(),
    "slide file": lambda s: s.slide_path,
    "positions": lambda s: s.xy,
    "number of spots": len,
}
OF_PIXELS = ("features", "slide", "slide file", "positions", "number of spots")


@pytest.fixture
def held(cohort, features):
    return HeldOutSection(cohort["B1"], features["B1"])


@pytest.mark.parametrize("read", READS)
def test_while_fitting_nothing_can_be_read(held, read):
    with pytest.raises(LeakError, match="of test section B1 were read while a method was being fitted"):
        READS[read](held)


@pytest.mark.parametrize("read", [name for name in READS if name not in OF_PIXELS])
def test_while_predicting_counts_are_closed(held, read):
    with (
        held.during(GuardStage.PREDICTING) as test,
        pytest.raises(LeakError, match="B1 were read while a method was being asked for a prediction"),
    ):
        READS[read](test)


@pytest.mark.parametrize("read", ["features", "positions", "number of spots", "slide file"])
def test_while_predicting_what_a_slide_gives_is_open(held, read):
    with held.during(GuardStage.PREDICTING) as test:
        READS[read](test)


def test_the_message_says_what_was_read(held):
    for read, word in {"counts": "counts", "features": "features", "slide": "pixels"}.items():
        with pytest.raises(LeakError, match=f"the {word} of test section B1"):
            READS[read](held)


def test_while_scoring_it_is_the_section(held, cohort, features):
    with held.during(GuardStage.SCORING) as test:
        for field in dataclasses.fields(cohort["B1"]):
            assert getattr(test, field.name) is getattr(cohort["B1"], field.name)
        assert test.features is features["B1"]
        assert len(test) == len(cohort["B1"])


def test_it_closes_again_whatever_happens(held):
    with pytest.raises(ZeroDivisionError), held.during(GuardStage.SCORING):
        raise ZeroDivisionError
    with pytest.raises(LeakError):
        _ = held.counts


def test_name_patient_and_scale_are_no_secret(held):
    assert (held.name, held.patient, held.mpp) == ("B1", "P2", 0.5)
    assert repr(held) == "HeldOutSection('B1')"  # a debugger may look at it


def test_it_is_as_closed_in_another_process(held):
    with held.during(GuardStage.SCORING):
        open_one = pickle.loads(pickle.dumps(held))  # noqa: S301
    for copy in (pickle.loads(pickle.dumps(held)), open_one):  # noqa: S301
        assert copy.name == "B1"
    with pytest.raises(LeakError):
        _ = pickle.loads(pickle.dumps(held)).counts  # noqa: S301


# A fold's job, with a method that cheats


def plan_of(cohort, features, split="section"):
    folds = {f.name: f.with_features(cohort, features) for f in make_folds(cohort, split, ("B1",))}
    return Plan(folds, 12, MethodSettings(), "encoder", {s.name: s.name for s in cohort})


@pytest.mark.parametrize("what", ["counts", "features", "xy"])
def test_a_fit_that_looks_at_the_test_section_is_stopped(cohort, features, monkeypatch, what):
    plan = plan_of(cohort, features)

    def cheat(*args, **kwargs):
        return getattr(plan.folds["B1"].test, what)

    monkeypatch.setattr(jobs, "fit_model", cheat)
    with pytest.raises(LeakError, match="test section B1"):
        do_job(plan, FitTask("ridge", "B1", 0))


def test_a_prediction_that_looks_at_the_counts_is_stopped(cohort, features, monkeypatch):
    plan = plan_of(cohort, features)
    fit_model = jobs.fit_model

    def cheat(*args, **kwargs):
        model = fit_model(*args, **kwargs)
        model.fitted.respond = lambda x: {"distance": plan.folds["B1"].test.counts}
        return model

    monkeypatch.setattr(jobs, "fit_model", cheat)
    with pytest.raises(LeakError, match="counts of test section B1"):
        do_job(plan, FitTask("ridge", "B1", 0))


def test_a_fold_does_not_hand_out_the_features_of_its_test_section(cohort, features):
    fold = plan_of(cohort, features).folds["B1"]
    assert set(fold.features) == {"A1", "A2", "C1", "C2"}


def test_a_gallery_that_a_job_was_given_is_checked(cohort, features, monkeypatch):
    plan = plan_of(cohort, features)
    fit_model = jobs.fit_model

    def cheat(method, train, known, *args, **kwargs):
        return fit_model(method, cohort.sections, features, *args, **kwargs)

    monkeypatch.setattr(jobs, "fit_model", cheat)
    with pytest.raises(LeakError, match="B1 is to be compared with holds spots of the test section itself"):
        do_job(plan, FitTask("knn", "B1", 0))


# The gallery


def gallery_of(*names):
    n = len(names)
    z = np.eye(n, 4, dtype=np.float32)
    return Gallery(z, z, np.arange(n), np.zeros(n, np.int64), np.zeros((n, 2)), tuple(names))


def check(cohort, gallery, split, test="A1"):
    (fold,) = make_folds(cohort, split, (test,))
    check_gallery(gallery, fold.train, fold.test, by_patient=split == "patient")


def test_a_gallery_of_the_training_sections_passes(cohort):
    check(cohort, gallery_of("A2", "B1", "C1"), "section")
    check(cohort, gallery_of("B1", "C1"), "patient")


@pytest.mark.parametrize("split", ["section", "patient"])
def test_a_gallery_with_the_test_section_is_refused(cohort, split):
    with pytest.raises(LeakError, match=r"A1 .* the test section itself"):
        check(cohort, gallery_of("B1", "A1"), split)


def test_a_gallery_with_the_test_sections_patient_is_refused(cohort):
    train = tuple(s for s in cohort if s.name != "A1")
    check_gallery(gallery_of("B1", "A2"), train, cohort["A1"], by_patient=False)
    with pytest.raises(LeakError, match=r"section A2 of the same patient \(P1\)"):
        check_gallery(gallery_of("B1", "A2"), train, cohort["A1"], by_patient=True)
    with pytest.raises(LeakError, match="A2, which the fold does not train on"):
        check(cohort, gallery_of("B1", "A2"), "patient")


def test_a_name_without_spots_does_not_count(cohort):
    gallery = gallery_of("B1", "C1", "A1")
    rows = slice(0, 2)
    part = dataclasses.replace(
        gallery, z=gallery.z[rows], expression=gallery.expression[rows], section=gallery.section[rows],
        patient=gallery.patient[rows], position=gallery.position[rows],
    )  # fmt: skip
    check(cohort, part, "section")


def test_the_same_counts_twice_are_refused(cohort):
    check_distinct(cohort.sections)
    copy = dataclasses.replace(cohort["C1"], name="other", counts=cohort["C1"].counts.copy())
    with pytest.raises(LeakError, match="C1 and other"):
        check_distinct((*cohort.sections, copy))
