"""Show maps side by side in napari's grid mode.

Every visible layer has a cell of its own, and all cells pan and zoom together.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from psygnal import Signal

#: Font sizes of titles in points, and the most grid columns for which `_TITLE` fits on a 13-inch screen.
_TITLE, _NARROW_TITLE, _MAX_COLUMNS = 10.0, 7.0, 2


class SideBySide:
    """Switch for napari's grid mode, which also adjusts zoom, titles and opacity.

    Parameters
    ----------
    viewer : napari.Viewer
        Only a weak reference is kept.

    Attributes
    ----------
    toggled : Signal
        Emitted when the grid is switched on or off, here or with napari's own button.
    """

    toggled = Signal()

    def __init__(self, viewer: Any) -> None:
        self._viewer = weakref.ref(viewer)
        self._cells = 1
        self._opacity: list[tuple[Any, float]] = []
        viewer.canvas.grid.events.enabled.connect(self._on_enabled)

    @property
    def enabled(self) -> bool:
        """Whether the grid is on."""
        viewer = self._viewer()
        return viewer is not None and bool(viewer.canvas.grid.enabled)

    def enable(self, enabled: bool) -> None:
        """Switch the grid on or off; the same part of the slide stays in view.

        Each cell shows one layer.
        """
        viewer = self._viewer()
        if viewer is None or enabled == self.enabled:
            return
        if enabled:
            viewer.canvas.grid.stride = 1
        viewer.canvas.grid.enabled = enabled

    def fit(self) -> None:
        """Adjust the zoom to the number of cells, so that each cell shows the same part of the slide."""
        viewer = self._viewer()
        if viewer is None:
            return
        cells = max(viewer.canvas.grid.actual_shape(viewer.layers))
        if cells != self._cells:
            viewer.scene.camera.zoom *= self._cells / cells
            self._cells = cells

    def fit_titles(self, layers: Sequence[Any]) -> None:
        """Set the font size of the layers' titles so that they fit into their cells."""
        viewer = self._viewer()
        if viewer is None:
            return
        columns = viewer.canvas.grid.actual_shape(viewer.layers)[1] if self.enabled else 1
        size = _NARROW_TITLE if columns > _MAX_COLUMNS else _TITLE
        for layer in layers:
            if layer.name_overlay.font_size != size:
                layer.name_overlay.font_size = size

    def make_opaque(self, layers: Sequence[Any]) -> None:
        """Make layers opaque until the grid is switched off.

        In a cell of its own a layer has nothing below it, and only an opaque layer has the colours of its
        colour bar. An opacity that the user sets meanwhile is kept.
        """
        viewer = self._viewer()
        if viewer is None or not self.enabled:
            return
        self._opacity = [(layer, opacity) for layer, opacity in self._opacity if layer in viewer.layers]
        for layer in layers:
            if not any(layer is other for other, _ in self._opacity):
                self._opacity.append((layer, layer.opacity))
                layer.opacity = 1.0

    def _on_enabled(self, _event: Any = None) -> None:
        if not self.enabled:
            former, self._opacity = self._opacity, []
            for layer, opacity in former:
                if layer.opacity == 1.0:
                    layer.opacity = opacity
        self.fit()
        self.toggled.emit()
