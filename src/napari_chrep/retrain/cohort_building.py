"""Pairs of slide and h5ad looked for, checked and written down, in workers: the viewer goes on meanwhile."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.qt.threading import create_worker
from psygnal import Signal

from chrep_model.cohorts.manifest import write_manifest
from chrep_model.cohorts.pair_check import PairCheck, check_pair
from chrep_model.cohorts.pairing import Pair, Suggestions, suggest_pairs
from chrep_model.errors import ChrepError

if TYPE_CHECKING:
    from chrep_model.cohorts.cohort import Cohort

Job = Pair | tuple[Path, ...]


def looking(job: Job) -> Iterator[Suggestions | PairCheck]:
    """Check a pair, or look for pairs among paths; yields what came of it."""
    yield check_pair(job) if isinstance(job, Pair) else suggest_pairs(job)


def saving(cohort: Cohort, path: Path) -> Iterator[Path | ChrepError]:
    """Write a manifest; yields its path, or why it was not written."""
    try:
        write_manifest(cohort.name, cohort.sections, path)
        yield path
    except ChrepError as error:
        yield error


class PairChecker:
    """Looks for pairs and checks them, one after the other.

    Attributes
    ----------
    busy : bool
        Whether something is being looked at.
    found : Signal(Suggestions)
        What the paths of one `look` hold.
    checked : Signal(PairCheck)
        One pair.
    changed : Signal()
        It began, or has nothing more to do.
    saved : Signal(object)
        The path of a manifest that is there now, or the ChrepError that says why not.
    """

    found = Signal(object)
    checked = Signal(object)
    changed = Signal()
    saved = Signal(object)

    def __init__(self) -> None:
        self.busy = False
        self._waiting: deque[Job] = deque()
        self._worker: Any = None
        self._stopped = False

    def look(self, paths: Sequence[Path]) -> None:
        """Look for pairs among files and folders; ahead of checks that wait."""
        self._waiting.appendleft(tuple(paths))
        self._next()

    def check(self, pair: Pair) -> None:
        """Check a pair, after those that wait."""
        self._waiting.append(pair)
        self._next()

    def forget(self, pair: Pair) -> None:
        """Do not check a pair that still waits."""
        self._waiting = deque(job for job in self._waiting if job != pair)

    def save(self, cohort: Cohort, path: Path) -> None:
        """Write a manifest."""
        worker = create_worker(saving, cohort, path, _start_thread=False)
        worker.yielded.connect(self.saved.emit)
        worker.start()

    def stop(self) -> None:
        """Drop what waits, and what comes of the work under way; final."""
        self._stopped = True
        self._waiting.clear()
        if self._worker is not None:
            self._worker.quit()

    def _next(self) -> None:
        if self._worker is not None or self._stopped or not self._waiting:
            return
        job = self._waiting.popleft()
        what = f"Checking {job.counts.stem}" if isinstance(job, Pair) else "Looking for pairs"
        self._worker = worker = create_worker(looking, job, _progress={"desc": what}, _start_thread=False)
        worker.yielded.connect(self._on_yielded)
        worker.errored.connect(partial(self._on_errored, job))
        worker.finished.connect(self._on_finished)
        self._set_busy(True)
        worker.start()

    def _on_yielded(self, result: Suggestions | PairCheck) -> None:
        if self._stopped:
            return
        if isinstance(result, PairCheck):
            self.checked.emit(result)
        else:
            self.found.emit(result)

    def _on_errored(self, job: Job, error: Exception) -> None:
        """Say an error that is a fault of ours beside its pair too; napari shows it with its traceback."""
        if isinstance(job, Pair) and not self._stopped:
            self.checked.emit(PairCheck.failed(job, f"{type(error).__name__}: {error}"))

    def _on_finished(self) -> None:
        stopped_by_napari = self._worker is not None and self._worker.abort_requested
        self._worker = None
        if stopped_by_napari:  # the window is closing
            self._waiting.clear()
        self._next()
        if self._worker is None and not self._stopped:
            self._set_busy(False)

    def _set_busy(self, busy: bool) -> None:
        if busy != self.busy:
            self.busy = busy
            self.changed.emit()
