"""Which slide: one of the viewer's slide layers, its size, and its scale with where that comes from."""

from __future__ import annotations

import weakref
from typing import Any

from napari.utils.notifications import show_error
from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from chrep_model.errors import ChrepError
from napari_chrep.session import Session, slide_of
from napari_chrep.viewport import show_scale_bar
from napari_chrep.widgets._parts import Connections, heading, note

_SOURCES = {"file": "from file", "user": "typed in", "cohort": "from cohort"}


class SlidePanel(QWidget):
    """Picks the slide among the viewer's layers, and asks for its scale when the file has none.

    Parameters
    ----------
    viewer : napari.Viewer
        Only a weak reference is kept.
    session : Session
        Whose slide it is.
    """

    def __init__(self, viewer: Any, session: Session) -> None:
        super().__init__()
        self._viewer = weakref.ref(viewer)
        self.session = session
        self._build()
        connections = Connections(self)
        connections.add(viewer.layers.events.inserted, self._on_inserted)
        connections.add(viewer.layers.events.removed, self._on_removed)
        connections.add(session.slide_changed, self._on_slide)
        slides = self._slide_layers()
        active = viewer.layers.selection.active
        if session.slide_layer is None and slides:
            session.look_at(active if active in slides else slides[-1])
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
        self.browse.setToolTip("Open a whole-slide image")
        self.browse.clicked.connect(self._on_browse)
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
        row.addWidget(self.mpp)
        self.source = note()
        row.addWidget(self.source, 1)
        layout.addWidget(self.details)
        self.size_note = note()
        layout.addWidget(self.size_note)

    def _slide_layers(self) -> list[Any]:
        viewer = self._viewer()
        return [] if viewer is None else [layer for layer in viewer.layers if slide_of(layer) is not None]

    def _on_inserted(self, event: Any) -> None:
        if slide_of(event.value) is not None:
            self.session.look_at(event.value)
            self._on_slide()

    def _on_removed(self, event: Any) -> None:
        if slide_of(event.value) is None:
            return
        remaining = self._slide_layers()
        if self.session.slide_layer is None and remaining:
            self.session.look_at(remaining[-1])
        self._on_slide()

    def _on_picked(self, place: int) -> None:
        self.session.look_at(self._slide_layers()[place])

    def _on_browse(self) -> None:
        viewer = self._viewer()
        path, _ = QFileDialog.getOpenFileName(self, "Open a slide")
        if path and viewer is not None:
            viewer.open(path, plugin="napari-chrep")

    def _on_mpp(self, value: float) -> None:
        if value <= 0:
            return
        try:
            self.session.set_mpp(value)
        except ChrepError as error:
            show_error(str(error))
            self._on_slide()
            return
        viewer = self._viewer()
        if viewer is not None:
            viewer.reset_view()  # the slide has just changed its size in the world

    def _on_slide(self) -> None:
        layers = self._slide_layers()
        self.picker.clear()
        self.picker.addItems([layer.name for layer in layers])
        current = self.session.slide_layer
        self.picker.setCurrentIndex(layers.index(current) if current in layers else -1)
        slide = self.session.slide
        self.details.setVisible(slide is not None)
        self.size_note.setVisible(slide is not None)
        if slide is None:
            return
        mpp = slide.mpp
        self.mpp.blockSignals(True)
        self.mpp.setValue(0.0 if mpp is None else mpp.value)
        self.mpp.blockSignals(False)
        editable = mpp is None or mpp.source == "user"
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
