"""Find pairs of slide and h5ad, check them and save them as a manifest, in the background."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from chrep_model.cohorts.manifest import write_manifest
from chrep_model.cohorts.pair_check import PairCheck, check_pair
from chrep_model.cohorts.pairing import Pair, Suggestions, suggest_pairs
from napari_chrep.background.runner import Task, TaskRunner, in_words

if TYPE_CHECKING:
    from chrep_model.cohorts.cohort import Cohort

Job = Pair | tuple[Path, ...]


def check_or_find(job: Job) -> Suggestions | PairCheck:
    """Check a pair, or find the pairs among paths."""
    return check_pair(job) if isinstance(job, Pair) else suggest_pairs(job)


class PairChecker:
    """Background worker that finds and checks pairs, one after the other, and saves manifests.

    Attributes
    ----------
    busy : bool
        Whether pairs are being found or checked.
    found : Signal(Suggestions)
        Emitted with the pairs found by `find_pairs`.
    checked : Signal(PairCheck)
        Emitted with the result of checking one pair.
    changed : Signal()
        Emitted when `busy` changes.
    saved : Signal(object)
        Emitted with the path of a saved manifest, or with the ChrepError if it cannot be saved.
    """

    found = Signal(object)
    checked = Signal(object)
    changed = Signal()
    saved = Signal(object)

    def __init__(self) -> None:
        self.busy = False
        self._waiting: deque[Job] = deque()
        self._tasks, self._task, self._saving = TaskRunner(), Task(), TaskRunner()

    def find_pairs(self, paths: Sequence[Path]) -> None:
        """Find the pairs among files and folders, before any waiting checks."""
        self._waiting.appendleft(tuple(paths))
        self._next()

    def check(self, pair: Pair) -> None:
        """Check a pair, after all waiting ones."""
        self._waiting.append(pair)
        self._next()

    def forget(self, pair: Pair) -> None:
        """Remove a pair from the queue."""
        self._waiting = deque(job for job in self._waiting if job != pair)

    def save(self, cohort: Cohort, path: Path) -> None:
        """Save a cohort as a manifest, in the background."""
        self._saving.run(
            lambda _task: write_manifest(cohort.name, cohort.sections, path),
            on_result=lambda _: self.saved.emit(path),
            on_error=self.saved.emit,
            beside=True,
        )

    def stop(self) -> None:
        """Drop all waiting pairs, and the result of the running task."""
        self._waiting.clear()
        self._tasks.drop()

    def _next(self) -> None:
        """Start the next task in the queue, unless one is running."""
        if self._tasks.busy or not self._waiting:
            return
        job = self._waiting.popleft()
        self._task = self._tasks.run(
            lambda _task: check_or_find(job),
            on_result=self._on_result,
            on_error=partial(self._on_error, job),
            on_end=self._on_end,
            title=f"Checking {job.counts.stem}" if isinstance(job, Pair) else "Looking for pairs",
        )
        self._set_busy(True)

    def _on_result(self, result: Suggestions | PairCheck) -> None:
        (self.checked if isinstance(result, PairCheck) else self.found).emit(result)

    def _on_error(self, job: Job, error: Exception) -> None:
        """Report an error also as the result of its pair."""
        if isinstance(job, Pair):
            self.checked.emit(PairCheck.failed(job, in_words(error)))

    def _on_end(self) -> None:
        if self._task.cancelled_by_napari:  # the window is closing
            self._waiting.clear()
        self._next()
        if not self._tasks.busy:
            self._set_busy(False)

    def _set_busy(self, busy: bool) -> None:
        if busy != self.busy:
            self.busy = busy
            self.changed.emit()
