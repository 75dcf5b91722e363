"""Panel to choose the slide, which shows its size, its scale and warnings about it."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

from napari.utils.notifications import show_error
from qtpy.QtCore import QFileSystemWatcher
from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QHBoxLayout,
    QLabel,
    QMenu,
    QPushButton,
    QVBoxLayout,
    QWidget,
)
from superqt.utils import QSignalThrottler

from chrep_model.errors import ChrepError
from napari_chrep.canvas.slide_layer import SHOWN_KEY
from napari_chrep.canvas.slide_pixels import SlidePixels
from napari_chrep.canvas.viewport import show_scale_bar
from napari_chrep.explorer.advice import advice
from napari_chrep.explorer.banner import Banners
from napari_chrep.explorer.slide_properties import SlideProperties
from napari_chrep.io.opening import open_file, open_folder
from napari_chrep.state.session import Session, slide_of
from napari_chrep.state.settings import REMEMBERED, remember_scale
from napari_chrep.state.viewers import kept_for
from napari_chrep.ui.parts import Connections, heading, note

_SOURCES = {"file": "from file", "user": "typed in", "cohort": "from cohort", REMEMBERED: "remembered"}

#: Shortest time between two updates of the warnings during a prediction, in milliseconds.
_ADVICE_MS = 1000


class SlidePanel(QWidget):
    """Panel to choose a slide among the layers, enter its scale if the file has none, and see warnings.

    Parameters
    ----------
    viewer : napari.Viewer
        Only a weak reference is kept.
    """

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self._viewer = weakref.ref(viewer)
        self.session = session = kept_for(viewer, Session)
        self._shown: SlidePixels | None = None
        self._watcher = QFileSystemWatcher(self)
        self._watcher.fileChanged.connect(self._on_file)
        self._watcher.directoryChanged.connect(self._on_file)
        self._throttle = QSignalThrottler(parent=self)
        self._throttle.setTimeout(_ADVICE_MS)
        self._throttle.triggered.connect(self._advise)
        self._build()
        self._connections = connections = Connections(self)
        connections.add(viewer.layers.events.inserted, self._on_inserted)
        connections.add(viewer.layers.events.removed, self._on_removed)
        connections.add(session.slide_changed, self._on_slide)
        connections.add(session.bundle_changed, self._advise)
        connections.add(session.prediction_changed, self._advise)
        connections.add(session.prediction_grew, self._throttle.throttle)
        slides = self._slide_layers()
        active = viewer.layers.selection.active
        if session.slide_layer is None and slides:
            session.set_slide_layer(active if active in slides else slides[-1])
        self._on_slide()

    def _build(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(heading("Slide"))
        self.picker = QComboBox()
        self.picker.setPlaceholderText("Drop a slide on the window")
        self.picker.setMinimumContentsLength(12)
        self.picker.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.picker.activated.connect(self._on_picked)
        self.browse = QPushButton("Open…")
        self.browse.setToolTip("Open a slide, a model, or a prediction")
        self.browse.setMenu(self._open_menu())
        row = QHBoxLayout()
        row.addWidget(self.picker, 1)
        row.addWidget(self.browse)
        layout.addLayout(row)

        self.details = QWidget()
        row = QHBoxLayout(self.details)
        row.setContentsMargins(2, 2, 2, 2)
        row.addWidget(QLabel("Scale"))
        self.mpp = QDoubleSpinBox()
        self.mpp.setDecimals(4)
        self.mpp.setRange(0.0, 100.0)
        self.mpp.setSingleStep(0.01)
        self.mpp.setSuffix(" µm/px")
        self.mpp.setSpecialValueText("unknown")  # shown for 0
        self.mpp.setKeyboardTracking(False)
        self.mpp.valueChanged.connect(self._on_mpp)
        row.addWidget(self.mpp, 2)
        self.source = note()
        row.addWidget(self.source, 1)
        layout.addWidget(self.details)
        self.size_note = note()
        layout.addWidget(self.size_note)
        self.properties = SlideProperties()
        layout.addWidget(self.properties)
        self.banners = Banners()
        layout.addWidget(self.banners)

    def _open_menu(self) -> QMenu:
        menu = QMenu(self)
        for text, ask, tip in (
            ("File…", open_file, "SVS, TIFF, NDPI and others; a prediction as h5ad"),
            ("Folder…", open_folder, "OME-Zarr, SpatialData, DICOM; a model; a prediction"),
        ):
            action = menu.addAction(text)
            if action is not None:
                action.setToolTip(tip)
                action.triggered.connect(partial(self._on_wanted, ask))
        menu.setToolTipsVisible(True)
        return menu

    def _slide_layers(self) -> list[Any]:
        viewer = self._viewer()
        return [] if viewer is None else [layer for layer in viewer.layers if slide_of(layer) is not None]

    def _on_inserted(self, event: Any) -> None:
        if slide_of(event.value) is not None:
            self.session.set_slide_layer(event.value)
            self._on_slide()

    def _on_removed(self, event: Any) -> None:
        if slide_of(event.value) is None:
            return
        remaining = self._slide_layers()
        if self.session.slide_layer is None and remaining:
            self.session.set_slide_layer(remaining[-1])
        self._on_slide()

    def _on_picked(self, place: int) -> None:
        self.session.set_slide_layer(self._slide_layers()[place])

    def _on_wanted(self, ask: Callable[[Any], None], _checked: bool = False) -> None:
        viewer = self._viewer()
        if viewer is not None:
            ask(viewer)

    def _on_mpp(self, value: float) -> None:
        if value <= 0:
            return
        try:
            self.session.set_mpp(value)
            if self.session.slide is not None:
                remember_scale(self.session.slide)
        except ChrepError as error:
            show_error(str(error))
            self._on_slide()
            return
        viewer = self._viewer()
        if viewer is not None:
            viewer.reset_view()  # the size of the slide in µm has changed

    def _on_slide(self) -> None:
        layers = self._slide_layers()
        self.picker.clear()
        self.picker.addItems([layer.name for layer in layers])
        current = self.session.slide_layer
        self.picker.setCurrentIndex(layers.index(current) if current in layers else -1)
        slide = self.session.slide
        self.details.setVisible(slide is not None)
        self.size_note.setVisible(slide is not None)
        self.properties.setVisible(slide is not None)
        self._watch()
        self._advise()
        if slide is None:
            return
        self.properties.describe(slide)
        mpp = slide.mpp
        self.mpp.blockSignals(True)
        self.mpp.setValue(0.0 if mpp is None else mpp.value)
        self.mpp.blockSignals(False)
        editable = mpp is None or mpp.source in ("user", REMEMBERED)
        self.mpp.setReadOnly(not editable)
        self.mpp.setButtonSymbols(
            QDoubleSpinBox.ButtonSymbols.UpDownArrows if editable else QDoubleSpinBox.ButtonSymbols.NoButtons
        )
        self.mpp.setToolTip("µm per pixel at full resolution" + ("" if editable else ", as the file says"))
        self.source.setText("type it in" if mpp is None else _SOURCES.get(mpp.source, mpp.source))
        rows, cols = slide.shape
        area = "" if mpp is None else f", {cols * mpp.value / 1000:.2f} × {rows * mpp.value / 1000:.2f} mm"
        self.size_note.setText(f"{cols:,} × {rows:,} px{area}")
        viewer = self._viewer()
        if viewer is not None and mpp is not None:
            show_scale_bar(viewer)

    def _watch(self) -> None:
        """Watch the file of the current slide for changes."""
        layer = self.session.slide_layer
        shown = None if layer is None else layer.metadata.get(SHOWN_KEY)
        if shown is self._shown:
            return
        if self._shown is not None:
            self._connections.end(self._shown.lost, self._advise)
            for path in (*self._watcher.files(), *self._watcher.directories()):
                self._watcher.removePath(path)
        self._shown = shown
        if shown is not None and self.session.slide is not None:
            self._connections.add(shown.lost, self._advise)
            self._watcher.addPath(str(self.session.slide.path))

    def _on_file(self, _path: str) -> None:
        if self._shown is not None:
            self._shown.check()

    def _advise(self) -> None:
        session = self.session
        trouble = "" if self._shown is None else self._shown.trouble
        self.banners.show_advice(advice(session.slide, session.bundle, session.prediction, trouble))
