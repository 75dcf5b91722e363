"""Order in which tiles are predicted: those in view, coarse to fine, from the centre outwards.

The window sets the view, and a task takes batches of tiles. Tiles that have left the view are dropped, tiles
still in view stay, and none is handed out twice; so a run continues while the view moves. The grid of tiles
belongs to the slide and not to the view: tiles predicted for an earlier view are valid for this one.

This module uses neither Qt nor napari nor torch; tests set its clock.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from chrep_model.geometry import Rect
from chrep_model.slides.tiles import Indices, TileGrid

#: Seconds without movement after which the view is at rest, and its tiles are chosen.
REST_S = 0.25

#: Distance in rows and columns of the tiles of each pass; each pass contains the tiles of those before it.
STRIDES = (4, 2, 1)

#: Least number of tiles of a coarse pass: fewer would show no map, and all tiles in view are predicted soon.
LEAST = 64


@dataclass(frozen=True)
class View:
    """Visible part of the slide at one time.

    Attributes
    ----------
    rect : Rect or None
        Rectangle in level-0 pixels; None if no part of the slide is visible.
    generation : int
        Number of views before this one.
    since : float
        Time at which the view was set, by the schedule's clock, in seconds.
    """

    rect: Rect | None
    generation: int
    since: float


@dataclass(frozen=True)
class Pass:
    """Tiles on a coarse grid, predicted before those of the next, finer pass.

    Attributes
    ----------
    view : View
        The view for which the tiles were chosen.
    stride : int
        Distance of the tiles in rows and columns, one of `STRIDES`.
    waiting : ndarray
        (n,) int64 flat indices of all waiting tiles in order: those of this pass, then of finer ones.
    """

    view: View
    stride: int
    waiting: Indices


class TileSchedule:
    """Queue of the tiles of one slide that are to be predicted.

    One thread sets the view, others take tiles. `set_view` does not use the lock: a thread of low priority
    may hold it for long, and the window would freeze.

    Parameters
    ----------
    grid : TileGrid
        Positions of the tiles.
    tiles : ndarray
        (n,) int64 flat indices of the tiles that may be predicted, such as the tissue.
    clock : callable
        Function that returns the time in seconds, such as `time.monotonic`.

    Attributes
    ----------
    total : int
        Number of tiles handed out since `start_run`, and waiting.
    left_out : int
        Number of tiles in view that are left out because of the budget.
    in_view : int
        Number of tiles in view, predicted or not.
    """

    def __init__(
        self, grid: TileGrid, tiles: Indices, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.grid = grid
        self.total = self.left_out = self.in_view = 0
        self._tiles, self._clock = tiles, clock
        self._lock = threading.Lock()
        self._budget: int | None = None
        self._taken = np.zeros(grid.size, bool)  # whether predicted or handed out
        self._under_way = np.empty(0, np.int64)  # handed out and not predicted yet
        self._handed_out = 0
        self._passes: list[tuple[int, Indices]] = []  # (stride, waiting tiles)
        self._view = self._planned = self._dropped_for = View(None, 0, -math.inf)

    @property
    def has_moved(self) -> bool:
        """Whether the waiting tiles were chosen for a former view."""
        return self._view.generation != self._planned.generation

    def set_view(self, rect: Rect | None) -> None:
        """Set the visible part of the slide; used once it has not moved for `REST_S`, the first one at once.

        Parameters
        ----------
        rect : Rect or None
            Rectangle in level-0 pixels; None if no part of the slide is visible.
        """
        view = self._view
        if view.generation == 0 or rect != view.rect:
            since = self._clock() if view.generation else -math.inf
            self._view = View(rect, view.generation + 1, since)

    def seconds_to_rest(self) -> float:
        """Return the seconds until the view is at rest; 0 if it is."""
        return max(0.0, self._view.since + REST_S - self._clock())

    def start_run(self, known: Indices, budget: int | None) -> None:
        """Start a run for the tiles in view, including unfinished ones of an earlier run.

        Parameters
        ----------
        known : ndarray
            (m,) int64 flat indices of the tiles that are predicted already.
        budget : int or None
            Largest number of tiles handed out for one view; None for no limit.
        """
        with self._lock:
            self._taken[:] = False
            self._taken[known] = True
            self._budget, self._handed_out, self._under_way = budget, 0, np.empty(0, np.int64)
            self._plan(self._view)

    def next_pass(self) -> Pass | None:
        """Return the current pass; None if no tile waits.

        If another view has come to rest since the last call, its tiles are chosen here.
        """
        with self._lock:
            if self._is_outdated():
                self._plan(self._view)
            self._drop_unseen()
            if not self._passes:
                return None
            waiting = np.concatenate([tiles for _, tiles in self._passes])
            return Pass(self._planned, self._passes[0][0], waiting)

    def skip_coarse_passes(self) -> None:
        """Replace the coarse passes by one pass of all tiles, from the centre outwards."""
        with self._lock:
            self._plan(self._planned, coarse=False)

    def next_batch(self, most: int) -> Indices:
        """Return the next tiles of the current pass, at most `most`, int64 (m,).

        Returns
        -------
        ndarray
            Empty if no tile waits, or another view is at rest, which `next_pass` will choose tiles for.
        """
        with self._lock:
            if self._is_outdated():
                return np.empty(0, np.int64)
            self._drop_unseen()
            if not self._passes:
                return np.empty(0, np.int64)
            (stride, tiles), *finer = self._passes
            batch, self._passes = tiles[:most], [(stride, tiles[most:]), *finer]
            self._taken[batch] = True
            self._under_way = np.concatenate([self._under_way, batch])
            self._handed_out += len(batch)
            self._remove_empty_passes()
            return batch

    def batches(self, most: int) -> Iterator[Indices]:
        """Yield batches of the pass that `next_pass` returned, until it ends or another view is at rest."""
        stride = self._stride
        while self._stride == stride and len(batch := self.next_batch(most)):
            yield batch

    def mark_done(self, tiles: Indices) -> None:
        """Record that tiles (m,) that were handed out are predicted."""
        with self._lock:
            self._under_way = np.setdiff1d(self._under_way, tiles)

    def is_view_elsewhere(self) -> bool:
        """Return whether another view is at rest that contains no tile handed out and not predicted yet."""
        return self._is_outdated() and not self._is_in_view(self._under_way, self._view.rect).any()

    def requeue_unfinished(self) -> None:
        """Take back the tiles handed out and not predicted, to be handed out again when they are in view."""
        with self._lock:
            self._taken[self._under_way] = False
            self._handed_out -= len(self._under_way)
            self._under_way = np.empty(0, np.int64)
            self._remove_empty_passes()

    @property
    def _stride(self) -> int:
        passes = self._passes
        return passes[0][0] if passes else 0

    def _is_outdated(self) -> bool:
        return self.has_moved and self.seconds_to_rest() == 0.0

    def _plan(self, view: View, coarse: bool = True) -> None:
        """Choose the tiles for a view, and their order."""
        seen = self._tiles[self._is_in_view(self._tiles, view.rect)]
        wanted = left = seen[~self._taken[seen]]
        centre = view.rect.centre if view.rect is not None else (0.0, 0.0)
        most, self._passes = len(wanted) if self._budget is None else self._budget, []
        for stride in STRIDES:
            if stride == 1 or (coarse and len(wanted) >= LEAST * stride**2):
                row, col = np.divmod(left, max(self.grid.shape[1], 1))
                here = (row % stride == 0) & (col % stride == 0)
                tiles = self.grid.order_from(centre, left[here])[:most]
                self._passes.append((stride, tiles))
                left, most = left[~here], most - len(tiles)
        self._planned = self._dropped_for = view
        self._remove_empty_passes()
        waiting = sum(len(tiles) for _, tiles in self._passes)
        self.in_view, self.left_out = len(seen), len(wanted) - waiting

    def _drop_unseen(self) -> None:
        """Remove waiting tiles that are out of view, whether the view is at rest or not."""
        view = self._view
        if view is not self._dropped_for:
            self._passes = [(s, tiles[self._is_in_view(tiles, view.rect)]) for s, tiles in self._passes]
            self._dropped_for = view
            self._remove_empty_passes()

    def _remove_empty_passes(self) -> None:
        self._passes = [(stride, tiles) for stride, tiles in self._passes if len(tiles)]
        self.total = self._handed_out + sum(len(tiles) for _, tiles in self._passes)

    def _is_in_view(self, tiles: Indices, rect: Rect | None) -> npt.NDArray[np.bool_]:
        if rect is None:
            return np.zeros(len(tiles), bool)
        return self.grid.is_in(rect, tiles)
