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
from typing import TYPE_CHECKING

from chrep_model.bundle import Bundle, load_bundle
from chrep_model.prediction.prediction import Prediction, Preview
from napari_chrep.background.runner import Task
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


def loading(path: Path, task: Task) -> Iterator[Bundle | Loaded]:
    """Open a bundle; yields it, and again once its networks are loaded.

    The second step is ahead of its time: it imports torch while the user still looks for a slide.
    """
    bundle = load_bundle(path)
    _ = bundle.trust, bundle.panel.names  # made here: the widgets ask for them on the Qt thread
    yield bundle
    if not task.cancelled():
        yield Loaded(bundle, _predictor(bundle))


def preparing(
    bundle: Bundle, predictor: Predictor | None, slide: Slide, context: SlideContext | None, task: Task
) -> Iterator[Prepared]:
    """Load the bundle's networks and prepare the slide for them, whichever is not there yet."""
    _step_back()
    predictor = predictor or _predictor(bundle)
    if context is None and not task.cancelled():
        context = predictor.prepare(slide, progress=task.report, cancelled=task.cancelled)
    if context is not None:
        yield Prepared(predictor, context, context.embeddings.known(bundle.context_um))


def predicting(
    predictor: Predictor, context: SlideContext, schedule: Schedule, task: Task
) -> Iterator[Preview | PredictionPart]:
    """Predict what the schedule hands out, once per batch; until it holds nothing more.

    A tile that is not predicted yet is drawn as its nearest stand-in, see `Preview`. Where neighbourhoods are
    known, or the model looks at none, the coarse passes are the stand-ins, right at once. Where they are not,
    even a coarse pass would have nearly all tiles in view encoded; then a few tiles are predicted roughly,
    and all from the centre outwards. `Predictor.preview` tells which it is.
    """

    def cancelled() -> bool:
        return task.cancelled() or schedule.is_elsewhere()

    size, generation = predictor.batch_size, -1
    coarse = Prediction(predictor.bundle, context.grid, context.slide)
    _step_back()
    while not task.cancelled() and (step := schedule.next_pass()) is not None:
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
        if step.stride > 1 and not (schedule.has_moved or task.cancelled()):
            yield from _drawn_from(coarse, step)


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
