"""What the workers do: open a bundle, prepare a slide, predict tiles; each a generator.

torch is imported here in the worker threads only: opening a widget stays instant.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chrep_model.bundle import Bundle, load_bundle
from chrep_model.errors import Cancelled, ChrepError
from chrep_model.prediction.prediction import Prediction, Preview
from napari_chrep.state.preferences import preferences

if TYPE_CHECKING:
    from chrep_model.prediction.parts import PredictionPart
    from chrep_model.prediction.predictor import Predictor, SlideContext
    from chrep_model.slides.slide import Slide
    from chrep_model.slides.tiles import Indices
    from napari_chrep.background.scheduling import Pass, Schedule


#: Niceness of the threads that compute: about a tenth of the window's share where both want a core.
BEHIND_THE_WINDOW = 10

#: Coarse tiles at most from which the waiting ones are drawn: more would take the window longer than 20 ms.
MOST_PREVIEWED = 2048


@dataclass(frozen=True)
class Loaded:
    """A bundle whose networks are loaded."""

    bundle: Bundle
    predictor: Predictor


@dataclass(frozen=True)
class Prepared:
    """A slide made ready for a bundle.

    Attributes
    ----------
    known : ndarray
        (n,) int64 flat indices of the tiles that can be predicted from what is stored.
    """

    predictor: Predictor
    context: SlideContext
    known: Indices


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
        yield Prepared(predictor, context, context.embeddings.known(bundle.context_um))


def predicting(
    predictor: Predictor, context: SlideContext, schedule: Schedule, stop: Stop
) -> Iterator[Preview | PredictionPart | Failed]:
    """Predict what the schedule hands out, once per batch; until it holds nothing more.

    A tile that is not predicted yet is drawn as its nearest stand-in, see `Preview`. Where neighbourhoods are
    known, or the model looks at none, the coarse passes are the stand-ins, right at once. Where they are not,
    even a coarse pass would have nearly all tiles in view encoded; then a few tiles are predicted roughly,
    and all from the centre outwards. `Predictor.preview` tells which it is.
    """

    def cancelled() -> bool:
        return stop.requested() or schedule.is_elsewhere()

    size, generation = predictor.batch_size, -1
    coarse = Prediction(predictor.bundle, context.grid, context.slide)
    try:
        _step_back()
        while not stop.requested() and (step := schedule.next_pass()) is not None:
            if step.view.generation != generation and len(step.waiting) > size:
                generation = step.view.generation
                preview = predictor.preview(context, step.waiting, cancelled=cancelled)
                if preview is not None:
                    yield preview
                    if predictor.bundle.context_um:
                        schedule.refine()
                    continue
            for part in predictor.stream(context, schedule.batches(size), cancelled=cancelled):
                schedule.done(part.indices)
                yield part
                if step.stride > 1:
                    coarse.add(part)
            schedule.give_back()
            if step.stride > 1 and not (schedule.has_moved or stop.requested()):
                yield from _drawn_from(coarse, step)
    except Cancelled:
        return
    except ChrepError as error:
        yield Failed(error)


def _drawn_from(coarse: Prediction, step: Pass) -> Iterator[Preview]:
    """Draw what still waits from the coarse tiles in view, if they are not too many for the window."""
    from scipy.spatial import cKDTree

    grid, tiles = coarse.grid, coarse.indices
    few = coarse.only(tiles[grid.is_in(step.view.rect, tiles)])
    if 0 < len(few) <= MOST_PREVIEWED:
        nearest = cKDTree(grid.centres(few.indices)).query(grid.centres(step.waiting))[1]
        yield Preview(few, step.waiting, nearest)


def _predictor(bundle: Bundle) -> Predictor:
    from chrep_model.cache import trim_cache
    from chrep_model.encoders.stainbank import STAINBANK
    from chrep_model.prediction.predictor import Predictor

    wanted = preferences()
    trim_cache(wanted.cache, wanted.cache_bytes)
    precision = "fp32" if bundle.card.encoder == STAINBANK else wanted.precision
    return Predictor(
        bundle,
        device=wanted.device,
        batch_size=wanted.batch_size,
        cache_dir=wanted.cache,
        precision=precision,
    )


def _step_back() -> None:
    """Leave the window a core, and let it go first: a worker that takes all there is makes panning stutter.

    On Linux threads have priorities of their own, and those that a thread starts inherit its; elsewhere this
    one stays as it is. No lower than this: beside other programs that keep all cores busy, a thread that
    only gets what is left would hardly go on, and with it whoever waits for the interpreter's lock.
    """
    import torch

    torch.set_num_threads(max(1, (os.cpu_count() or 2) - 1))
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), BEHIND_THE_WINDOW)
