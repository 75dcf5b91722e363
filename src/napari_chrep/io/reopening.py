"""Show a prediction from a file in the viewer: its maps, its genes and, if found, its slide."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Layer
from napari.qt.threading import create_worker
from napari.utils.notifications import show_error, show_info

from chrep_model.errors import ChrepError
from chrep_model.prediction.prediction import Prediction
from chrep_model.prediction.stored import first_gene, read_prediction
from chrep_model.slides.absent import AbsentSlide
from chrep_model.slides.slide import Slide
from napari_chrep.background.engine import Engine
from napari_chrep.canvas.slide_layer import LayerData, slide_layer_data
from napari_chrep.state.session import Session, slide_of
from napari_chrep.state.viewers import kept_for
from napari_chrep.ui.docks import show_dock

if TYPE_CHECKING:
    from chrep_model.prediction.predictor import SlideContext


@dataclass(frozen=True)
class Reopened:
    """A prediction from a file, its tiles, and the layer of its slide unless that is open already."""

    prediction: Prediction
    context: SlideContext
    layer: LayerData | None


def reading(path: Path, slides: list[Slide]) -> Iterator[Reopened | ChrepError]:
    """Read a prediction and find its slide; yield the result or the error."""
    from chrep_model.prediction.predictor import SlideContext

    try:
        prediction = read_prediction(path, slides)
        slide = prediction.slide
        known = isinstance(slide, AbsentSlide) or any(slide is other for other in slides)
        # Without embeddings: its bundle cannot predict more, so nobody asks for them.
        context = SlideContext(slide, None, prediction.grid, prediction.indices)  # type: ignore[arg-type]
        yield Reopened(prediction, context, None if known else slide_layer_data(slide))
    except ChrepError as error:
        yield error


def reopen(viewer: Any, path: Path) -> Any:
    """Read a prediction in a worker and show it in a viewer; return the worker."""
    slides = [slide for slide in map(slide_of, viewer.layers) if slide is not None]
    worker = create_worker(
        reading, path, slides, _progress={"desc": "Opening the prediction"}, _start_thread=False
    )
    worker.yielded.connect(partial(_on_read, weakref.ref(viewer)))
    worker.start()
    return worker


def _on_read(owner: Any, result: Reopened | ChrepError) -> None:
    viewer = owner()
    if viewer is None:
        return
    if isinstance(result, ChrepError):
        show_error(result.short)
        return
    for name in ("Slide explorer", "Genes"):  # the first sees to the maps, the second to the choice of a gene
        show_dock(viewer, name)
    session, prediction = kept_for(viewer, Session), result.prediction
    if result.layer is not None:
        viewer.layers.append(Layer.create(*result.layer))
    slide = prediction.slide
    if isinstance(slide, AbsentSlide):
        show_info(f"{slide.path}: the slide of this prediction was not found. Its maps are shown without it.")
    layer = next((layer for layer in viewer.layers if slide_of(layer) is slide), None)
    known = session.gene in prediction.genes
    kept_for(viewer, Engine).drop()  # or its batches would be added to what was read
    session.reopen(layer, result.context, prediction)
    if not known:
        session.show_gene(first_gene(prediction))
    viewer.reset_view()
