"""Turn the shapes that the user drew over a slide into a region of the slide.

The region limits a prediction or an export to a part of the slide.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.layers import Shapes
from psygnal import Signal

from chrep_model.errors import SettingsError
from chrep_model.geometry import rowcol_to_xy
from chrep_model.slides.region import Region
from chrep_model.slides.slide import Slide
from napari_chrep.canvas.viewport import slide_mpp

#: Types of shape that enclose an area; lines and paths do not.
_AREA_TYPES = ("rectangle", "polygon", "ellipse")

#: Number of corners of the polygon that replaces an ellipse.
_ELLIPSE_CORNERS = 64


class Drawing:
    """The selected Shapes layer of a viewer, if it holds a rectangle, polygon or ellipse.

    Parameters
    ----------
    viewer : napari.Viewer
        Only a weak reference is kept.

    Attributes
    ----------
    changed : Signal
        Emitted when another layer is selected, or a shape is drawn or deleted in the selected one.
    """

    changed = Signal()

    def __init__(self, viewer: Any) -> None:
        self._viewer = weakref.ref(viewer)
        self._watched: Callable[[], Any] = lambda: None
        viewer.layers.selection.events.active.connect(self._on_selected)
        self._on_selected()

    @property
    def layer(self) -> Any:
        """The selected Shapes layer; None if no selected layer holds an area."""
        viewer = self._viewer()
        layer = None if viewer is None else viewer.layers.selection.active
        if isinstance(layer, Shapes) and any(kind in _AREA_TYPES for kind in layer.shape_type):
            return layer
        return None

    def region(self, slide: Slide) -> Region:
        """Return the region of a slide that the rectangles, polygons and ellipses cover.

        Raises
        ------
        SettingsError
            No such layer is selected, or one of its polygons crosses itself.
        """
        layer = self.layer
        if layer is None:
            raise SettingsError(
                "no Shapes layer with a polygon, rectangle or ellipse is selected",
                remedy="Draw one over the slide, and select its layer in the list of layers.",
            )
        mpp = slide_mpp(slide)
        polygons = []
        for corners, kind in zip(layer.data, layer.shape_type, strict=True):
            if kind in _AREA_TYPES:
                outline = _ellipse(np.asarray(corners)) if kind == "ellipse" else corners
                world = np.array([layer.data_to_world(corner)[-2:] for corner in outline])
                polygons.append(rowcol_to_xy(world) / mpp + 0.5)  # napari centres pixel 0 on 0
        return Region(polygons)

    def _on_selected(self, _event: Any = None) -> None:
        viewer, former = self._viewer(), self._watched()
        if former is not None:
            former.events.data.disconnect(self._on_drawn)
        layer = None if viewer is None else viewer.layers.selection.active
        if isinstance(layer, Shapes):
            layer.events.data.connect(self._on_drawn)
            self._watched = weakref.ref(layer)
        else:
            self._watched = lambda: None
        self.changed.emit()

    def _on_drawn(self, _event: Any = None) -> None:
        self.changed.emit()


def _ellipse(corners: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return points (`_ELLIPSE_CORNERS`, ndim) on the ellipse inscribed in a box with these 4 corners.

    The box may be rotated.
    """
    angle = np.linspace(0, 2 * np.pi, _ELLIPSE_CORNERS, endpoint=False)[:, None]
    across, down = (corners[1] - corners[0]) / 2, (corners[3] - corners[0]) / 2
    points: npt.NDArray[np.float64] = corners.mean(0) + np.cos(angle) * across + np.sin(angle) * down
    return points
