"""Bring a place on a slide into view: only that slide, the place centred and framed."""

from __future__ import annotations

from typing import Any

from napari.layers import Layer

from chrep_model.geometry import um_to_px
from napari_chrep.canvas.picking import Frame
from napari_chrep.canvas.slide_layer import slide_layer_data
from napari_chrep.canvas.viewport import centre_on, slide_mpp
from napari_chrep.neighbours.training_images import SectionImage
from napari_chrep.state.session import Session, slide_of

#: How many frames fit across the view.
FRAMES_ACROSS = 8.0


def layer_of(viewer: Any, image: SectionImage) -> Any:
    """Return the layer of an image; open it if needed.

    Raises
    ------
    SlideError
        The file cannot be read.
    """
    for layer in viewer.layers:
        slide = slide_of(layer)
        if slide is None or (slide.path, slide_mpp(slide)) != (image.path, image.mpp):
            continue
        if image.scene in ("", slide.scene):
            return layer
    layer = Layer.create(*slide_layer_data(image.open()))
    viewer.layers.append(layer)
    return layer


def show_place(
    viewer: Any, session: Session, layer: Any, xy_um: tuple[float, float], side_um: float, frame: Frame
) -> None:
    """Show the place (x, y), in µm, on a slide's layer; other slides are hidden, not closed."""
    slide = slide_of(layer)
    if slide is None:
        return
    for other in viewer.layers:
        if slide_of(other) is not None:
            other.visible = other is layer
    viewer.layers.selection.active = layer
    session.set_slide_layer(layer)
    mpp = slide_mpp(slide)
    x, y = (um_to_px(value, mpp) for value in xy_um)
    frame.put(((y - 0.5) * mpp, (x - 0.5) * mpp), side_um)
    centre_on(viewer, slide, (x, y), FRAMES_ACROSS * side_um / mpp)
