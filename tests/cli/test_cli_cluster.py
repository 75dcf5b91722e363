"""``chrep predict --scheduler`` on a real cluster of two processes: workers that die, slides that fail."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path

import anndata
import cloudpickle
import dask
import numpy as np
import pytest
import torch
from distributed import Client, LocalCluster, WorkerPlugin

from chrep_model import device
from chrep_model.batch import cluster, records
from chrep_model.batch.slides import BatchSettings
from chrep_model.bundle import load_bundle
from chrep_model.cli import console
from chrep_model.errors import PredictionError

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import it


class Deadly(WorkerPlugin):
    """Kills a worker's process when it is about to write the prediction of a slide, so many times.

    ``folder/NAME`` holds how often that is still to happen.
    """

    name = "deadly"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def setup(self, worker: object) -> None:
        from chrep_model.batch import slides as many
        from chrep_model.export import writing as export

        def write_or_die(prediction, path, *args):
            left = self.folder / path.stem
            if left.exists() and (times := int(left.read_text())):
                left.write_text(str(times - 1))
                os.kill(os.getpid(), signal.SIGKILL)
            export.write_prediction(prediction, path, *args)

        many.write_prediction = write_or_die


@pytest.fixture(scope="module")
def deaths(tmp_path_factory):
    return tmp_path_factory.mktemp("deaths")


@pytest.fixture(scope="module")
def local(deaths):
    """Two processes; the scheduler gives a task up with the first worker that dies of it."""
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL
        ) as started,
        Client(started, set_as_default=False) as client,
    ):
        client.register_plugin(Deadly(deaths))
        yield client


@pytest.fixture
def slides(tiny_cohort):
    return [tiny_cohort / f"SYNTHETIC_{name}.jpg" for name in ("P1A", "P1B", "P2A")]


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def predict(chrep, slides, tiny_bundle, out, local, tmp_path, monkeypatch):
    """Predict on the cluster, with embeddings of its own; gives the result, and the rows by slides' names."""
    monkeypatch.setenv("CHREP_CACHE", str(tmp_path / "cache"))

    def run(*args, slides=slides, scheduler=True):
        where = ("--scheduler", local.scheduler.address) if scheduler else ()
        command = ("predict", *slides, "--mpp", 0.7, "-b", tiny_bundle, "-o", out, *where, "--json")
        result = chrep(*command, *args)
        assert result.out, result.err
        return result, {Path(row["slide"]).stem: row for row in json.loads(result.out)}

    return run


def values(path):
    return anndata.read_h5ad(path).layers["calibrated"]


def test_as_in_one_process_with_one_model_per_worker(
    predict, chrep, slides, tiny_bundle, out, local, tmp_path
):
    result, rows = predict()
    assert (result.code, result.err) == (0, "")
    assert list(rows) == [slide.stem for slide in slides]
    args = ("--mpp", 0.7, "-b", tiny_bundle, "-o", tmp_path / "single", "--again")
    assert chrep("predict", *slides, *args).code == 0
    for slide in slides:
        single = values(tmp_path / "single" / f"{slide.stem}.h5ad")
        np.testing.assert_array_equal(values(out / f"{slide.stem}.h5ad"), single)
    predict("--again")
    assert set(local.run(cluster.loads).values()) <= {0, 1}
    assert sum(local.run(cluster.loads).values()) >= 1
    assert local.run_on_scheduler(lambda dask_scheduler: set(dask_scheduler.task_prefixes)) == {
        "predict_slide"
    }


@pytest.mark.slow
def test_each_of_several_gpus_has_a_process_of_its_own(predict, slides, out, monkeypatch):
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")  # where starting a worker leaves it
    with cluster.one_worker_each(["7", "GPU-8"]) as address, Client(address, set_as_default=False) as client:
        seen = client.run(lambda: (os.getpid(), os.environ["CUDA_VISIBLE_DEVICES"]))
    assert len({process for process, _ in seen.values()}) == 2
    assert {gpu for _, gpu in seen.values()} == {"7", "GPU-8"}

    started = []
    monkeypatch.setattr(device, "gpus", lambda: ["0", "1"])
    monkeypatch.setattr(cluster, "one_worker_each", spied(cluster.one_worker_each, started))
    result, rows = predict(scheduler=False)
    assert (result.code, result.err) == (0, "")
    assert not any(row["already_there"] for row in rows.values())
    there = [values(out / f"{slide.stem}.h5ad") for slide in slides]
    predict(scheduler=False)  # nothing is left to do
    predict("--again", "--device", "cpu", scheduler=False)
    for slide, found in zip(slides, there, strict=True):
        np.testing.assert_array_equal(values(out / f"{slide.stem}.h5ad"), found)
    assert started == [["0", "1"]]

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result, _ = predict("--again", scheduler=False)
    assert 'one of 2 GPUs is used; for all: pip install "napari-chrep[cluster]"' in result.err
    assert started == [["0", "1"]]


def spied(function, calls):
    def spy(argument):
        calls.append(argument)
        return function(argument)

    return spy


