"""The child process: what it says, what it leaves, and that it goes on where it was stopped."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from chrep_model.errors import SettingsError
from napari_chrep.retrain.messages import Curve, Ended, read_message
from napari_chrep.retrain.process import ViewerInput
from napari_chrep.retrain.request import RetrainRequest, Workspace


@pytest.mark.slow
def test_deserted_it_ends_and_keeps_what_is_done(small_bundle, small_cohort, tmp_path):
    """The widget's tests see the child cancelled, killed, failing and done; here the viewer dies."""
    job = RetrainRequest(preset="train", in_use=small_bundle, out=tmp_path / "new.chrep")
    space = Workspace.beside(job.out)
    space.begin(job, small_cohort)
    command = [sys.executable, "-m", "napari_chrep.retrain.process", str(space.folder)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as child:
        for line in child.stdout:
            message = read_message(line)
            if isinstance(message, Curve) and message.stage != f"without {small_cohort.names[2]}":
                break
        child.stdin.close()
        *_, last = child.stdout
        assert read_message(last) == Ended(how="interrupted")
        assert child.wait(60) == 3
    assert space.has_progress and not space.is_finished and not job.out.exists()


def test_what_the_viewer_says():
    ours, theirs = os.pipe()
    viewer_input = ViewerInput(ours)
    assert not viewer_input.cancelled() and not viewer_input.enough()
    os.write(theirs, b"nonsense\nenou")
    os.write(theirs, b"gh\n")
    while not viewer_input.enough():
        pass
    assert not viewer_input.enough()  # it was for the network in training then
    os.close(theirs)
    with pytest.raises(KeyboardInterrupt):  # the viewer is gone: all that was done is kept
        while not viewer_input.cancelled():
            pass
    os.close(ours)


def test_a_broken_job(tmp_path):
    job = RetrainRequest(preset="calibrate", in_use=tmp_path / "a.chrep", out=tmp_path / "new.chrep")
    space = Workspace(tmp_path)
    space.job_file.write_text(job.model_dump_json().replace("calibrate", "nonsense"))
    with pytest.raises(SettingsError, match="cannot be read"):
        space.read_job()
