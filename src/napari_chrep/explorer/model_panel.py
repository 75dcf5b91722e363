"""Panel to choose the model: a list of bundles, and a summary of the chosen one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from chrep_model.bundle import Bundle
from chrep_model.prediction.stored import StoredBundle
from napari_chrep.background.prediction_engine import PredictionEngine
from napari_chrep.io.samples import sample_bundles
from napari_chrep.state.session import Session
from napari_chrep.state.viewers import kept_for
from napari_chrep.ui.parts import Connections, heading, note


class ModelPanel(QWidget):
    """Panel to choose a bundle from a list or from disk.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer whose engine opens the bundle in the background.
    """

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self.session = session = kept_for(viewer, Session)
        self.engine = engine = kept_for(viewer, PredictionEngine)
        self._build()
        connections = Connections(self)
        connections.add(session.bundle_changed, self._on_bundle)
        connections.add(engine.failed, self._on_failed)
        for path in sample_bundles():
            self._offer(path)
        self.picker.setCurrentIndex(-1)
        self._on_bundle()

    def open(self, path: Path) -> None:
        """Open the bundle in a folder, and make it the current one if that succeeds."""
        self.engine.load_bundle(path)

    def _build(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(heading("Model"))
        self.picker = QComboBox()
        self.picker.setToolTip("Trained models (bundles): those of the sample data, and those opened here")
        self.picker.setMinimumContentsLength(12)
        self.picker.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.picker.activated.connect(self._on_picked)
        self.browse = QPushButton("Browse…")
        self.browse.setToolTip("Open the folder of a bundle, as `chrep train` writes it")
        self.browse.clicked.connect(self._on_browse)
        row = QHBoxLayout()
        row.addWidget(self.picker, 1)
        row.addWidget(self.browse)
        layout.addLayout(row)
        self.card = QWidget()
        grid = QGridLayout(self.card)
        grid.setContentsMargins(2, 2, 2, 2)
        grid.setHorizontalSpacing(12)
        grid.setVerticalSpacing(2)
        grid.setColumnStretch(1, 1)
        self._values = {}
        for row_number, title in enumerate(("Method", "Genes", "Accuracy", "Cohort")):
            grid.addWidget(QLabel(title), row_number, 0, Qt.AlignmentFlag.AlignTop)
            self._values[title] = note()
            grid.addWidget(self._values[title], row_number, 1)
        layout.addWidget(self.card)

    def _offer(self, path: Path) -> int:
        """Add a bundle to the list unless it is listed already; return its index."""
        place = self.picker.findData(str(path))
        if place < 0:
            self.picker.addItem(path.name, str(path))
            place = self.picker.count() - 1
        return place

    def _on_picked(self, place: int) -> None:
        self.open(Path(self.picker.itemData(place)))

    def _on_browse(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Open a bundle")
        if folder:
            self.open(Path(folder))

    def _on_failed(self, _message: str) -> None:
        self._show_current()  # the list must not show a bundle that is not in use

    def _on_bundle(self) -> None:
        self._show_current()
        bundle = self.session.bundle
        self.card.setVisible(bundle is not None)
        if bundle is None:
            return
        card = bundle.card
        self._values["Method"].setText(f"{card.method} on {card.encoder}")
        self._values["Genes"].setText(f"{len(bundle.genes):,}, in tiles of {bundle.spec.um:.0f} µm")
        self._values["Accuracy"].setText(_accuracy(bundle))
        self._values["Accuracy"].setToolTip(
            "Mean over the genes that can be predicted, on held-out sections; gene by gene in Genes"
        )
        self._values["Cohort"].setText(card.cohort)

    def _show_current(self) -> None:
        bundle = self.session.bundle
        if isinstance(bundle, StoredBundle):  # maps from a file, without a model to choose
            self.picker.setPlaceholderText(f"{bundle.path.name}, without its model")
            self.picker.setCurrentIndex(-1)
            return
        self.picker.setPlaceholderText("Choose a model…")
        self.picker.setCurrentIndex(-1 if bundle is None else self._offer(Path(bundle.path)))


def _accuracy(bundle: Bundle) -> str:
    """Return a text about the expected accuracy of a model on a new section."""
    trust = bundle.trust
    if trust is None:
        return "unknown: the model does not say"
    good = int(trust.predictable.sum())
    if not good:
        return "none of its genes can be predicted"
    mean = float(trust.accuracy[trust.predictable].mean())
    return f"correlation {mean:.2f}, {good:,} genes"
