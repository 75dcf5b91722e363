"""Tasks of the prediction engine: open a bundle, prepare a slide, predict tiles; each a generator.

torch is imported only in the threads of the tasks, so that a widget opens at once.
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


#: Niceness of the threads that predict: on a busy core they get about a tenth of the window's share.
WORKER_NICENESS = 10

#: Largest number of coarse tiles in a preview; with more, drawing would take longer than 20 ms.
MAX_PREVIEW_TILES = 2048


@dataclass(frozen=True)
class LoadedBundle:
    """Bundle with the predictor that holds its loaded networks."""

    bundle: Bundle
    predictor: Predictor


@dataclass(frozen=True)
class PreparedSlide:
    """Slide prepared for a bundle, with the predictor for it.

    Attributes
    ----------
    known : ndarray
        (n,) int64 flat indices of the tiles that can be predicted from stored embeddings.
    """

    predictor: Predictor
    context: SlideContext
    known: Indices


def open_bundle(path: Path, task: Task) -> Iterator[Bundle | LoadedBundle]:
    """Open a bundle and load its networks; yield the bundle first, then both.

    The networks are loaded ahead of time, so that torch is imported while the user chooses a slide.
    """
    bundle = load_bundle(path)
    _ = bundle.trust, bundle.panel.names  # computed here, because the widgets read them on the Qt thread
    yield bundle
    if not task.cancelled():
        yield LoadedBundle(bundle, _predictor(bundle))


def prepare_slide(
    bundle: Bundle, predictor: Predictor | None, slide: Slide, context: SlideContext | None, task: Task
) -> Iterator[PreparedSlide]:
    """Load the bundle's networks and prepare the slide for them, unless either is done already."""
    _lower_priority()
    predictor = predictor or _predictor(bundle)
    if context is None and not task.cancelled():
        context = predictor.prepare(slide, progress=task.progress)
    if context is not None:
        yield PreparedSlide(predictor, context, context.embeddings.known(bundle.context_um))


def predict_tiles(
    predictor: Predictor, context: SlideContext, schedule: TileSchedule, task: Task
) -> Iterator[Preview | PredictionPart]:
    """Predict all tiles of a schedule, and yield one part for each batch, and previews.

    In a preview, a tile that is not predicted yet has the value of the nearest tile that is, see `Preview`.
    If the model uses no neighbourhoods, or their embeddings are stored, previews are made of the tiles of
    coarse passes. Otherwise even a coarse pass would have to encode nearly all tiles in view; then
    `Predictor.preview` returns a rough prediction of a few tiles, and all tiles are predicted from the centre
    outwards.
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
            yield from _coarse_preview(coarse, step)


def _coarse_preview(coarse: Prediction, step: Pass) -> Iterator[Preview]:
    """Yield a preview of the waiting tiles from the coarse tiles in view, unless those are too many."""
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
    """Leave one core to the window, and lower the priority of this thread, so that panning is smooth.

    On Linux each thread has its own priority, which threads that it starts inherit; on other systems the
    priority is not changed. It must not be lower than this: if other programs keep all cores busy, this
    thread would hardly run, nor would threads that wait for it to release the interpreter's lock.
    """
    import torch

    torch.set_num_threads(max(1, (os.cpu_count() or 2) - 1))
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), WORKER_NICENESS)
