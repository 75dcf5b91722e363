"""Bring a place on a slide into view, centred and framed, with all other slides hidden."""

from __future__ import annotations

from typing import Any

from napari.layers import Layer

from chrep_model.geometry import um_to_px
from napari_chrep.canvas.picking import Frame
from napari_chrep.canvas.slide_layer import slide_layer_data
from napari_chrep.canvas.viewport import centre_on, slide_mpp
from napari_chrep.neighbours.training_images import SectionImage
from napari_chrep.state.session import Session, slide_of

#: Width of the view, in widths of the frame.
FRAMES_ACROSS = 8.0


def layer_of(viewer: Any, image: SectionImage) -> Any:
    """Return the layer of a section's image; open the image if it has no layer.

    Raises
    ------
    SlideError
        The image file cannot be read.
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
    """Centre the view on a place on a slide's layer, frame the place, and hide other slides.

    `xy_um` is the place (x, y) and `side_um` the width of the frame, both in µm.
    """
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
