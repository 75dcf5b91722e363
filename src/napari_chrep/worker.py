"""Everything slow: opening a bundle, preparing a slide, predicting tiles; each in a generator worker.

One worker at a time. What is asked for meanwhile waits until that one has stopped, which takes a batch at
most; of several requests only the newest is kept. Results come to the Qt thread one batch at a time, and
those of a request that a newer one has overtaken are dropped.

The widgets say how far the work is. napari's own progress bars are not used: they handle all waiting events
in the middle of whatever reports progress, and turn a wheel that has the window drawn again and again.

torch is imported in the worker threads only: opening a widget stays instant.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from napari.qt.threading import create_worker
from napari.utils.notifications import show_error
from psygnal import Signal

from chrep_model.bundle import Bundle, load_bundle
from chrep_model.errors import Cancelled, ChrepError
from chrep_model.geometry import Rect
from chrep_model.inference.prediction import Preview
from napari_chrep.preferences import preferences
from napari_chrep.session import PerViewer, Session, sessions

if TYPE_CHECKING:
    from chrep_model.inference.prediction import PredictionPart
    from chrep_model.inference.predictor import Predictor, SlideContext
    from chrep_model.slides.region import Region
    from chrep_model.slides.slide import Slide

State = Literal["idle", "loading", "preparing", "predicting", "cancelling"]


@dataclass(frozen=True)
class Loaded:
    """A bundle whose networks are loaded."""

    bundle: Bundle
    predictor: Predictor


@dataclass(frozen=True)
class Prepared:
    """A slide made ready for a bundle."""

    predictor: Predictor
    context: SlideContext


@dataclass(frozen=True)
class Failed:
    """An error that the user should read as it stands."""

    error: ChrepError


class Stop:
    """Asks a worker to stop, which looks here between batches; and holds how far its preparations are.

    napari stops a worker itself (``worker.quit()``) when the window closes or from its task list; that counts
    too.

    Attributes
    ----------
    so_far : (int, int)
        Done and total of what `predictor.prepare` counts; (0, 0) before it counts. Written by the worker and
        read on the Qt thread: a generator that waits for one call has no other way to tell.
    """

    def __init__(self) -> None:
        self._asked = threading.Event()
        self.worker: Any = None
        self.so_far = (0, 0)

    def request(self) -> None:
        """Ask for a stop."""
        self._asked.set()

    def requested(self) -> bool:
        """Tell whether a stop was asked for."""
        return self._asked.is_set() or (self.worker is not None and self.worker.abort_requested)

    def report(self, done: int, total: int, _what: str = "") -> None:
        """Take note of progress; the callback of `predictor.prepare`."""
        self.so_far = (done, total)


def loading(path: Path, stop: Stop) -> Iterator[Bundle | Loaded | Failed]:
    """Open a bundle; yields it, and again once its networks are loaded, or the reason why not.

    The second step is ahead of its time: it imports torch while the user still looks for a slide.
    """
    try:
        bundle = load_bundle(path)
        _ = bundle.trust, bundle.panel.names  # made here: the widgets ask for them on the Qt thread
        yield bundle
        if not stop.requested():
            yield Loaded(bundle, _predictor(bundle))
    except ChrepError as error:
        yield Failed(error)


def preparing(
    bundle: Bundle, predictor: Predictor | None, slide: Slide, context: SlideContext | None, stop: Stop
) -> Iterator[Prepared | Failed]:
    """Load the bundle's networks and prepare the slide for them, whichever is not there yet."""
    try:
        _step_back()
        predictor = predictor or _predictor(bundle)
        if context is None and not stop.requested():
            context = predictor.prepare(slide, progress=stop.report, cancelled=stop.requested)
    except Cancelled:
        return
    except ChrepError as error:
        yield Failed(error)
        return
    if context is not None:
        yield Prepared(predictor, context)


