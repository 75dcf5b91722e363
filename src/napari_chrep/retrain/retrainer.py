"""Control the child process that retrains: start it, follow its messages, keep or discard the new model."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from napari.utils.notifications import show_error
from psygnal import Signal
from qtpy.QtCore import QLockFile, QProcess, QProcessEnvironment

from chrep_model.errors import BundleError, ChrepError, SettingsError
from chrep_model.processes import child_environment, python_command
from napari_chrep.background.prediction_engine import PredictionEngine
from napari_chrep.background.runner import TaskRunner, in_words, show
from napari_chrep.retrain.messages import Ended, Message, StageBegun, StatusLine, read_message
from napari_chrep.retrain.request import RetrainRequest, Workspace
from napari_chrep.state.session import Session
from napari_chrep.state.settings import remember_retraining_folder, retraining_folder
from napari_chrep.state.viewers import kept_for

if TYPE_CHECKING:
    from chrep_model.cohorts.cohort import Cohort
    from chrep_model.cohorts.manifest import Manifest
    from chrep_model.evaluation.model_comparison import ModelComparison

State = Literal["idle", "running", "cancelling", "interrupted", "outcome", "moving"]

#: Milliseconds that the child process has to end by itself when its window closes, before it is killed.
_GRACE_MS = 2000


class Retrainer:
    """Controller of the retraining jobs of one viewer, one at a time.

    Parameters
    ----------
    viewer : napari.Viewer
        Only a weak reference is kept.

    Attributes
    ----------
    state : str
        ``idle``; ``running``; ``cancelling``; ``interrupted``: a job can be resumed; ``outcome``: a new model
        waits for the user's decision; ``moving``: the new model is being moved to its final path.
    job, space : RetrainRequest, Workspace, or None
        Current job and its folder; None in the state ``idle``.
    comparison : ModelComparison or None
        Scores of both models in the state ``outcome``.
    stage : StageBegun or None
        The model that is being trained.
    status : str
        Text on the state for the user, in sentences.
    former : Path or None
        The bundle that was in use before the last new model replaced it.
    changed : Signal()
        Emitted when one of these changes.
    message_received : Signal(object)
        Emitted with each message of the child process.
    """

    changed = Signal()
    message_received = Signal(object)

    def __init__(self, viewer: Any) -> None:
        self._viewer = weakref.ref(viewer)
        self.state: State = "idle"
        self.job: RetrainRequest | None = None
        self.space: Workspace | None = None
        self.comparison: ModelComparison | None = None
        self.stage: StageBegun | None = None
        self.status = ""
        self.former: Path | None = None
        self._tasks = TaskRunner()
        self._process: QProcess | None = None
        self._ended: Ended | None = None
        self._pending, self._errors = b"", b""
        self._lock: QLockFile | None = None
        self._restore()

    @property
    def busy(self) -> bool:
        """Whether the child process is running."""
        return self.state in ("running", "cancelling")

    def start(self, job: RetrainRequest, cohort: Cohort | Manifest) -> None:
        """Start a job in a child process.

        If it cannot start, a ChrepError is raised and nothing changes.
        """
        if self.state not in ("idle", "interrupted"):
            raise SettingsError("a retraining is under way", remedy="Wait for it, or cancel it.")
        former, space = self.space, Workspace.beside(job.out)
        space.begin(job, cohort)
        if former is not None:
            self._remove(former)
        self._launch(space, job)

    def resume(self) -> None:
        """Resume the interrupted job."""
        if self.state == "interrupted" and self.space is not None and self.job is not None:
            self._launch(self.space, self.job)

    def cancel(self) -> None:
        """Cancel the job at the next batch or epoch, and delete its files."""
        if self.state == "running":
            self._send("cancel")
            self._set_state("cancelling", "Cancelling…")

    def stop_early(self) -> None:
        """Stop training the current network and continue the job with its best weights."""
        self._send("enough")

    def interrupt(self) -> None:
        """End the child process now; the job can be resumed later."""
        process = self._process
        if process is None:
            return
        process.closeWriteChannel()
        if not process.waitForFinished(_GRACE_MS):
            process.kill()
            process.waitForFinished(_GRACE_MS)

    def use(self) -> None:
        """Save the new model and use it; the former one stays on disk."""
        if self.job is not None:
            self._move_result(self.job.out, self._load_result)

    def save_as(self, place: Path) -> None:
        """Save the new model in another place, and keep using the current one."""
        self._move_result(
            place, lambda path: self._set_state("idle", f"Saved as {path}. The model in use is as before.")
        )

    def discard(self) -> None:
        """Delete the new model that awaits a decision, or the files of an interrupted job."""
        if self.state in ("outcome", "interrupted"):
            self._delete_workspace()
            self._set_state("idle", "Discarded; everything is as it was.")

    def undo(self) -> None:
        """Return to the model that was in use before the last retraining."""
        viewer = self._viewer()
        if self.former is not None and viewer is not None:
            kept_for(viewer, PredictionEngine).load_bundle(self.former)
            self.former = None
            self._set_state(self.state, "Back to the former model; the new one stays on disk.")

    def _launch(self, space: Workspace, job: RetrainRequest) -> None:
        """Lock the workspace, and start the child process for its job."""
        lock = QLockFile(str(space.folder / "lock"))
        lock.setStaleLockTime(0)  # stale only if its process has ended, however old it is
        if not lock.tryLock(0):
            raise SettingsError(
                "another window is at work on this retraining", path=space.folder, remedy="Wait for it."
            )
        self._lock, self.space, self.job = lock, space, job
        self._ended, self._pending, self._errors = None, b"", b""
        self.stage, self.comparison = None, None
        remember_retraining_folder(space.folder)
        process = self._process = QProcess()
        process.readyReadStandardOutput.connect(partial(self._on_output, process))
        process.readyReadStandardError.connect(partial(self._on_errors, process))
        process.errorOccurred.connect(partial(self._on_process_error, process))
        process.finished.connect(partial(self._on_finished, process))
        environment = QProcessEnvironment()
        for name, value in child_environment().items():
            environment.insert(name, value)
        process.setProcessEnvironment(environment)
        program, *arguments = python_command("napari_chrep.retrain.process", space.folder)
        process.start(program, arguments)
        self._set_state("running", "Starting…")

    def _send(self, word: str) -> None:
        """Send a word to the child process."""
        if self._process is not None:
            self._process.write(f"{word}\n".encode())

    def _on_output(self, process: QProcess) -> None:
        if process is not self._process:
            return
        *lines, self._pending = (self._pending + process.readAllStandardOutput().data()).split(b"\n")
        for line in lines:
            try:
                self._on_message(read_message(line))
            except ValueError:  # not a message, for instance the output of a library
                self._errors += line + b"\n"

    def _on_errors(self, process: QProcess) -> None:
        self._errors = (self._errors + process.readAllStandardError().data())[-4000:]

    def _on_message(self, message: Message) -> None:
        if isinstance(message, Ended):
            self._ended = message
            return
        if isinstance(message, StageBegun):
            self.stage = message
        if isinstance(message, (StageBegun, StatusLine)) and self.state == "running":
            self.status = _in_words(self.stage, message)
            self.changed.emit()
        self.message_received.emit(message)

    def _on_process_error(self, process: QProcess, error: Any) -> None:
        if process is self._process and error == QProcess.ProcessError.FailedToStart:
            self._errors = f"the process could not be started: {process.errorString()}".encode()
            self._on_finished(process)

    def _on_finished(self, process: QProcess, *_: Any) -> None:
        if process is not self._process:
            return
        self._on_output(process)
        self._process = None
        if self._lock is not None:
            self._lock.unlock()
        ended = self._ended or Ended(how="interrupted", why=_last_line(self._errors))
        if ended.how == "done":
            self._show_outcome()
        elif ended.how == "cancelled" or self.state == "cancelling":
            self._delete_workspace()
            self._set_state("idle", "Cancelled; everything is as it was.")
        else:
            self._on_failure(ended)

    def _on_failure(self, ended: Ended) -> None:
        """Show why the job ended early, and keep its files if it can be resumed."""
        why = ended.why if ended.how == "failed" else f"The retraining was interrupted. {ended.why}".strip()
        if ended.how == "failed":
            show_error(why)
        if self.space is not None and self.space.has_progress:
            self._set_state("interrupted", f"{why} What was done so far is kept: Resume goes on with it.")
        else:
            self._delete_workspace()
            self._set_state("idle", f"{why} Everything is as it was.")

    def _show_outcome(self) -> None:
        """Load the comparison of a finished job, and wait for a decision."""
        assert self.space is not None  # noqa: S101  (set when the job started)
        try:
            self.comparison = self.space.read_comparison()
        except ChrepError as error:
            self._on_failure(Ended(how="failed", why=str(error)))
            return
        self._set_state("outcome", "Done. The model in use is as before until you say otherwise.")

    def _move_result(self, place: Path, then: Callable[[Path], None]) -> None:
        """Move the new model to its final path in the background, then call `then` with the path."""
        if self.state != "outcome" or self.space is None or self.job is None:
            return
        new, space = self.space.result(self.job), self.space
        self._tasks.run(
            lambda _task: _move(new, place, space),
            on_result=partial(self._on_moved, then),
            on_error=self._on_unmoved,
        )
        self._set_state("moving", "Putting the model in its place…")

    def _on_moved(self, then: Callable[[Path], None], place: Path) -> None:
        self._reset_job()
        then(place)

    def _on_unmoved(self, error: Exception) -> None:
        show(error)
        self._set_state("outcome", in_words(error))

    def _load_result(self, place: Path) -> None:
        """Load the new model as the model in use."""
        viewer = self._viewer()
        if viewer is None:
            return
        former = kept_for(viewer, Session).bundle
        self.former = None if former is None else Path(former.path)
        kept_for(viewer, PredictionEngine).load_bundle(place)
        self._set_state("idle", f"The new model is in use: {place}. The former one stays on disk.")

    def _delete_workspace(self) -> None:
        """Delete the job's folder, and set the state back to that without a job."""
        space = self.space
        self._reset_job()
        if space is not None:
            self._remove(space)

    def _remove(self, space: Workspace) -> None:
        """Delete a workspace folder, in the background."""
        self._tasks.run(lambda _task: shutil.rmtree(space.folder, ignore_errors=True), beside=True)

    def _reset_job(self) -> None:
        """Set the state back to that without a job; the job's folder is not touched."""
        self.space = self.job = self.comparison = self.stage = None
        remember_retraining_folder(None)

    def _restore(self) -> None:
        """Restore the job of an earlier window that was interrupted or waits for a decision."""
        folder = retraining_folder()
        space = None if folder is None else Workspace(folder)
        if space is None or not space.job_file.is_file():
            return
        lock = QLockFile(str(space.folder / "lock"))
        lock.setStaleLockTime(0)
        if not lock.tryLock(0):
            return
        lock.unlock()
        try:
            self.job, self.space = space.read_job(), space
        except ChrepError:
            return
        if space.is_finished:
            self._show_outcome()
        else:
            self._set_state(
                "interrupted", f"A retraining was interrupted ({self.job.out.name}): Resume goes on."
            )

    def _set_state(self, state: State, status: str) -> None:
        self.state, self.status = state, status
        self.changed.emit()


def _move(new: Path, place: Path, space: Workspace) -> Path:
    """Move a bundle out of its workspace, and delete the workspace; BundleError if that fails."""
    if place.exists():
        raise BundleError("there is something at this place", path=place, remedy="Choose another name.")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(new, place)
    except OSError as error:
        what = f"the model cannot be put there ({error.strerror or error})"
        raise BundleError(what, path=place, remedy="Choose another place.") from error
    shutil.rmtree(space.folder, ignore_errors=True)
    return place


def _in_words(stage: StageBegun | None, message: Message) -> str:
    """Return the status text for a message of the child process."""
    if stage is None:
        return message.text if isinstance(message, StatusLine) else ""
    model = "The new model" if stage.number == stage.of else f"For the comparison, {stage.what}"
    text = f"{model} ({stage.number} of {stage.of})"
    return f"{text}: {message.text}" if isinstance(message, StatusLine) else f"{text}…"


def _last_line(errors: bytes) -> str:
    """Return the last line of an error output that is not blank."""
    lines = [line for line in errors.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""
