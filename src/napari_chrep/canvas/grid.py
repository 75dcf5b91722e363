"""Maps side by side: napari's grid, in which every visible layer has a cell and all cells move together."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from psygnal import Signal

#: Sizes of titles in points, and with how many cells beside each other the usual one fits a 13-inch screen.
_TITLE, _NARROW_TITLE, _WIDE_COLUMNS = 10.0, 7.0, 2


class SideBySide:
    """Switches napari's grid on and off.

    Parameters
    ----------
    viewer : napari.Viewer
        Only a weak reference is kept.

    Attributes
    ----------
    toggled : Signal
        The grid went on or off, here or by napari's own button.
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
        """Switch the grid on, one layer to a cell, or off; what is in view stays in view."""
        viewer = self._viewer()
        if viewer is None or enabled == self.enabled:
            return
        if enabled:
            viewer.canvas.grid.stride = 1
        viewer.canvas.grid.enabled = enabled

    def fit(self) -> None:
        """Zoom so that smaller or larger cells show what the former ones showed."""
        viewer = self._viewer()
        if viewer is None:
            return
        cells = max(viewer.canvas.grid.actual_shape(viewer.layers))
        if cells != self._cells:
            viewer.scene.camera.zoom *= self._cells / cells
            self._cells = cells

    def fit_titles(self, layers: Sequence[Any]) -> None:
        """Write titles in letters that a cell has room for, the fewer cells beside each other the larger."""
        viewer = self._viewer()
        if viewer is None:
            return
        columns = viewer.canvas.grid.actual_shape(viewer.layers)[1] if self.enabled else 1
        size = _NARROW_TITLE if columns > _WIDE_COLUMNS else _TITLE
        for layer in layers:
            if layer.name_overlay.font_size != size:
                layer.name_overlay.font_size = size

    def make_opaque(self, layers: Sequence[Any]) -> None:
        """Make layers opaque until the grid goes off; an opacity that is chosen meanwhile stays.

        In a cell of its own a layer has nothing to shine through, and only an opaque one has the colours of
        its bar.
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