def predicting(
    predictor: Predictor, context: SlideContext, indices: npt.NDArray[np.int64], stop: Stop
) -> Iterator[Preview | PredictionPart | Failed]:
    """Predict tiles: a rough map first, where it is worth its while, then once per batch."""
    try:
        _step_back()
        if len(indices) > predictor.batch_size:
            preview = predictor.preview(context, indices, cancelled=stop.requested)
            if preview is not None:
                yield preview
        yield from predictor.stream(context, indices, cancelled=stop.requested)
    except Cancelled:
        return
    except ChrepError as error:
        yield Failed(error)


def _predictor(bundle: Bundle) -> Predictor:
    from chrep_model.cache import trim_cache
    from chrep_model.inference.predictor import Predictor

    wanted = preferences()
    trim_cache(wanted.cache, wanted.cache_bytes)
    return Predictor(bundle, device=wanted.device, batch_size=wanted.batch_size, cache_dir=wanted.cache)


def _step_back() -> None:
    """Leave the window a core, and let it go first: a worker that takes all there is makes panning stutter.

    On Linux threads have scheduling policies of their own, and those that a thread starts inherit its. To one
    that only fills idle time (SCHED_IDLE) a core counts as free, so that whatever draws a frame gets it at
    once; the lowest of priorities does not have that effect. Elsewhere the thread stays as it is.
    """
    import torch

    torch.set_num_threads(max(1, (os.cpu_count() or 2) - 1))
    if sys.platform == "linux":
        os.sched_setscheduler(threading.get_native_id(), os.SCHED_IDLE, os.sched_param(0))


