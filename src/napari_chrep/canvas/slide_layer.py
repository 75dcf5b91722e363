"""Build the napari image layer of a slide: its data and keyword arguments."""

from __future__ import annotations

from typing import Any

from chrep_model.slides.slide import Slide
from napari_chrep.canvas.slide_pixels import SlidePixels
from napari_chrep.state.session import SLIDE_KEY
from napari_chrep.state.settings import with_remembered_scale

#: A layer as napari's readers return it: data, keyword arguments, type of layer.
LayerData = tuple[Any, dict[str, Any], str]

#: Key in a slide layer's ``metadata`` that holds the `SlidePixels` that reads its pixels.
SHOWN_KEY = "chrep_shown"


def slide_layer_data(slide: Slide) -> LayerData:
    """Return the data of an image layer for a slide, in micrometres if its scale is known.

    Parameters
    ----------
    slide : Slide
        An open slide; the layer keeps it in ``metadata["chrep_slide"]``. If its file has no scale, the scale
        that the user entered before is used.

    Returns
    -------
    tuple
        ``(data, kwargs, "image")``. The data are uint8 RGB: a list of levels or, for a slide with one level,
        a single array.
    """
    slide = with_remembered_scale(slide)
    shown = SlidePixels(slide)
    levels = slide.pyramid(shown.read)
    kwargs: dict[str, Any] = {
        "name": slide.name,
        "rgb": True,
        "multiscale": len(levels) > 1,
        "metadata": {SLIDE_KEY: slide, SHOWN_KEY: shown},
    }
    if slide.mpp is not None:
        kwargs["scale"] = (slide.mpp.value, slide.mpp.value)
        kwargs["units"] = ("um", "um")
    return (levels if len(levels) > 1 else levels[0], kwargs, "image")
