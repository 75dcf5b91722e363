"""Show stored predictions in the viewer: maps, genes and, if found, the slide."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Layer
from napari.utils.notifications import show_info

from chrep_model.prediction.prediction import Prediction
from chrep_model.prediction.stored import first_gene, read_prediction
from chrep_model.slides.absent import AbsentSlide
from chrep_model.slides.slide import Slide
from napari_chrep.background.prediction_engine import PredictionEngine
from napari_chrep.background.runner import TaskRunner, show_short
from napari_chrep.canvas.slide_layer import LayerData, slide_layer_data
from napari_chrep.state.session import Session, slide_of
from napari_chrep.state.viewers import kept_for
from napari_chrep.ui.docks import show_dock

if TYPE_CHECKING:
    from chrep_model.prediction.predictor import SlideContext


@dataclass(frozen=True)
class Reopened:
    """Prediction from a file, its tiles, and the layer of its slide unless the slide is open already."""

    prediction: Prediction
    context: SlideContext
    layer: LayerData | None


def read_with_slide(path: Path, slides: list[Slide]) -> Reopened:
    """Read a prediction and find its slide; raises ChrepError if the file is damaged."""
    from chrep_model.prediction.predictor import SlideContext

    prediction = read_prediction(path, slides)
    slide = prediction.slide
    known = isinstance(slide, AbsentSlide) or any(slide is other for other in slides)
    # No embeddings are needed, because the stored bundle cannot predict more tiles.
    context = SlideContext(slide, None, prediction.grid, prediction.indices)  # type: ignore[arg-type]
    return Reopened(prediction, context, None if known else slide_layer_data(slide))


def reopen(viewer: Any, path: Path) -> None:
    """Read a prediction in the background, and show it in a viewer."""
    slides = [slide for slide in map(slide_of, viewer.layers) if slide is not None]
    kept_for(viewer, TaskRunner).run(
        lambda _task: read_with_slide(path, slides),
        on_result=partial(_on_read, weakref.ref(viewer)),
        on_error=show_short,
        title="Opening the prediction",
        beside=True,
    )


def _on_read(owner: Any, result: Reopened) -> None:
    viewer = owner()
    if viewer is None:
        return
    for name in ("Slide explorer", "Genes"):  # the first shows the maps, the second the choice of genes
        show_dock(viewer, name)
    session, prediction = kept_for(viewer, Session), result.prediction
    if result.layer is not None:
        viewer.layers.append(Layer.create(*result.layer))
    slide = prediction.slide
    if isinstance(slide, AbsentSlide):
        show_info(f"{slide.path}: the slide of this prediction was not found. Its maps are shown without it.")
    layer = next((layer for layer in viewer.layers if slide_of(layer) is slide), None)
    known = session.gene in prediction.genes
    kept_for(viewer, PredictionEngine).drop()  # else its batches would be added to this prediction
    session.reopen(layer, result.context, prediction)
    if not known:
        session.show_gene(first_gene(prediction))
    viewer.reset_view()
