"""Tasks of the prediction engine: open a bundle, prepare a slide, predict tiles; each a generator.

torch is imported in the threads of the tasks only: opening a widget stays instant.
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
from chrep_model.progress import Progress
from napari_chrep.background.runner import Task
from napari_chrep.state.settings import preferences

if TYPE_CHECKING:
    from chrep_model.prediction.parts import PredictionPart
    from chrep_model.prediction.predictor import Predictor, SlideContext
    from chrep_model.slides.slide import Slide
    from chrep_model.slides.tiles import Indices
    from napari_chrep.background.tile_schedule import Pass, TileSchedule


#: Niceness of the threads that predict: they get about a tenth of the window's share of a busy core.
WORKER_NICENESS = 10

#: Most coarse tiles of which a preview is drawn: with more, drawing would take longer than 20 ms.
MAX_PREVIEW_TILES = 2048


@dataclass(frozen=True)
class LoadedBundle:
    """A bundle whose networks are loaded."""

    bundle: Bundle
    predictor: Predictor


@dataclass(frozen=True)
class PreparedSlide:
    """A slide prepared for a bundle.

    Attributes
    ----------
    known : ndarray
        (n,) int64 flat indices of the tiles that can be predicted from what is stored.
    """

    predictor: Predictor
    context: SlideContext
    known: Indices


def open_bundle(path: Path, task: Task) -> Iterator[Bundle | LoadedBundle]:
    """Open a bundle and load its networks; yield the bundle first, then both.

    The networks are loaded ahead of time: torch is imported while the user still looks for a slide.
    """
    bundle = load_bundle(path)
    _ = bundle.trust, bundle.panel.names  # made here: the widgets ask for them on the Qt thread
    yield bundle
    if not task.cancelled():
        yield LoadedBundle(bundle, _predictor(bundle))


def prepare_slide(
    bundle: Bundle, predictor: Predictor | None, slide: Slide, context: SlideContext | None, task: Task
) -> Iterator[PreparedSlide]:
    """Load the bundle's networks and prepare the slide for them, unless that is done already."""
    _lower_priority()
    predictor = predictor or _predictor(bundle)
    if context is None and not task.cancelled():
        context = predictor.prepare(slide, progress=task.progress)
    if context is not None:
        yield PreparedSlide(predictor, context, context.embeddings.known(bundle.context_um))


def predict_tiles(
    predictor: Predictor, context: SlideContext, schedule: TileSchedule, task: Task
) -> Iterator[Preview | PredictionPart]:
    """Predict the tiles of a schedule until none is left; yield one part for each batch.

    A tile that is not predicted yet is drawn as its nearest stand-in, see `Preview`. Where neighbourhoods are
    known, or the model looks at none, the coarse passes are the stand-ins, right at once. Where they are not,
    even a coarse pass would have nearly all tiles in view encoded; then a few tiles are predicted roughly,
    and all from the centre outwards. `Predictor.preview` tells which it is.
    """
    progress = Progress(cancelled=lambda: task.cancelled() or schedule.is_view_elsewhere())
    size, generation = predictor.batch_size, -1
    coarse = Prediction(predictor.bundle, context.grid, context.slide)
    _lower_priority()
    while not task.cancelled() and (step := schedule.next_pass()) is not None:
        if step.view.generation != generation and len(step.waiting) > size:
            generation = step.view.generation
            preview = predictor.preview(context, step.waiting, progress=progress)
            if preview is not None:
                yield preview
                if predictor.bundle.context_um:
                    schedule.skip_coarse_passes()
                continue
        for part in predictor.stream(context, schedule.batches(size), progress=progress):
            schedule.mark_done(part.indices)
            yield part
            if step.stride > 1:
                coarse.add(part)
        schedule.requeue_unfinished()
        if step.stride > 1 and not (schedule.has_moved or task.cancelled()):
            yield from _drawn_from(coarse, step)


def _drawn_from(coarse: Prediction, step: Pass) -> Iterator[Preview]:
    """Yield a preview of the waiting tiles, made of the coarse tiles in view unless those are too many."""
    from scipy.spatial import cKDTree

    grid, tiles = coarse.grid, coarse.indices
    few = coarse.only(tiles[grid.is_in(step.view.rect, tiles)])
    if 0 < len(few) <= MAX_PREVIEW_TILES:
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


def _lower_priority() -> None:
    """Leave one core to the window and lower the priority of this thread, or panning would stutter.

    On Linux threads have priorities of their own, and those that a thread starts inherit its; elsewhere this
    one stays as it is. No lower than this: beside other programs that keep all cores busy, a thread that
    only gets what is left would hardly go on, and with it whoever waits for the interpreter's lock.
    """
    import torch

    torch.set_num_threads(max(1, (os.cpu_count() or 2) - 1))
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), WORKER_NICENESS)
