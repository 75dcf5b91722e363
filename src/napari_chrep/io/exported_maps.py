"""Open maps that were exported as OME-Zarr as image layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari.utils.notifications import show_error

from chrep_model.errors import PredictionError
from chrep_model.export.omezarr import StoredMaps, read_maps
from chrep_model.prediction.table import INTERVAL_LAYER
from napari_chrep.canvas.maps import KINDS

#: Key of a layer's ``metadata`` with the origin of its values, see `Prediction.facts`.
FACTS_KEY = "chrep_facts"

#: Kind of map by its name in the file; any other variant is shown like ``calibrated``.
_KIND_OF = {"raw": "raw", INTERVAL_LAYER: "interval"}


def open_maps(path: Path) -> list[Any]:
    """Return one image layer for each gene and kind of map.

    If the maps are damaged, the viewer shows the error, and no layer is added.

    Raises
    ------
    PredictionError
        The maps are damaged, and there is no viewer.
    """
    import napari

    try:
        return layers_of(read_maps(path))
    except PredictionError as error:
        if napari.current_viewer() is None:
            raise
        show_error(error.short)
        return [(None,)]


def layers_of(stored: StoredMaps) -> list[tuple[Any, dict[str, Any], str]]:
    """Return the data of a layer for each channel, with position and scale in µm."""
    layers = []
    for found in stored.maps:
        kind = KINDS[_KIND_OF.get(found.kind, "calibrated")]
        kwargs = {
            "name": f"{found.gene} {found.kind} [{kind.unit}]",
            "scale": stored.scale,
            "translate": stored.translate,
            "units": ("um", "um"),
            "colormap": kind.colormap,
            "contrast_limits": found.limits,
            "blending": kind.blending,
            "opacity": kind.opacity,
            "interpolation2d": "nearest",
            "visible": found.visible,
            "metadata": {FACTS_KEY: stored.facts},
        }
        layers.append((found.values, kwargs, "image"))
    return layers
