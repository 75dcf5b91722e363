"""Jobs in processes and in turn: the same tables; stopping, failing and going on."""

import multiprocessing
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from chrep_model.errors import Cancelled, GeneError, JobError
from chrep_model.evaluation import parallel
from chrep_model.evaluation.parallel import single_threaded, usable_cores
from chrep_model.progress import Progress

FILES = ("per_gene", "maps", "intervals")


def folders(out):
    return sorted(p.name for p in (out / "jobs").iterdir())


@pytest.fixture
def done(monkeypatch):
    """Names of the jobs that are really done, as they are."""
    names = []
    do_job = parallel.do_job

    def watched(plan, job, progress):
        outcome = do_job(plan, job, progress)
        names.append(job.name)
        return outcome

    monkeypatch.setattr(parallel, "do_job", watched)
    return names


# In processes


def test_two_processes_write_what_one_writes(made, bench, tmp_path):
    """Bit by bit, and nobody is left behind."""
    told = []
    wanted = {"methods": ("mean", "ridge", "trees"), "test_sections": ("A1", "B1"), "few_trees": False}
    progress = Progress(advance=lambda *step: told.append(step))
    bench(*made, tmp_path / "two", run={"processes": 2, "progress": progress}, **wanted)
    assert told == [(n, 8, "fits") for n in range(9)]
    assert not multiprocessing.active_children()
    bench(*made, tmp_path / "one", **wanted)
    assert folders(tmp_path / "two") == folders(tmp_path / "one")
    one, two = (tmp_path / run for run in ("one", "two"))
    for name in FILES:
        frames = [pd.read_parquet(out / f"{name}.parquet") for out in (one, two)]
        assert len(frames[0])
        pd.testing.assert_frame_equal(*frames, check_exact=True)
    for name in ("scores.csv", "summary.json"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def counted_only_in(cohort, name):
    """The cohort with counts in one section alone: a model that is tested on it has nothing to learn from."""
    sections = tuple(s if s.name == name else replace(s, counts=s.counts * 0) for s in cohort)
    return type(cohort)(cohort.path, cohort.name, sections)


@pytest.mark.slow
def test_a_job_that_fails_in_a_process_names_itself_and_what_is_done_stays(made, bench, tmp_path):
    cohort, features = counted_only_in(made[0], "C2"), made[1]
    wanted = {"test_sections": ("A1", "C2")}
    with pytest.raises(GeneError, match="tested on C2, seed 0: no gene is detected") as caught:
        bench(cohort, features, tmp_path / "e", run={"processes": 2}, **wanted)
    assert "Traceback" in str(caught.value.__cause__.__cause__)  # --debug shows where, in the other process
    assert not multiprocessing.active_children()
    assert folders(tmp_path / "e") == ["library_size_oracle-A1-0", "ridge-A1-0"]
    assert not (tmp_path / "e" / "scores.csv").exists()


# In turn


class Killed(BaseException):
    """Nothing that anybody catches."""


def test_a_killed_run_goes_on_where_it_was(made, bench, tmp_path, done):
    wanted = {"methods": ("mean", "ridge"), "test_sections": ("A1", "B1")}

    def kill(count, total, what):
        if count == 2:
            raise Killed

    with pytest.raises(Killed):
        bench(*made, tmp_path / "e", run={"progress": Progress(advance=kill)}, **wanted)
    assert done == ["mean-A1-0", "ridge-A1-0"] == folders(tmp_path / "e")
    told = []
    progress = Progress(advance=lambda *step: told.append(step[:2]))
    resumed = bench(*made, tmp_path / "e", run={"progress": progress}, **wanted)
    assert done[2:] == ["library_size_oracle-A1-0", "mean-B1-0", "ridge-B1-0", "library_size_oracle-B1-0"]
    assert told == [(n, 6) for n in range(2, 7)]
    at_once = bench(*made, tmp_path / "f", **wanted)
    pd.testing.assert_frame_equal(resumed.scores, at_once.scores, check_exact=True)
    pd.testing.assert_frame_equal(resumed.maps, at_once.maps, check_exact=True)


def test_done_again_is_what_was_changed_and_no_more(made, bench, tmp_path, done):
    cohort, features = made
    wanted = {"methods": ("mean", "trees"), "test_sections": ("A1", "B1"), "split": "patient"}
    first = bench(cohort, features, tmp_path / "e", **wanted)
    done.clear()
    again = bench(cohort, features, tmp_path / "e", **wanted)
    assert done == []
    pd.testing.assert_frame_equal(again.scores, first.scores, check_exact=True)
    bench(cohort, features, tmp_path / "e", **wanted | {"seeds": 2})
    assert done == ["trees-A1-1", "trees-B1-1"]
    done.clear()
    bench(cohort, features, tmp_path / "e", **wanted | {"methods": ("mean", "knn")})
    assert done == ["knn-A1-0", "knn-B1-0"]
    done.clear()
    nudged = features | {"A2": features["A2"] + np.float32(0.01)}  # A2 does not train for A1, its patient
    bench(cohort, nudged, tmp_path / "e", **wanted | {"methods": ("mean",)})
    assert done == ["mean-B1-0", "library_size_oracle-B1-0"]
    done.clear()
    bench(cohort, nudged, tmp_path / "e", **wanted | {"methods": ("mean",), "genes": 11})
    assert len(done) == 4


def test_a_fault_in_a_job_is_one_clear_error(made, bench, tmp_path, monkeypatch):
    do_job = parallel.do_job

    def fails(plan, job, progress):
        if job.fold == "B1":
            raise ValueError("shapes\ndo not fit")
        return do_job(plan, job, progress)

    monkeypatch.setattr(parallel, "do_job", fails)
    with pytest.raises(JobError) as caught:
        bench(*made, tmp_path / "e", test_sections=("A1", "B1"))
    text = str(caught.value)
    assert text.startswith("ridge tested on B1, seed 0: unexpected ValueError: shapes do not fit.")
    assert "goes on from there" in text and "\n" not in text
    assert isinstance(caught.value.__cause__, ValueError)
    assert folders(tmp_path / "e") == ["library_size_oracle-A1-0", "ridge-A1-0"]


def test_cancelling_keeps_what_is_done(made, bench, tmp_path, done):
    with pytest.raises(Cancelled):
        bench(*made, tmp_path / "e", run={"progress": Progress(cancelled=lambda: len(done) == 3)})
    assert len(folders(tmp_path / "e")) == 3
    assert not (tmp_path / "e" / "scores.csv").exists()


def test_cancelling_is_heard_within_a_fit(made, bench, tmp_path, done):
    asked = []

    def cancelled():
        asked.append(1)
        return len(asked) > 3

    progress = Progress(cancelled=cancelled)
    with pytest.raises(Cancelled):
        bench(*made, tmp_path / "e", methods=("chrep",), run={"progress": progress})
    assert done == []


def test_one_thread_within_and_as_before_without():
    import torch
    from threadpoolctl import threadpool_info

    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), single_threaded():
        assert torch.get_num_threads() == 1
        assert {pool["num_threads"] for pool in threadpool_info()} == {1}
        raise ZeroDivisionError
    assert torch.get_num_threads() == before


def test_a_forest_uses_one_core_within():
    from joblib import Parallel

    with single_threaded():
        assert Parallel(n_jobs=-1, prefer="threads")._effective_n_jobs() == 1


def test_there_is_a_core():
    assert usable_cores() >= 1
