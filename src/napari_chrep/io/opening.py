"""Open a file or folder that the user chose in this plugin, and the menu commands for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari.layers import Layer
from napari.utils.notifications import show_error
from napari.viewer import Viewer
from qtpy.QtWidgets import QApplication, QFileDialog

from chrep_model.errors import ChrepError
from chrep_model.slides.slide import open_slide
from napari_chrep.canvas.slide_layer import slide_layer_data
from napari_chrep.io.reader import reader_of
from napari_chrep.io.refusals import is_ours
from napari_chrep.ui.docks import PLUGIN, show_dock


def open_path(viewer: Any, path: Path) -> None:
    """Open a slide, a bundle or a prediction; errors are shown to the user."""
    try:
        if path.exists() and (reader_of([path]) is not None or is_ours(path)):
            viewer.open(path, plugin=PLUGIN)
        else:  # a plain TIFF, which the reader leaves to other plugins, or an error
            viewer.layers.append(Layer.create(*slide_layer_data(open_slide(path))))
    except ChrepError as error:
        show_error(error.short)


def open_file(viewer: Viewer) -> None:
    """Ask for a file and open it."""
    path, _ = QFileDialog.getOpenFileName(QApplication.activeWindow(), "Open a slide or a prediction")
    if path:
        open_path(viewer, Path(path))


def open_folder(viewer: Viewer) -> None:
    """Ask for a folder and open it, without napari's dialog that asks for a plugin."""
    title = "Open the folder of a slide, a model or a prediction"
    path = QFileDialog.getExistingDirectory(QApplication.activeWindow(), title)
    if path:
        open_path(viewer, Path(path))


def predict_view(viewer: Viewer) -> None:
    """Click the explorer's button that predicts the view; the explorer shows what is missing for it."""
    _explorer(viewer).run.predict_view.click()


def predict_tissue(viewer: Viewer) -> None:
    """Click the explorer's button that predicts the tissue; the explorer shows what is missing for it."""
    _explorer(viewer).run.predict_tissue.click()


def _explorer(viewer: Any) -> Any:
    return show_dock(viewer, "Slide explorer")
