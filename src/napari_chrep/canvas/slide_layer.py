"""Image layers of slides: their data and keyword arguments for napari."""

from __future__ import annotations

from typing import Any

from chrep_model.slides.slide import Slide
from napari_chrep.canvas.slide_pixels import SlidePixels
from napari_chrep.state.session import SLIDE_KEY
from napari_chrep.state.settings import with_remembered_scale

#: One layer for napari: data, keyword arguments, kind of layer.
LayerData = tuple[Any, dict[str, Any], str]

#: Key of a slide layer's ``metadata``: the `SlidePixels` that reads its pixels for the canvas.
SHOWN_KEY = "chrep_shown"


def slide_layer_data(slide: Slide) -> LayerData:
    """Return data of one image layer for a slide, in micrometres if the scale is known.

    Parameters
    ----------
    slide : Slide
        An open slide; the layer keeps it in ``metadata["chrep_slide"]``. Where it does not say its scale,
        the one is taken that was typed in before.

    Returns
    -------
    tuple
        ``(data, kwargs, "image")``; data are uint8 RGB: a list of levels or, for a
        one-level slide, one array.
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
