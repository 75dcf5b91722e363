"""Open bundles, prepare slides and predict tiles in the background, one task at a time.

A new request waits until the running task has stopped, which takes one batch at most; of several requests
only the newest is kept. A view that is followed may move during a run: the schedule of its tiles handles
that. Results arrive on the Qt thread one batch at a time; predicted tiles are always kept.

The widgets show the progress. napari's own progress bars are not used: they handle all waiting events while
progress is reported, and their animation draws the window again and again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from napari.utils.notifications import show_error
from psygnal import Signal
from qtpy.QtCore import QTimer

from chrep_model.bundle import Bundle
from chrep_model.errors import ChrepError
from chrep_model.geometry import Rect
from chrep_model.prediction.prediction import Preview
from chrep_model.slides.region import Region
from napari_chrep.background.runner import Task, TaskRunner, in_words
from napari_chrep.background.tasks import (
    LoadedBundle,
    PreparedSlide,
    open_bundle,
    predict_tiles,
    prepare_slide,
)
from napari_chrep.background.tile_schedule import REST_S, TileSchedule
from napari_chrep.state.session import Session
from napari_chrep.state.viewers import kept_for

if TYPE_CHECKING:
    from chrep_model.prediction.parts import PredictionPart
    from chrep_model.prediction.prediction import Prediction
    from chrep_model.prediction.predictor import SlideContext
    from chrep_model.slides.tiles import Indices

State = Literal["idle", "loading", "preparing", "predicting", "cancelling"]


class PredictionEngine:
    """Predictor of one viewer, which works in the background and adds the results to the viewer's session.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer whose session receives bundles, prepared slides and predicted batches.

    Attributes
    ----------
    state : str
        ``idle``, ``loading``, ``preparing``, ``predicting`` or ``cancelling``.
    state_changed : Signal(str)
    progressed : Signal(int, int, float)
        Tiles done, tiles of this run, tiles per second.
    over_budget : Signal(int)
        Number of tiles of a request that exceeds its budget, so that nothing was started; for a view that is
        followed, number of tiles that were left out because of the budget.
    nothing_to_do : Signal(int)
        Number of tissue tiles of a request whose tiles are all predicted already.
    failed : Signal(str)
        Message of the error that stopped the work; napari has shown the same text.
    """

    state_changed = Signal(str)
    progressed = Signal(int, int, float)
    over_budget = Signal(int)
    nothing_to_do = Signal(int)
    failed = Signal(str)

    def __init__(self, viewer: Any) -> None:
        self.session = session = kept_for(viewer, Session)
        self.state: State = "idle"
        self._tasks, self._task = TaskRunner(), Task()
        self._pending: Callable[[], None] | None = None
        self._request: tuple[Rect | Region | None, int | None] = (None, None)
        # The view that is followed, and its budget; None if no view is followed.
        self._view: tuple[Rect | None, int | None] | None = None
        self._followed: TileSchedule | None = None  # of the followed view on the current slide
        self._stored_schedule: TileSchedule | None = None  # of tiles whose embeddings were stored
        self._running: TileSchedule | None = None
        self._rest = QTimer()  # checks the view again when it may be at rest
        self._rest.setSingleShot(True)
        self._rest.timeout.connect(self._on_rest)
        self._prepared_pair: tuple[int, str] | None = None
        self._quiet = False
        self._generation = 0
        self._done = 0
        self._started_at = 0.0
        session.slide_changed.connect(self._on_slide_changed)
        session.prediction_changed.connect(self._on_prediction_changed)

    def load_bundle(self, path: Path) -> None:
        """Open a bundle and make it the current one."""
        self._quiet = False
        self._replace_task(partial(self._start, "loading", open_bundle, path))

    def prepare_slide(self) -> None:
        """Prepare the current slide for the current bundle ahead of time, so that predicting starts at once.

        Done once for each pair, and only while nothing else runs. Errors are only shown when the user
        predicts.
        """
        session = self.session
        if self.state != "idle" or session.bundle is None or session.slide is None or session.context:
            return
        pair = id(session.slide), session.bundle.hash
        if pair != self._prepared_pair:
            self._prepared_pair, self._quiet = pair, True
            self._prepare()

    def predict(self, area: Rect | Region | None, *, budget: int | None = None) -> None:
        """Predict the tissue tiles of the current slide that are not predicted yet.

        Parameters
        ----------
        area : Rect, Region or None
            Part of the slide in level-0 pixels; None for the whole slide.
        budget : int or None
            Largest number of tiles; with more, `over_budget` is emitted instead. None for no limit.
        """
        self._request, self._view = (area, budget), None
        self._request_job(self._predict_now)

    def follow_view(self, view: Rect | None, *, budget: int | None = None) -> None:
        """Predict the tiles in view once the view is at rest; to be called whenever it moves.

        A run for an earlier view continues: it drops tiles that are out of view, and adds new ones.

        Parameters
        ----------
        view : Rect or None
            Visible part of the slide in level-0 pixels; None if there is none.
        budget : int or None
            Largest number of tiles that are predicted for one view; None for no limit.
        """
        self._view = view, budget
        if self._followed is not None:
            self._followed.set_view(view)
            if not self._rest.isActive():
                self._on_rest()
        else:
            self._rest.start(math.ceil(1000 * REST_S))

    @property
    def is_predicting_area(self) -> bool:
        """Whether the tissue or a region is being predicted or waits, which a moved view must not replace."""
        other = self._running not in (None, self._followed, self._stored_schedule)
        running = other and not self._task.cancelled()
        return (running or self._pending == self._predict_now) and not isinstance(self._request[0], Rect)

    @property
    def preparation_progress(self) -> tuple[int, int]:
        """Number of tiles that are done and in total while the slide is prepared; (0, 0) if unknown."""
        return self._task.so_far

    def cancel(self) -> None:
        """Stop within one batch; tiles that are predicted already stay."""
        self._view = self._pending = None
        self._task.cancel()
        if self.state == "loading":
            self._generation += 1  # opening cannot be interrupted, so its result is dropped
        if self._tasks.busy:
            self._set_state("cancelling")

    def drop(self) -> None:
        """Stop within one batch, and ignore the results until then."""
        self._generation += 1
        self.cancel()

    def _request_job(self, job: Callable[[], None]) -> None:
        """Do this job next; the loading of a bundle or preparation of a slide, which it needs, ends first."""
        self._quiet = False
        if self.state in ("loading", "preparing") and not self._task.cancelled():
            self._pending = job
        else:
            self._replace_task(job)

    def _replace_task(self, job: Callable[[], None]) -> None:
        """Stop the running task, and do this job next; of that task only predicted tiles are still used."""
        if self._running is None:
            self._generation += 1
        self._pending = job
        self._task.cancel()
        if not self._tasks.busy:
            self._next()

    def _next(self) -> None:
        job, self._pending = self._pending, None
        if job is not None:
            job()

    def _predict_now(self) -> None:
        ready = self._ready_for(self._predict_now)
        if ready is None:
            return
        (context, prediction), (area, budget) = ready, self._request
        tiles = context.tissue[context.grid.is_in(area, context.tissue)]
        schedule = _scheduled(context, prediction, tiles, area)
        if budget is not None and schedule.total > budget:
            self.over_budget.emit(schedule.total)
        else:
            self._run(schedule)

    def _follow_now(self) -> None:
        ready = self._ready_for(self._follow_now)
        if ready is None or self._view is None:
            return
        (context, prediction), (view, budget) = ready, self._view
        if self._followed is None:
            self._followed = TileSchedule(context.grid, context.tissue)
        self._followed.set_view(view)
        self._followed.start_run(prediction.indices, budget)
        self._run(self._followed)

    def _predict_stored(self, known: Indices) -> None:
        """Predict tiles whose embeddings are stored, which is fast; done only if there is no request."""
        context, prediction = self.session.context, self.session.prediction
        if context is not None and prediction is not None:
            self._stored_schedule = _scheduled(context, prediction, known)
            self._run(self._stored_schedule)

    def _ready_for(self, job: Callable[[], None]) -> tuple[SlideContext, Prediction] | None:
        """Return the prepared slide and its prediction, or None after starting to prepare it for the job."""
        session = self.session
        if session.bundle is None or session.slide is None:
            return None
        if session.context is None or session.predictor is None or session.prediction is None:
            self._prepare()
            self._pending = job  # once this worker has finished
            return None
        return session.context, session.prediction

    def _run(self, schedule: TileSchedule) -> None:
        if not schedule.total:
            self.nothing_to_do.emit(schedule.in_view)
            return
        self._running = schedule
        self._done, self._started_at = 0, time.perf_counter()
        self._start("predicting", predict_tiles, self.session.predictor, self.session.context, schedule)
        self.progressed.emit(0, schedule.total, 0.0)

    def _on_rest(self) -> None:
        """Start a run for the followed view, unless it still moves or the current run handles it."""
        if self._view is None:
            return
        if self._followed is not None:
            left = self._followed.seconds_to_rest()
            if left:
                self._rest.start(math.ceil(1000 * left))
                return
            if self._running is self._followed and not self._task.cancelled():
                return
        self._request_job(self._follow_now)

    def _prepare(self) -> None:
        session = self.session
        self._start(
            "preparing", prepare_slide, session.bundle, session.predictor, session.slide, session.context
        )

    def _start(self, state: State, work: Callable[..., Iterator[Any]], *args: Any) -> None:
        self._task = self._tasks.run(
            partial(work, *args),
            on_result=partial(self._on_result, self._generation),
            on_error=partial(self._on_error, self._generation),
            on_end=self._on_end,
        )
        self._set_state(state)

    def _on_result(self, generation: int, result: Any) -> None:
        if generation != self._generation:
            return
        if isinstance(result, Bundle):
            self.session.set_bundle(result)
        elif isinstance(result, LoadedBundle):
            self.session.set_predictor(result.bundle, result.predictor)
        elif isinstance(result, PreparedSlide):
            self.session.set_slide_context(result.predictor, result.context)
            if len(result.known) and self._pending is None:
                self._pending = partial(self._predict_stored, result.known)
        elif isinstance(result, Preview):
            if not self._task.cancelled():
                self.session.set_preview(result)
        else:
            self._on_part(result)

    def _on_part(self, part: PredictionPart) -> None:
        self.session.add_part(part)
        self._done += len(part.indices)
        self._emit_progress()

    def _emit_progress(self) -> None:
        if self._running is not None:
            rate = self._done / max(time.perf_counter() - self._started_at, 1e-6)
            self.progressed.emit(self._done, self._running.total, rate)

    def _on_error(self, generation: int, error: Exception) -> None:
        if isinstance(error, ChrepError):
            overtaken = self._pending is not None and self._task.cancelled()
            unasked = self._quiet and self.state == "preparing"
            if generation != self._generation or overtaken or unasked:
                return
            show_error(str(error))
        self._pending = None
        self._task.cancel()  # ends this run, and no other follows
        self.failed.emit(in_words(error))

    def _on_end(self) -> None:
        if self.state in ("predicting", "cancelling"):
            self.session.end_run()
        if self._task.cancelled_by_napari:
            self._pending = None
        if self._followed is not None and self._running is self._followed and not self._task.cancelled():
            self._on_followed(self._followed)
        self._running = None
        self._next()
        if not self._tasks.busy:
            self._set_state("idle")

    def _on_followed(self, schedule: TileSchedule) -> None:
        """Check again if the view moved at the end of the run; report tiles left out by the budget."""
        if schedule.has_moved:
            self._rest.start(math.ceil(1000 * schedule.seconds_to_rest()))
            return
        self._emit_progress()  # the total no longer contains dropped tiles
        if schedule.left_out:
            self.over_budget.emit(schedule.left_out)

    def _on_slide_changed(self) -> None:
        """Stop work on the former slide; the opening of a bundle continues, because it serves any slide."""
        self._view = None
        if self.state == "loading":
            if self._pending in (self._predict_now, self._follow_now):
                self._pending = None
        else:
            self.drop()

    def _on_prediction_changed(self) -> None:
        self._followed = None

    def _set_state(self, state: State) -> None:
        if state != self.state:
            self.state = state
            self.state_changed.emit(state)


def _scheduled(
    context: SlideContext, prediction: Prediction, tiles: Indices, area: Rect | Region | None = None
) -> TileSchedule:
    """Return a schedule of the tiles that are not predicted yet, from the centre of the area outwards."""
    rows, cols = context.slide.shape
    schedule = TileSchedule(context.grid, tiles)
    schedule.set_view(area.bounds if isinstance(area, Region) else area or Rect(0.0, 0.0, cols, rows))
    schedule.start_run(prediction.indices, None)
    return schedule