class Engine:
    """Runs workers for one session and hands their results to it, on the Qt thread.

    Parameters
    ----------
    session : Session
        Gets bundles, prepared slides and predicted batches.

    Attributes
    ----------
    state : str
        ``idle``, ``loading``, ``preparing``, ``predicting`` or ``cancelling``.
    state_changed : Signal(str)
    progressed : Signal(int, int, float)
        Tiles done, tiles of this run, tiles per second.
    refused : Signal(int)
        A request holds this many tiles, more than its budget; nothing was started.
    nothing_to_do : Signal(int)
        A request holds no tile that is not predicted yet; its number of tissue tiles.
    failed : Signal(str)
        Why the work stopped; napari has shown the same text.
    """

    state_changed = Signal(str)
    progressed = Signal(int, int, float)
    refused = Signal(int)
    nothing_to_do = Signal(int)
    failed = Signal(str)

    def __init__(self, session: Session) -> None:
        self.session = session
        self.state: State = "idle"
        self._worker: Any = None
        self._stop = Stop()
        self._pending: Callable[[], None] | None = None
        self._request: tuple[Rect | Region | None, int | None] = (None, None)
        self._readied: tuple[int, str] | None = None
        self._quiet = False
        self._generation = 0
        self._done = self._total = 0
        self._started_at = 0.0
        session.slide_changed.connect(self._on_slide_changed)

    def load(self, path: Path) -> None:
        """Open a bundle and make it the current one."""
        self._quiet = False
        self._overtake(partial(self._start, "loading", loading, path))

    def get_ready(self) -> None:
        """Prepare the current slide for the current bundle before anybody asks.

        Once for each pair, and only while there is nothing else to do; what goes wrong is told to who asks.
        """
        session = self.session
        if self.state != "idle" or session.bundle is None or session.slide is None or session.context:
            return
        pair = id(session.slide), session.bundle.hash
        if pair != self._readied:
            self._readied, self._quiet = pair, True
            self._prepare()

    def predict(self, area: Rect | Region | None, *, budget: int | None = None) -> None:
        """Predict the tissue tiles of the current slide that are not predicted yet.

        Parameters
        ----------
        area : Rect, Region or None
            In level-0 pixels; None for the whole slide.
        budget : int or None
            With more tiles than this, `refused` is emitted instead; None for no limit.
        """
        self._request, self._quiet = (area, budget), False
        # What is loaded or prepared now serves any region: let it go on.
        if self.state in ("loading", "preparing") and not self._stop.requested():
            self._pending = self._predict_now
        else:
            self._overtake(self._predict_now)

    @property
    def prepared_so_far(self) -> tuple[int, int]:
        """Done and total while the slide is prepared; (0, 0) while that is unknown."""
        return self._stop.so_far

    def cancel(self) -> None:
        """Stop within a batch; what is predicted so far stays."""
        self._pending = None
        self._stop.request()
        if self.state == "loading":
            self._generation += 1  # opening cannot be interrupted; its result is dropped
        if self._worker is not None:
            self._set_state("cancelling")

    def drop(self) -> None:
        """Stop within a batch; what comes of the work until then is dropped."""
        self._generation += 1
        self.cancel()

    def _overtake(self, job: Callable[[], None]) -> None:
        """Do this next, and drop what comes from the work under way."""
        self._generation += 1
        self._pending = job
        self._stop.request()
        if self._worker is None:
            self._next()

    def _next(self) -> None:
        job, self._pending = self._pending, None
        if job is not None:
            job()

    def _predict_now(self) -> None:
        session = self.session
        area, budget = self._request
        if session.bundle is None or session.slide is None:
            return
        if session.context is None or session.predictor is None or session.prediction is None:
            self._prepare()
            self._pending = self._predict_now  # once this worker has finished
            return
        wanted = session.context.tiles(area)
        todo = session.prediction.missing(wanted)
        if todo.size == 0:
            self.nothing_to_do.emit(int(wanted.size))
        elif budget is not None and todo.size > budget:
            self.refused.emit(int(todo.size))
        else:
            self._done, self._total, self._started_at = 0, int(todo.size), time.perf_counter()
            self._start("predicting", predicting, session.predictor, session.context, todo)
            self.progressed.emit(0, self._total, 0.0)

    def _prepare(self) -> None:
        session = self.session
        self._start("preparing", preparing, session.bundle, session.predictor, session.slide, session.context)

    def _start(self, state: State, work: Callable[..., Iterator[Any]], *args: Any) -> None:
        self._stop = stop = Stop()
        worker = create_worker(work, *args, stop, _start_thread=False)
        stop.worker = self._worker = worker
        worker.yielded.connect(partial(self._on_yielded, self._generation))
        worker.errored.connect(self._on_errored)
        worker.finished.connect(self._on_finished)
        self._set_state(state)
        worker.start()

    def _on_yielded(self, generation: int, result: Any) -> None:
        if generation != self._generation:
            return
        if isinstance(result, Failed):
            self._pending = None
            if self._quiet and self.state == "preparing":
                return
            show_error(str(result.error))
            self.failed.emit(str(result.error))
        elif isinstance(result, Bundle):
            self.session.use(result)
        elif isinstance(result, Loaded):
            self.session.loaded(result.bundle, result.predictor)
        elif isinstance(result, Prepared):
            self.session.prepared(result.predictor, result.context)
        elif isinstance(result, Preview):
            self.session.foresee(result)
        else:
            self._on_part(result)

    def _on_part(self, part: PredictionPart) -> None:
        self.session.add(part)
        self._done += len(part.indices)
        rate = self._done / max(time.perf_counter() - self._started_at, 1e-6)
        self.progressed.emit(self._done, self._total, rate)

    def _on_errored(self, error: Exception) -> None:
        """Tell of an error that is a fault of ours; napari shows it with its traceback."""
        self._pending = None
        self.failed.emit(f"{type(error).__name__}: {error}")

    def _on_finished(self) -> None:
        if self.state in ("predicting", "cancelling"):
            self.session.end_run()
        if self._worker is not None and self._worker.abort_requested:
            self._pending = None  # napari stopped it: the window is closing, or the user said so in its list
        self._worker = None
        self._next()
        if self._worker is None:
            self._set_state("idle")

    def _on_slide_changed(self) -> None:
        """Drop what is under way for the former slide; a bundle that is being opened serves any slide."""
        if self.state == "loading":
            self._pending = None if self._pending == self._predict_now else self._pending
        else:
            self.drop()

    def _set_state(self, state: State) -> None:
        if state != self.state:
            self.state = state
            self.state_changed.emit(state)


#: The engine of each viewer: ``engines.of(viewer)``.
engines: PerViewer[Engine] = PerViewer(lambda viewer: Engine(sessions.of(viewer)))
