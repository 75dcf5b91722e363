"""The widget of the slide explorer, made of its three panels."""

from __future__ import annotations

from typing import Any

from napari_chrep.background.prediction_engine import PredictionEngine
from napari_chrep.canvas.heatmaps import Heatmaps
from napari_chrep.explorer.model_panel import ModelPanel
from napari_chrep.explorer.run_panel import RunPanel
from napari_chrep.explorer.slide_panel import SlidePanel
from napari_chrep.state.viewers import kept_for, unwrapped
from napari_chrep.ui.widgets import ScrollingWidget


class ExplorerWidget(ScrollingWidget):
    """Widget to choose a bundle and a slide, and to predict the view or the whole tissue."""

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer)
        viewer = unwrapped(napari_viewer)
        self.engine = kept_for(viewer, PredictionEngine)
        kept_for(viewer, Heatmaps)  # creates the object that shows predictions as maps
        self.model = ModelPanel(viewer)
        self.slide = SlidePanel(viewer)
        self.run = RunPanel(viewer)
        column = self.add_column(10)
        for panel in (self.model, self.slide, self.run):
            column.addWidget(panel)
        column.addStretch(1)
        self.connections.add(self.engine.state_changed, self._on_state)

    def _on_state(self, state: str) -> None:
        if state != "idle":
            self.scroll_area.ensureWidgetVisible(self.run.cancel)  # the button needed during a run
