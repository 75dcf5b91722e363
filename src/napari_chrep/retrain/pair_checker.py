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
    """Check a pair, or look for pairs among paths."""
    return check_pair(job) if isinstance(job, Pair) else suggest_pairs(job)


class PairChecker:
    """Looks for pairs and checks them, one after the other.

    Attributes
    ----------
    busy : bool
        Whether something is being looked at.
    found : Signal(Suggestions)
        The pairs among the paths of one `find_pairs`.
    checked : Signal(PairCheck)
        The result of one pair.
    changed : Signal()
        `busy` changed.
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
        self._tasks, self._task, self._saving = TaskRunner(), Task(), TaskRunner()

    def find_pairs(self, paths: Sequence[Path]) -> None:
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
        self._saving.run(
            lambda _task: write_manifest(cohort.name, cohort.sections, path),
            on_result=lambda _: self.saved.emit(path),
            on_error=self.saved.emit,
            beside=True,
        )

    def stop(self) -> None:
        """Drop the waiting pairs, and the result of the running task."""
        self._waiting.clear()
        self._tasks.drop()

    def _next(self) -> None:
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
        """Say an error beside its pair too."""
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
