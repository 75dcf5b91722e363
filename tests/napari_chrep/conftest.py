"""A real viewer with the real widgets, a tiny real bundle, and slides to predict on."""

from __future__ import annotations

import gc
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.settings import get_plugin_settings
from npe2 import PluginManifest
from PIL import Image
from qtpy.QtCore import QMimeData, QPoint, QPointF, QSettings, Qt, QTimer, QUrl
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QApplication, QDialog, QPushButton, QRadioButton

from chrep_model.bundle import load_bundle
from chrep_model.prediction.predictor import Predictor
from chrep_model.progress import SILENT
from napari_chrep.background.prediction_engine import PredictionEngine
from napari_chrep.canvas.heatmaps import Heatmaps
from napari_chrep.state.session import Session
from napari_chrep.state.viewers import kept_for
from napari_chrep.ui.docks import show_dock

# Generous: several people share the machine that runs the tests.
TIMEOUT_MS = 60_000


class UnhurriedPredictor(Predictor):
    """The real predictor, pausing after each batch: else a tiny run is over before a test can stop it."""

    def stream(self, context, indices, *, progress=SILENT):
        for part in super().stream(context, indices, progress=progress):
            yield part
            time.sleep(0.05)


class Desk:
    """A viewer, its widgets, and the waiting that tests need."""

    def __init__(self, viewer: Any, qtbot: Any) -> None:
        self.viewer, self.qtbot = viewer, qtbot
        self.session, self.engine = kept_for(viewer, Session), kept_for(viewer, PredictionEngine)
        self.heatmaps = kept_for(viewer, Heatmaps)

    def dock(self, name: str) -> Any:
        """Open a widget as the Plugins menu does."""
        return show_dock(self.viewer, name)

    def open(self, path: Path) -> Any:
        """Open a slide with the plugin's reader, and look at it."""
        (layer,) = self.viewer.open(path, plugin="napari-chrep")
        self.session.set_slide_layer(layer)
        return layer

    def drop(self, path: Path, reader: str = "CHRep") -> None:
        """Drop a path on the window; of the readers that napari may then offer, this one is chosen."""

        def choose() -> None:
            dialog = QApplication.activeModalWidget()
            if not isinstance(dialog, QDialog):  # not yet
                return
            timer.stop()
            (chosen,) = [b for b in dialog.findChildren(QRadioButton) if b.text() == reader]
            chosen.click()
            next(b for b in dialog.findChildren(QPushButton) if b.text().replace("&", "") == "OK").click()

        mime = QMimeData()
        mime.setUrls([QUrl.fromLocalFile(str(path))])
        copy, left, none = Qt.DropAction.CopyAction, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
        window = self.viewer.window._qt_viewer
        timer = QTimer()
        timer.timeout.connect(choose)
        timer.start(100)
        QApplication.sendEvent(window, QDragEnterEvent(QPoint(20, 20), copy, mime, left, none))
        QApplication.sendEvent(window, QDropEvent(QPointF(20, 20), copy, mime, left, none))
        timer.stop()

    def load(self, bundle: Path) -> None:
        self.engine.load_bundle(bundle)
        self.wait()

    def wait(self) -> None:
        """Wait until nothing is under way."""
        self.qtbot.waitUntil(lambda: self.engine.state == "idle", timeout=TIMEOUT_MS)

    def prepare(self, bundle: Path, batch_size: int) -> None:
        """Make the session ready with small and unhurried batches, so that there is time to stop."""
        self.load(bundle)
        predictor = UnhurriedPredictor(self.session.bundle, batch_size=batch_size)
        self.session.set_slide_context(predictor, predictor.prepare(self.session.slide))


@pytest.fixture(autouse=True, scope="module")
def _old_objects_stay():
    """napari collects garbage after every viewer: half a second, unless what is imported is left out."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _manifests_are_read_once():
    """Else `make_napari_viewer` has the manifests of all plugins read for every viewer."""
    found = list(PluginManifest.discover())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PluginManifest, "discover", lambda paths=(): iter(found))
        yield


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CHREP_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True, scope="session")
def _own_preferences(tmp_path_factory):
    get_plugin_settings(path_dir=tmp_path_factory.mktemp("preferences"))  # once, says napari


@pytest.fixture
def page():
    """The plugin's page of the preferences; as it was again after the test."""
    page = get_plugin_settings("napari-chrep")
    before = page.model_copy(deep=True)
    yield page
    for part in ("prediction", "store"):
        for key, value in getattr(before, part):
            setattr(getattr(page, part), key, value)


@pytest.fixture(autouse=True)
def _own_settings(tmp_path):
    QSettings.setPath(QSettings.Format.IniFormat, QSettings.Scope.UserScope, str(tmp_path / "settings"))


@pytest.fixture
def desk(make_napari_viewer, qtbot):
    return Desk(make_napari_viewer(), qtbot)


@pytest.fixture
def svs(shared_data):
    return shared_data / "slides" / "CMU-1-Small-Region.svs"


@pytest.fixture
def bundle(tiny_bundle):
    return load_bundle(tiny_bundle)


@pytest.fixture(scope="session")
def tissue(tiny_cohort: Path) -> np.ndarray:
    """A synthetic H&E picture, uint8 (1536, 1536, 3): a tiny section and its mirror images."""
    with Image.open(sorted(tiny_cohort.glob("*.jpg"))[0]) as image:
        quarter = np.asarray(image.convert("RGB"))
    half = np.concatenate([quarter, quarter[:, ::-1]], axis=1)
    return np.concatenate([half, half[::-1]], axis=0)


@pytest.fixture
def write_tissue(write_pyramid, tissue):
    """Write the picture as a slide: ``write_tissue(mpp=0.7, name="slide.ome.tif")``."""
    return partial(write_pyramid, tissue, mpp=0.7, levels=2)
