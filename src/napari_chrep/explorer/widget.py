"""The slide explorer: pick a model, look at a slide, predict what is in view."""

from __future__ import annotations

from typing import Any

from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_chrep.background.engine import Engine
from napari_chrep.canvas.heatmaps import Heatmaps
from napari_chrep.explorer.model_panel import ModelPanel
from napari_chrep.explorer.run_panel import RunPanel
from napari_chrep.explorer.slide_panel import SlidePanel
from napari_chrep.state.session import Session
from napari_chrep.state.viewers import kept_for, unwrapped
from napari_chrep.ui.parts import Connections, Scrolling


class ExplorerWidget(QWidget):
    """Picks a bundle and a slide, and predicts the view or the whole tissue.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The viewer. All widgets of one viewer share its session.
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        viewer = unwrapped(napari_viewer)
        self.session, self.engine = kept_for(viewer, Session), kept_for(viewer, Engine)
        kept_for(viewer, Heatmaps)  # from here on, predictions show
        self.model = ModelPanel(viewer)
        self.slide = SlidePanel(viewer)
        self.run = RunPanel(viewer)
        content = QWidget()
        column = QVBoxLayout(content)
        column.setContentsMargins(8, 8, 8, 8)
        column.setSpacing(10)
        for panel in (self.model, self.slide, self.run):
            column.addWidget(panel)
        column.addStretch(1)
        self._scroll = Scrolling(content)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._scroll)
        Connections(self).add(self.engine.state_changed, self._on_state)

    def _on_state(self, state: str) -> None:
        if state != "idle":
            self._scroll.ensureWidgetVisible(self.run.cancel)  # the one button that is needed now
