"""Find the predicted tile that the user clicked on, and mark it with a frame."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image
from psygnal import Signal

from chrep_model.errors import PredictionError
from napari_chrep.canvas.grid import SideBySide
from napari_chrep.state.session import Session
from napari_chrep.state.viewers import kept_for

if TYPE_CHECKING:
    from chrep_model.prediction.prediction import Prediction

#: Largest movement of the mouse during a click, in canvas pixels; a longer one is a drag.
CLICK_PX = 4.0

#: Colour of the frame: cyan, which occurs neither in H&E nor in the heatmaps. A pinned tile's is orange.
FRAME_RGBA = (0, 229, 255, 255)
PINNED_RGBA = (255, 140, 0, 255)
#: Side length of the frame's image and width of its edge, in pixels of that image.
FRAME_PX, FRAME_EDGE = 48, 3


class Clicks:
    """Listener for clicks on the canvas of a viewer.

    A click is a press and release of the left button at one place, without a modifier key and while the
    active layer is in pan/zoom or select mode. In other modes napari uses clicks itself.

    Parameters
    ----------
    viewer : napari.Viewer
        Only a weak reference is kept.

    Attributes
    ----------
    clicked : Signal(object)
        Emitted for each click with the world coordinates, a tuple of floats (..., row, col).
    """

    clicked = Signal(object)

    def __init__(self, viewer: Any) -> None:
        self._viewer = weakref.ref(viewer)
        viewer.mouse_drag_callbacks.append(self._on_press)

    def disconnect(self) -> None:
        """Stop listening to the viewer."""
        viewer = self._viewer()
        if viewer is not None and self._on_press in viewer.mouse_drag_callbacks:
            viewer.mouse_drag_callbacks.remove(self._on_press)

    def _on_press(self, viewer: Any, event: Any) -> Iterator[None]:
        """Emit `clicked` if the button is released where it was pressed; napari runs this generator."""
        active = viewer.layers.selection.active
        busy = active is not None and active.mode not in ("pan_zoom", "select")
        if event.button != 1 or event.modifiers or busy:
            return
        start = np.asarray(event.pos, float)
        furthest = 0.0
        yield
        while event.type == "mouse_move":
            furthest = max(furthest, math.dist(start, event.pos))
            yield
        if max(furthest, math.dist(start, event.pos)) <= CLICK_PX:
            self.clicked.emit(tuple(event.position))


@dataclass(frozen=True)
class PickedTile:
    """A predicted tile that the user clicked on.

    Attributes
    ----------
    prediction : Prediction
        The prediction that holds the tile.
    layer : napari Image layer
        The layer of its slide.
    tile : int
        Flat index of the tile in the grid.
    """

    prediction: Prediction = field(repr=False)
    layer: Image
    tile: int

    @property
    def xy(self) -> tuple[float, float]:
        """Centre (x, y) of the tile, in level-0 pixels."""
        x, y = self.prediction.grid.centres(np.array([self.tile]))[0]
        return float(x), float(y)

    def is_tile_of(self, other: PickedTile | None) -> bool:
        """Return whether another pick refers to the same tile of the same prediction."""
        return other is not None and other.prediction is self.prediction and other.tile == self.tile


def pick_tile(session: Session, world: Sequence[float]) -> PickedTile:
    """Return the predicted tile at a place on the canvas.

    Parameters
    ----------
    session : Session
        Session with the slide and the prediction.
    world : sequence of float
        World coordinates (..., row, col).

    Raises
    ------
    PredictionError
        No tile is predicted at this place; the message says why.
    """
    prediction, layer, context = session.prediction, session.slide_layer, session.context
    if prediction is None or layer is None or context is None or not len(prediction):
        raise PredictionError(
            "nothing is predicted yet", remedy="Predict the view in the slide explorer, then click on a tile."
        )
    row, col = (float(value) + 0.5 for value in layer.world_to_data(np.asarray(world[-2:])))
    rows, cols = prediction.slide.shape
    tile = prediction.grid.index_at(col, row)
    if tile is None or not (0 <= row < rows and 0 <= col < cols):
        raise PredictionError("this is outside of the slide", remedy="Click on a tile of the heatmap.")
    if tile in prediction:
        return PickedTile(prediction, layer, tile)
    if tile in context.tissue:
        raise PredictionError(
            "this tissue is not predicted yet", remedy="Predict the view, then click again."
        )
    raise PredictionError(
        "there is no tissue here, and so no prediction", remedy="Click on a tile of the heatmap."
    )


class Frame:
    """A square frame around a tile, in a layer of its own.

    It is an Image layer, because the first shape of a Shapes layer would load a compiler.

    Parameters
    ----------
    viewer : napari.Viewer
        Only a weak reference is kept.
    name : str
        Name of the layer.
    rgba : tuple of int
        Colour of the frame.
    """

    def __init__(
        self, viewer: Any, name: str = "Picked place", rgba: tuple[int, int, int, int] = FRAME_RGBA
    ) -> None:
        self._viewer = weakref.ref(viewer)
        self._layer: Image | None = None
        self._name, self._rgba = name, rgba

    def put(self, centre: tuple[float, float], side: float) -> None:
        """Show the frame above all other layers, around `centre` (row, col) and `side` wide, in µm.

        In grid mode the frame is removed.
        """
        viewer = self._viewer()
        if viewer is None:
            return
        if kept_for(viewer, SideBySide).enabled:  # the frame would take a cell of its own
            self.remove()
            return
        if self._layer is None or self._layer not in viewer.layers:
            self._layer = self._add(viewer)
        layer, px = self._layer, side / FRAME_PX
        layer.scale = (px, px)
        layer.translate = tuple(at - side / 2 + px / 2 for at in centre)  # centre of the first pixel
        viewer.layers.move(viewer.layers.index(layer), len(viewer.layers))

    def remove(self) -> None:
        """Remove the frame."""
        viewer, layer, self._layer = self._viewer(), self._layer, None
        if viewer is not None and layer is not None and layer in viewer.layers:
            viewer.layers.remove(layer)

    def _add(self, viewer: Any) -> Image:
        """Add the layer of the frame, and keep the selected layer selected."""
        picture = np.full((FRAME_PX, FRAME_PX, 4), self._rgba, np.uint8)
        picture[FRAME_EDGE:-FRAME_EDGE, FRAME_EDGE:-FRAME_EDGE] = 0
        selected = viewer.layers.selection.active
        layer = Image(picture, rgb=True, name=self._name, units=("um", "um"))
        viewer.layers.append(layer)
        if selected is not None:
            viewer.layers.selection.active = selected
        return layer
