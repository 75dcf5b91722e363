"""The child process: what it says, what it leaves, and that it goes on where it was stopped."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from chrep_model.bundle import load_bundle
from chrep_model.errors import SettingsError
from napari_chrep.retraining.job import Job, Workspace
from napari_chrep.retraining.messages import Curve, Ended, Stage, read_message
from napari_chrep.retraining.process import Ears


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
        job = Job(
            preset=preset, in_use=facts.pop("in_use", small_bundle), out=tmp_path / "new.chrep", **facts
        )
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


def test_cancelled(start, tmp_path, small_bundle):
    before = load_bundle(small_bundle).hash
    child, space = start("train")
    child.until(lambda m: isinstance(m, Curve))
    child.process.stdin.write(b"cancel\n")
    child.process.stdin.flush()
    assert child.end() == (Ended(how="cancelled"), 0)
    assert not space.is_finished and [p.name for p in tmp_path.iterdir()] == [space.folder.name]
    assert load_bundle(small_bundle).hash == before


def test_what_was_interrupted_goes_on(start):
    """Killed, and begun again."""
    child, space = start("calibrate", folds=1)
    child.until(lambda m: isinstance(m, Stage) and m.number == 2)
    child.process.kill()
    assert child.process.wait(60) != 0
    assert space.has_progress and not space.is_finished
    fold = (space.folds / "fold1.chrep" / "card.json").stat().st_mtime_ns
    again, _ = start("calibrate")
    assert again.end() == (Ended(how="done"), 0)
    assert (space.folds / "fold1.chrep" / "card.json").stat().st_mtime_ns == fold
    assert not any(isinstance(m, Curve) and m.stage != "new model" for m in again.messages)
    assert len(space.read_comparison().rows) == 1


def test_failing(start, tmp_path):
    child, space = start("calibrate", in_use=tmp_path / "nowhere")
    ended, status = child.end()
    assert (ended.how, status) == ("failed", 1) and "no bundle" in ended.why
    assert not space.has_progress and not (tmp_path / "new.chrep").exists()


def test_what_the_viewer_says():
    ours, theirs = os.pipe()
    ears = Ears(ours)
    assert not ears.cancelled() and not ears.enough()
    os.write(theirs, b"nonsense\nenou")
    os.write(theirs, b"gh\n")
    while not ears.enough():
        pass
    assert not ears.enough()  # it was for the network in training then
    os.close(theirs)
    with pytest.raises(KeyboardInterrupt):  # the viewer is gone: all that was done is kept
        while not ears.cancelled():
            pass
    os.close(ours)


def test_a_broken_job(tmp_path):
    job = Job(preset="calibrate", in_use=tmp_path / "a.chrep", out=tmp_path / "new.chrep")
    space = Workspace(tmp_path)
    space.job_file.write_text(job.model_dump_json().replace("calibrate", "nonsense"))
    with pytest.raises(SettingsError, match="cannot be read"):
        space.read_job()
