"""Which tiles are predicted next: those in view, coarse to fine, from the centre outwards.

The window says where it looks, and a worker pulls batches. What has left the view is dropped, what is still
in it stays, and nothing is handed out twice; so a run goes on while the view moves. The grid of tiles hangs
on the slide and not on the view: whatever was predicted for a former view is right for this one.

No Qt, no napari, no torch; the clock is given.
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

#: How long the view must stand still before it counts, in seconds.
REST_S = 0.25

#: Every so many rows and columns of the grid, pass by pass; each pass holds the tiles of those before it.
STRIDES = (4, 2, 1)

#: A coarse pass has at least so many tiles: fewer draw no map, and so few in view are soon predicted anyway.
LEAST = 64


@dataclass(frozen=True)
class View:
    """What somebody looks at.

    Attributes
    ----------
    rect : Rect or None
        In level-0 pixels; None beside the slide.
    generation : int
        How many views there were before.
    since : float
        When it came, by the schedule's clock, in seconds.
    """

    rect: Rect | None
    generation: int
    since: float


@dataclass(frozen=True)
class Pass:
    """What is predicted before the next, finer pass.

    Attributes
    ----------
    view : View
        The view that it is for.
    stride : int
        Of the tiles on the grid, of `STRIDES`.
    waiting : ndarray
        (n,) int64 flat indices of all tiles that wait, in order: those of this pass, then of finer ones.
    """

    view: View
    stride: int
    waiting: Indices


class Schedule:
    """The tiles of one prepared slide that a worker should predict, in the order in which they are wanted.

    One thread looks, others pull. `look` never waits for them: a worker of low priority may keep the
    lock for long, and would hold the window up.

    Parameters
    ----------
    grid : TileGrid
        Where the tiles lie.
    tiles : ndarray
        (n,) int64 flat indices of the tiles that may be predicted, such as the tissue.
    clock : callable
        Seconds that never go back.

    Attributes
    ----------
    total : int
        Tiles handed out since `begin`, and those that wait.
    beyond : int
        Tiles in view that are left out because they are more than the budget.
    in_view : int
        Tiles in view, predicted or not.
    """

    def __init__(
        self, grid: TileGrid, tiles: Indices, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.grid = grid
        self.total = self.beyond = self.in_view = 0
        self._tiles, self._clock = tiles, clock
        self._lock = threading.Lock()
        self._budget: int | None = None
        self._taken = np.zeros(grid.size, bool)  # predicted, or handed out
        self._under_way = np.empty(0, np.int64)  # handed out and not done
        self._handed_out = 0
        self._passes: list[tuple[int, Indices]] = []  # (stride, tiles that wait)
        self._view = self._planned = self._dropped_for = View(None, 0, -math.inf)

    @property
    def has_moved(self) -> bool:
        """Whether the tiles that wait were chosen for a former view."""
        return self._view.generation != self._planned.generation

    def look(self, rect: Rect | None) -> None:
        """Take note of what is in view; it counts once it has stood still for `REST_S`, the first at once.

        Parameters
        ----------
        rect : Rect or None
            In level-0 pixels; None beside the slide.
        """
        view = self._view
        if view.generation == 0 or rect != view.rect:
            since = self._clock() if view.generation else -math.inf
            self._view = View(rect, view.generation + 1, since)

    def rests_in(self) -> float:
        """Return the seconds until the view counts; 0 where it does."""
        return max(0.0, self._view.since + REST_S - self._clock())

    def begin(self, known: Indices, budget: int | None) -> None:
        """Begin a run for what is in view; what a former one was handed and did not finish waits again.

        Parameters
        ----------
        known : ndarray
            (m,) int64 flat indices of the tiles that are predicted.
        budget : int or None
            No more tiles than this are handed out for one view; None for no limit.
        """
        with self._lock:
            self._taken[:] = False
            self._taken[known] = True
            self._budget, self._handed_out, self._under_way = budget, 0, np.empty(0, np.int64)
            self._plan(self._view)

    def next_pass(self) -> Pass | None:
        """Return what is to be done now; None where nothing waits.

        A view that has come to rest since the last call gets a plan of its own here.
        """
        with self._lock:
            if self._is_outdated():
                self._plan(self._view)
            self._drop()
            if not self._passes:
                return None
            waiting = np.concatenate([tiles for _, tiles in self._passes])
            return Pass(self._planned, self._passes[0][0], waiting)

    def refine(self) -> None:
        """Leave the coarse passes out: all tiles wait in one, from the centre outwards."""
        with self._lock:
            self._plan(self._planned, coarse=False)

    def next_batch(self, most: int) -> Indices:
        """Hand out up to so many tiles of one pass, int64 (m,).

        Returns
        -------
        ndarray
            Empty where nothing waits, or the view has come to rest elsewhere; `next_pass` knows which.
        """
        with self._lock:
            if self._is_outdated():
                return np.empty(0, np.int64)
            self._drop()
            if not self._passes:
                return np.empty(0, np.int64)
            (stride, tiles), *finer = self._passes
            batch, self._passes = tiles[:most], [(stride, tiles[most:]), *finer]
            self._taken[batch] = True
            self._under_way = np.concatenate([self._under_way, batch])
            self._handed_out += len(batch)
            self._tidy()
            return batch

    def batches(self, most: int) -> Iterator[Indices]:
        """Hand out batches of the pass that `next_pass` told of, until it ends or another view rests."""
        stride = self._stride
        while self._stride == stride and len(batch := self.next_batch(most)):
            yield batch

    def done(self, tiles: Indices) -> None:
        """Take note that tiles (m,) which were handed out are predicted."""
        with self._lock:
            self._under_way = np.setdiff1d(self._under_way, tiles)

    def is_elsewhere(self) -> bool:
        """Tell whether a view has come to rest in which nothing is that is handed out and not done."""
        return self._is_outdated() and not self._is_seen(self._under_way, self._view.rect).any()

    def give_back(self) -> None:
        """Take back what is handed out and not done: it waits again in any view that holds it."""
        with self._lock:
            self._taken[self._under_way] = False
            self._handed_out -= len(self._under_way)
            self._under_way = np.empty(0, np.int64)
            self._tidy()

    @property
    def _stride(self) -> int:
        passes = self._passes
        return passes[0][0] if passes else 0

    def _is_outdated(self) -> bool:
        return self.has_moved and self.rests_in() == 0.0

    def _plan(self, view: View, coarse: bool = True) -> None:
        """Choose the tiles for a view, and their order."""
        seen = self._tiles[self._is_seen(self._tiles, view.rect)]
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
        self._tidy()
        waiting = sum(len(tiles) for _, tiles in self._passes)
        self.in_view, self.beyond = len(seen), len(wanted) - waiting

    def _drop(self) -> None:
        """Forget what has left the view, at rest or not."""
        view = self._view
        if view is not self._dropped_for:
            self._passes = [(s, tiles[self._is_seen(tiles, view.rect)]) for s, tiles in self._passes]
            self._dropped_for = view
            self._tidy()

    def _tidy(self) -> None:
        self._passes = [(stride, tiles) for stride, tiles in self._passes if len(tiles)]
        self.total = self._handed_out + sum(len(tiles) for _, tiles in self._passes)

    def _is_seen(self, tiles: Indices, rect: Rect | None) -> npt.NDArray[np.bool_]:
        if rect is None:
            return np.zeros(len(tiles), bool)
        return self.grid.is_in(rect, tiles)