@pytest.mark.parametrize(
    ("visible", "names"), [("", ["0", "1"]), ("3,5", ["3", "5"]), ("GPU-a,GPU-b", ["GPU-a", "GPU-b"])]
)
def test_gpus_have_the_names_by_which_they_can_be_shown(visible, names, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert device.gpus() == names


def test_goes_on_with_what_one_process_began_and_the_reverse(predict, slides, out):
    predict("--genes", "ERBB2", slides=slides[:2], scheduler=False)
    files = {path: path.stat().st_mtime_ns for path in out.glob("*.h5ad")}
    _, rows = predict("--genes", "ERBB2")
    assert [row["already_there"] for row in rows.values()] == [True, True, False]
    assert {path: path.stat().st_mtime_ns for path in files} == files
    _, rows = predict("--genes", "ERBB2", scheduler=False)
    assert all(row["already_there"] for row in rows.values())


def test_a_slide_that_fails_does_not_stop_the_others(predict, slides, out, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(slides[0].read_bytes()[:3000])
    for attempts in (1, 2):
        result, rows = predict(slides=[bad, *slides[:2]])
        assert result.code == 1 and result.err.count("\n") == 1 and str(bad) in result.err
        assert rows["bad"]["attempts"] == attempts and "damaged" in rows["bad"]["error"]
        assert [row["already_there"] for row in list(rows.values())[1:]] == [attempts == 2] * 2
    shutil.copy(slides[2], bad)
    assert predict(slides=[bad, *slides[:2]])[1]["bad"]["tiles"] > 0


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_its_slides_time_only(predict, slides, out, deaths):
    (deaths / slides[1].stem).write_text("1")
    result, rows = predict()
    assert (deaths / slides[1].stem).read_text() == "0"
    assert (result.code, result.err) == (0, "") and len(rows) == 3
    assert all((out / f"{slide.stem}.h5ad").exists() for slide in slides)


@pytest.mark.slow
def test_a_slide_that_kills_its_workers_fails_alone(predict, slides, out, deaths):
    (deaths / slides[1].stem).write_text("1000")
    result, rows = predict()
    (deaths / slides[1].stem).unlink()
    assert result.code == 1 and "died again and again" in rows[slides[1].stem]["error"]
    assert {path.stem for path in out.glob("*.h5ad")} == {slides[0].stem, slides[2].stem}
    assert records.read(out / f"{slides[1].stem}.h5ad").state == "failed"
    result, rows = predict()
    assert result.code == 0 and sum(row["already_there"] for row in rows.values()) == 2


@pytest.fixture
def job(tiny_bundle, tmp_path):
    """Settings as the command makes them."""
    return BatchSettings(
        bundle=tiny_bundle, bundle_hash=load_bundle(tiny_bundle).hash, cache=tmp_path / "cache", genes=(),
        rect=None, mpp=0.7, stride=1.0, format="h5ad", device="cpu", batch_size=4, precision="fp32",
        keeps_records=True,
    )  # fmt: skip


def test_what_is_pending_is_cancelled(job, slides, local, out):
    out.mkdir()
    targets = {slide: out / f"{slide.stem}.h5ad" for slide in slides}
    ended = cluster.predict_slides(local.scheduler.address, job, targets, console.one_line)
    next(ended)
    ended.close()
    deadline = time.monotonic() + 20
    while local.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)):
        assert time.monotonic() < deadline
        time.sleep(0.1)


class TestParts:
    """A slide of many tiles is cut."""

    @pytest.fixture
    def parts(self, local, job, out, tmp_path):
        """Predict a slide in parts of so many tiles, with embeddings of its own."""

        def run(slide, tiles, name):
            target = out / f"{name}.h5ad"
            out.mkdir(exist_ok=True)
            own = replace(job, cache=tmp_path / f"{name}-cache")
            address = local.scheduler.address
            ended = cluster.predict_slides(address, own, {slide: target}, console.one_line, part_tiles=tiles)
            return target, dict(ended)[slide]

        return run

    def test_the_same_comes_out(self, parts, slides, monkeypatch):
        whole, _ = parts(slides[0], 1000, "whole")
        encoded = []
        submit = cluster._Run._submit_part
        monkeypatch.setattr(cluster._Run, "_submit_part", lambda *a: encoded.append(a[2]) or submit(*a))
        cut, outcome = parts(slides[0], 5, "cut")
        assert len(encoded) > 2 and outcome.record.state == "done"
        np.testing.assert_allclose(values(cut), values(whole), atol=1e-5)

    def test_a_slide_that_cannot_be_read_says_so(self, parts, tmp_path):
        (tmp_path / "bad.jpg").write_bytes(b"none")
        _, outcome = parts(tmp_path / "bad.jpg", 5, "bad")
        assert outcome.record.state == "failed" and "bad.jpg" in outcome.record.error


@pytest.fixture
def args(slides, tiny_bundle, out):
    return ("predict", *slides, "--mpp", 0.7, "-b", tiny_bundle, "-o", out)


@pytest.mark.parametrize("address", ["closed port", "nonsense"])
def test_no_scheduler(refused, args, monkeypatch, address):
    monkeypatch.setattr(cluster, "ANSWER_SECONDS", 1)
    if address == "closed port":
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    line = refused(*args, "--scheduler", address)
    assert address in line and "dask scheduler" in line


def test_distributed_is_not_installed(refused, args, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert 'pip install "napari-chrep[cluster]"' in refused(*args, "--scheduler", "tcp://127.0.0.1:8786")


def test_workers_that_do_not_see_the_bundle(local, job, slides, out):
    elsewhere = replace(job, bundle=out / "elsewhere.chrep")
    ended = cluster.predict_slides(local.scheduler.address, elsewhere, {slides[0]: out / "a.h5ad"}, str)
    with pytest.raises(PredictionError, match=r"does not see .*elsewhere.chrep.*file system"):
        next(ended)


def test_a_device_that_the_workers_do_not_have(refused, args, local):
    line = refused(*args, "--scheduler", local.scheduler.address, "--device", "cuda:77")
    assert "cannot load the model" in line and "cuda:77" in line
