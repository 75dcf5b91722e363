"""What decides a job, and how what it found is kept."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from chrep_model.evaluation import fits as jobs
from chrep_model.evaluation.fits import FitTask, JobStore, Plan, code_digest, do_job, section_digest
from chrep_model.evaluation.splits import make_folds
from chrep_model.methods.chrep import ChrepSettings
from chrep_model.methods.method_settings import MethodSettings


def plan_of(cohort, features, **changes):
    split = changes.pop("split", "section")
    folds = {f.name: f.with_features(cohort, features) for f in make_folds(cohort, split)}
    digests = {s.name: section_digest(s, features[s.name]) for s in cohort}
    return replace(Plan(folds, 12, MethodSettings(), "encoder", digests), **changes)


JOB = FitTask("ridge", "A1", 0)


def test_the_same_plan_has_the_same_keys(cohort, features):
    assert plan_of(cohort, features).key(JOB) == plan_of(cohort, features).key(JOB)


@pytest.mark.parametrize(
    "other", [FitTask("knn", "A1", 0), FitTask("ridge", "A2", 0), FitTask("ridge", "A1", 1)]
)
def test_every_job_has_its_own_key_and_folder(cohort, features, other):
    plan = plan_of(cohort, features)
    assert plan.key(other) != plan.key(JOB)
    assert other.name != JOB.name


@pytest.mark.parametrize(
    "change", [{"genes": 11}, {"genes": ("G01",)}, {"encoder_id": "e"}, {"split": "patient"}]
)
def test_what_was_asked_for_is_in_the_key(cohort, features, change):
    assert plan_of(cohort, features, **change).key(JOB) != plan_of(cohort, features).key(JOB)


def test_settings_are_in_the_key_of_their_method_alone(cohort, features):
    plan, other = (
        plan_of(cohort, features, methods=MethodSettings(chrep=ChrepSettings(k=k))) for k in (10, 20)
    )
    assert plan.key(JOB) == other.key(JOB)
    assert plan.key(FitTask("chrep", "A1", 0)) != other.key(FitTask("chrep", "A1", 0))


def test_data_and_code_are_in_the_key(cohort, features, monkeypatch):
    key = plan_of(cohort, features).key(JOB)
    nudged = {name: values.copy() for name, values in features.items()}
    nudged["C2"][3, 1] += 1e-3
    assert plan_of(cohort, nudged).key(JOB) != key
    monkeypatch.setattr(jobs, "code_digest", lambda: "other")
    assert plan_of(cohort, features).key(JOB) != key


@pytest.mark.parametrize("change", ["counts", "xy", "patient", "genes", "mpp"])
def test_the_digest_of_a_section_covers(cohort, features, change):
    section = cohort["A1"]
    counts, xy = section.counts.copy(), section.xy.copy()
    counts.data[5] += 1
    xy[0, 0] += 1
    other = {"counts": counts, "xy": xy, "patient": "P9", "genes": section.genes[::-1], "mpp": 0.6}
    changed = replace(section, **{change: other[change]})
    assert section_digest(changed, features["A1"]) != section_digest(section, features["A1"])


def test_the_code_digest_is_of_code_alone():
    assert len(code_digest()) == 64


def test_folders_are_named_safely_and_apart():
    odd = [FitTask("ridge", name, 0).name for name in ("a/b", "a_b", "a b", "..", "é")]
    assert len(set(odd)) == 5
    for name in odd:
        assert "/" not in name and name.startswith("ridge-")


def test_what_was_kept_is_read_again(cohort, features, tmp_path):
    plan, store = plan_of(cohort, features), JobStore(tmp_path / "jobs")
    outcome = do_job(plan, JOB)
    assert not store.has(JOB, "key")
    store.keep(JOB, "key", outcome)
    assert store.has(JOB, "key")
    assert not store.has(JOB, "another key")
    assert not store.has(FitTask("ridge", "A1", 1), "key")
    again = store.read(JOB)
    for name, frame in vars(outcome).items():
        pd.testing.assert_frame_equal(getattr(again, name), frame, check_dtype=len(frame) > 0)
    assert [p.name for p in store.folder.iterdir()] == ["ridge-A1-0"]
    store.keep(JOB, "another key", outcome)
    assert store.has(JOB, "another key") and not store.has(JOB, "key")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"key": 1}'])
def test_a_damaged_job_is_not_done(tmp_path, content):
    folder = tmp_path / JOB.name
    folder.mkdir()
    (folder / "job.json").write_text(content)
    assert not JobStore(tmp_path).has(JOB, "key")


def test_a_job_that_fails_while_it_is_kept_leaves_nothing(cohort, features, tmp_path, monkeypatch):
    store = JobStore(tmp_path / "jobs")
    outcome = do_job(plan_of(cohort, features), JOB)
    monkeypatch.setattr(jobs.json, "dumps", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        store.keep(JOB, "key", outcome)
    assert not store.has(JOB, "key")
    assert list(store.folder.iterdir()) == []


def test_maps_are_kept_of_seed_0_alone(cohort, features):
    plan = plan_of(cohort, features)
    first, second = (do_job(plan, FitTask("ridge", "A1", seed)) for seed in (0, 1))
    assert set(first.maps["variant"]) == {"truth", "raw", "smoothed"}
    assert len(first.maps) == 3 * len(cohort["A1"])
    assert second.maps.empty


def test_the_oracle_is_scored_like_a_method(cohort, features):
    outcome = do_job(plan_of(cohort, features), FitTask("library_size_oracle", "A1", 0))
    assert set(outcome.scores["variant"]) == {"raw"}
    assert np.isfinite(outcome.scores["value"]).all()
    assert outcome.intervals.empty
