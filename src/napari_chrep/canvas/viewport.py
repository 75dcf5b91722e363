"""Find out which part of the slide is in view, move the view, and report when it moves.

napari's public names for camera and canvas changed in version 0.9, so they are used in this file and in
`grid` only.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from typing import Any

from psygnal import Signal

from chrep_model.geometry import Rect
from chrep_model.slides.slide import Slide


def view_rect(
    centre: Sequence[float],
    zoom: float,
    canvas_size: Sequence[float],
    mpp: float,
    slide_shape: tuple[int, int],
) -> Rect | None:
    """Return the part of a slide that a camera shows.

    Parameters
    ----------
    centre : sequence of float
        Centre of the camera in world coordinates, (..., row, col), which are µm if the slide has a scale.
    zoom : float
        Canvas pixels per world unit.
    canvas_size : (float, float)
        (height, width) of the canvas in its pixels.
    mpp : float
        World units per level-0 pixel: the slide's µm/px, or 1 without a scale.
    slide_shape : (int, int)
        (rows, cols) of level 0.

    Returns
    -------
    Rect or None
        Rectangle in continuous level-0 pixels, clipped to the slide; None if no part of it is in view.

    Notes
    -----
    napari centres pixel 0 on world 0, so world w is the continuous coordinate w / mpp + 0.5.
    """
    if not (zoom > 0 and mpp > 0 and math.isfinite(zoom)):
        return None
    height, width = (extent / (zoom * mpp) for extent in canvas_size)
    row, col = (world / mpp + 0.5 for world in centre[-2:])
    rows, cols = slide_shape
    return Rect.around(col, row, width, height).intersection(Rect(0.0, 0.0, float(cols), float(rows)))


def slide_mpp(slide: Slide) -> float:
    """Return the size of a level-0 pixel in world units: µm, or 1 if the slide has no scale."""
    return slide.mpp.value if slide.mpp is not None else 1.0


def rect_in_view(viewer: Any, slide: Slide) -> Rect | None:
    """Return the part of the slide that the viewer shows now, in level-0 pixels."""
    camera = viewer.scene.camera
    canvas_size = viewer.canvas.viewbox_size(viewer.layers)  # the size of one cell in grid mode
    return view_rect(camera.center, camera.zoom, canvas_size, slide_mpp(slide), slide.shape)


def centre_on(viewer: Any, slide: Slide, xy: tuple[float, float], width: float) -> None:
    """Move the view so that `xy` is in its centre and it is `width` wide, both in level-0 pixels."""
    mpp, camera = slide_mpp(slide), viewer.scene.camera
    row, col = ((value - 0.5) * mpp for value in reversed(xy))
    camera.center = (*tuple(camera.center)[:-2], row, col)
    camera.zoom = float(viewer.canvas.viewbox_size(viewer.layers)[1]) / (width * mpp)


def show_scale_bar(viewer: Any) -> None:
    """Switch napari's scale bar on; its unit is that of the layers."""
    viewer.canvas.overlays.scale_bar.visible = True


class Viewport:
    """Listener for changes of a viewer's view.

    Parameters
    ----------
    viewer : napari.Viewer
        Only a weak reference is kept.

    Attributes
    ----------
    moved : Signal
        Emitted when the view is panned, zoomed or resized.

    Notes
    -----
    Zooming and panning emit several events each, in an order that differs between napari versions. `moved` is
    only a hint to look again; `background.tile_schedule` finds out when the view has stopped moving.
    """

    moved = Signal()

    def __init__(self, viewer: Any) -> None:
        self._viewer = weakref.ref(viewer)
        for event in self._events():
            event.connect(self._on_moved)

    def rect(self, slide: Slide) -> Rect | None:
        """Return the part of the slide in view, in level-0 pixels; None if the slide is out of view."""
        viewer = self._viewer()
        return None if viewer is None else rect_in_view(viewer, slide)

    def disconnect(self) -> None:
        """Stop listening to the viewer."""
        for event in self._events():
            event.disconnect(self._on_moved)

    def _events(self) -> tuple[Any, ...]:
        """Return napari's events that change the view."""
        viewer = self._viewer()
        if viewer is None:
            return ()
        camera = viewer.scene.camera
        return (camera.events.center, camera.events.zoom, viewer.canvas.events.size)

    def _on_moved(self, _event: Any = None) -> None:
        self.moved.emit()
