"""The child process: what it says, what it leaves, and that it goes on where it was stopped."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from chrep_model.bundle import load_bundle
from chrep_model.pipeline import calibrate
from napari_chrep.retraining.effort import Rates
from napari_chrep.retraining.job import Job, Workspace
from napari_chrep.retraining.messages import Curve, Ended, Stage, read_message


class Child:
    """A process at work in a folder."""

    def __init__(self, space):
        command = [sys.executable, "-m", "napari_chrep.retraining.process", str(space.folder)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)
        self.messages = []

    def until(self, wanted):
        """Read messages up to the first that `wanted` takes."""
        for line in self.process.stdout:
            self.messages.append(read_message(line))
            if wanted(self.messages[-1]):
                return self
        raise AssertionError((self.messages[-3:], self.process.stderr.read().decode()[-2000:]))

    def end(self):
        """Wait for the end; gives the last message and the exit status."""
        self.until(lambda message: isinstance(message, Ended))
        self.process.stdin.close()
        left = self.process.stdout.read()
        assert left == b""
        return self.messages[-1], self.process.wait(60)


@pytest.fixture
def start(small_bundle, small_cohort, tmp_path):
    """Begin a job: ``start("calibrate", cohort=..., folds=1)`` gives the child and its workspace."""
    children = []

    def start(preset, cohort=small_cohort, **facts):
        job = Job(preset=preset, in_use=facts.pop("in_use", small_bundle), out=tmp_path / "new.chrep", **facts)
        space = Workspace.beside(job.out)
        if not space.folder.exists():
            space.begin(job, cohort)
        children.append(Child(space))
        return children[-1], space

    yield start
    for child in children:
        child.process.kill()
        for stream in (child.process.stdin, child.process.stdout, child.process.stderr):
            stream.close()
        child.process.wait(60)


def test_calibrating(start, small_bundle, small_cohort, tmp_path):
    child, space = start("calibrate")
    before = load_bundle(small_bundle).hash
    assert child.end() == (Ended(how="done"), 0)
    assert not (tmp_path / "new.chrep").exists()  # that is for the user to say
    comparison = space.read_comparison()
    assert {row.section: row.seen for row in comparison.rows} == {
        small_cohort.names[2]: "no", small_cohort.names[0]: "section", small_cohort.names[1]: "section",
    }  # fmt: skip
    assert "flatters" in comparison.how
    stages = [m for m in child.messages if isinstance(m, Stage)]
    assert [(s.number, s.of) for s in stages] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert stages[-1].what == "new model" and stages[0].what == f"without {small_cohort.names[2]}"
    curves = [m for m in child.messages if isinstance(m, Curve)]
    assert {c.stage for c in curves} == {s.what for s in stages}
    watched = {c.part for c in curves if c.held_out is not None and c.stage == "new model"}
    assert watched == {f"without {name}/corrector" for name in small_cohort.names}
    found = load_bundle(space.result(space.read_job()))
    expected = calibrate(load_bundle(small_bundle), small_cohort, tmp_path / "by_hand.chrep", device="cpu")
    assert found.card.files == expected.card.files and found.card.name == "new"
    assert load_bundle(small_bundle).hash == before


def test_training_with_other_genes_and_adding(start, small_bundle, small_cohort):
    child, space = start("train", genes=12, folds=1, seed=3)
    assert child.end()[0] == Ended(how="done")
    new, old = load_bundle(space.result(space.read_job())), load_bundle(small_bundle)
    assert len(new.genes) == 12 and new.card.seed == 3
    assert new.card.encoder_id == old.card.encoder_id and new.context_um == old.context_um
    assert [s["name"] for s in new.card.sections] == list(small_cohort.names)
    assert new.card.settings["chrep"] == old.card.settings["chrep"]
    (row,) = space.read_comparison().rows
    assert row.genes == len(set(new.genes) & set(old.genes)) or row.genes < 12
    parts = {m.part for m in child.messages if isinstance(m, Curve) and m.held_out is not None}
    assert {f"without {name}/member 1" for name in small_cohort.names} <= parts


def test_the_open_sections_spots(start, small_cohort):
    section = small_cohort.names[2]
    child, space = start("add", cohort=small_cohort.only([section]))
    assert child.end()[0] == Ended(how="done")
    gallery = load_bundle(space.result(space.read_job())).model.fitted.gallery
    assert gallery.section_names == small_cohort.names
    comparison = space.read_comparison()
    assert comparison.rows == () and "flatter" in comparison.how


def test_cancelled(start, tmp_path, small_bundle):
    before = load_bundle(small_bundle).hash
    child, space = start("train")
    child.until(lambda m: isinstance(m, Curve))
    child.process.stdin.write(b"cancel\n")
    child.process.stdin.flush()
    assert child.end() == (Ended(how="cancelled"), 0)
    assert not space.is_finished and [p.name for p in tmp_path.iterdir()] == [space.folder.name]
    assert load_bundle(small_bundle).hash == before


@pytest.mark.parametrize("how", ["killed", "deserted"])
def test_what_was_interrupted_goes_on_to_the_same_model(start, how):
    child, space = start("calibrate", folds=1)
    child.until(lambda m: isinstance(m, Stage) and m.number == 2)
    if how == "killed":
        child.process.kill()
    else:
        child.process.stdin.close()
    assert child.process.wait(60) != 0
    assert space.has_progress and not space.is_finished
    fold = (space.folds / "fold1.chrep" / "card.json").stat().st_mtime_ns
    again, _ = start("calibrate")
    assert again.end()[0] == Ended(how="done")
    assert (space.folds / "fold1.chrep" / "card.json").stat().st_mtime_ns == fold
    assert not any(isinstance(m, Curve) and m.stage != "new model" for m in again.messages)
    assert len(space.read_comparison().rows) == 1


def test_failing(start, small_cohort, tmp_path):
    child, space = start("train", cohort=small_cohort.only(small_cohort.names[:1]))
    ended, status = child.end()
    assert (ended.how, status) == ("failed", 1) and "two sections" in ended.why
    assert not space.has_progress and not (tmp_path / "new.chrep").exists()


def test_no_model_and_a_broken_job(start, tmp_path):
    child, space = start("calibrate", in_use=tmp_path / "nowhere")
    assert "no bundle" in child.end()[0].why
    facts = json.loads(space.job_file.read_text())
    space.job_file.write_text(json.dumps(facts | {"preset": "nonsense"}))
    assert "cannot be read" in start("calibrate")[0].end()[0].why


def test_rates(coarse_cache):
    assert not np.isnan(sum(Rates.load().tile.values()))
