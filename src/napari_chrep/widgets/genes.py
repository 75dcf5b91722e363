"""The gene list: type to find, Enter to show; switching never runs the model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from qtpy.QtCore import QEvent, QModelIndex, QObject, QSize, QSortFilterProxyModel, QStringListModel, Qt
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import QHBoxLayout, QLineEdit, QListView, QPushButton, QVBoxLayout, QWidget

from chrep_model.errors import GeneError
from napari_chrep.layers import heatmaps
from napari_chrep.session import sessions
from napari_chrep.widgets._parts import Connections, heading, note, sentence

#: What the buttons of the variants say.
_VARIANT_TIPS = {
    "raw": "What the model reads from the picture alone",
    "calibrated": "The same, corrected by the most similar measured spots: the one to use",
}


class GeneFilter(QSortFilterProxyModel):
    """Genes that contain what was typed; those that begin with it come first."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._names: list[str] = []
        self._rank: list[int] = []  # 0 begins with it, 1 contains it, 2 neither
        self._needle = ""

    def set_names(self, names: Sequence[str]) -> None:
        """Take other genes, in the order in which they are listed."""
        self._names = [name.upper() for name in names]
        self._rank_all()
        self.setSourceModel(QStringListModel(list(names), self))

    def set_needle(self, text: str) -> None:
        """Filter by what was typed; case does not matter."""
        self._needle = text.strip().upper()
        self._rank_all()
        self.invalidate()
        self.sort(0 if self._needle else -1)  # the source's own order needs no sorting

    def _rank_all(self) -> None:
        # Ranked once per key, in plain Python: Qt then compares small integers instead of fetching strings.
        needle = self._needle
        self._rank = [0 if n.startswith(needle) else 1 if needle in n else 2 for n in self._names]

    def filterAcceptsRow(self, source_row: int, source_parent: QModelIndex) -> bool:  # noqa: N802
        """Tell Qt whether a row stays."""
        return self._rank[source_row] < 2

    def lessThan(self, source_left: QModelIndex, source_right: QModelIndex) -> bool:  # noqa: N802
        """Order by rank, then as listed."""
        left, right = source_left.row(), source_right.row()
        return (self._rank[left], left) < (self._rank[right], right)


class GenesWidget(QWidget):
    """Finds a gene of the current bundle and shows it, raw or calibrated.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The viewer. All widgets of one viewer share its session.
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        viewer = getattr(napari_viewer, "__wrapped__", napari_viewer)  # napari passes a proxy
        self.session, self.heatmaps = sessions.of(viewer), heatmaps.of(viewer)
        self._build()
        connections = Connections(self)
        connections.add(self.session.bundle_changed, self._on_bundle)
        connections.add(self.session.gene_changed, self._on_gene)
        connections.add(self.heatmaps.changed, self._on_heatmaps)
        self._on_bundle()
        self._on_heatmaps()

    def _build(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 8, 8, 8)
        layout.setSpacing(6)
        self.current = heading("", larger=True)
        layout.addWidget(self.current)
        self.toggles: dict[str, QPushButton] = {}
        row = QHBoxLayout()
        for variant in ("calibrated", "raw"):
            button = QPushButton(variant.capitalize())
            button.setCheckable(True)
            button.setToolTip(_VARIANT_TIPS[variant])
            button.clicked.connect(partial(self._on_toggled, variant))
            self.toggles[variant] = button
            row.addWidget(button)
        layout.addLayout(row)
        self.colours = note()
        layout.addWidget(self.colours)
        layout.addSpacing(4)
        self.search = QLineEdit()
        self.search.setPlaceholderText("Type a gene…")
        self.search.setClearButtonEnabled(True)
        self.search.textChanged.connect(self._on_typed)
        self.search.returnPressed.connect(self._on_return)
        self.search.installEventFilter(self)
        layout.addWidget(self.search)
        self.message = note()
        layout.addWidget(self.message)
        self.filter = GeneFilter(self)
        self.list = QListView()
        self.list.setUniformItemSizes(True)  # thousands of rows
        self.list.setStyleSheet("QListView::item { padding: 3px 2px; }")
        self.list.setMinimumHeight(70)
        self.list.setEditTriggers(QListView.EditTrigger.NoEditTriggers)
        self.list.setModel(self.filter)
        self.list.clicked.connect(self._on_chosen)
        self.list.installEventFilter(self)
        layout.addWidget(self.list, 1)

    def sizeHint(self) -> QSize:  # noqa: N802
        """Ask for room for a dozen genes, which the explorer can spare."""
        return QSize(280, 310)

    def minimumSizeHint(self) -> QSize:  # noqa: N802
        """Stay the same whatever is said, or the docks would jump with each message."""
        return QSize(220, 260)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:  # noqa: N802
        """Carry the arrows between the line and the list, and take Enter in the list."""
        if isinstance(event, QKeyEvent) and event.type() == QEvent.Type.KeyPress:
            key = event.key()
            if watched is self.search and key == Qt.Key.Key_Down and self.filter.rowCount():
                self.list.setFocus()
                if not self.list.currentIndex().isValid() or self.search.text():
                    self.list.setCurrentIndex(self.filter.index(0, 0))
                return True
            if watched is self.list and key == Qt.Key.Key_Up and self.list.currentIndex().row() <= 0:
                self.search.setFocus()
                return True
            if watched is self.list and key in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
                self._on_chosen(self.list.currentIndex())
                return True
        return super().eventFilter(watched, event)

    def _on_bundle(self) -> None:
        bundle = self.session.bundle
        self.filter.set_names([] if bundle is None else sorted(bundle.genes, key=str.upper))
        self.search.setEnabled(bundle is not None)
        self._on_typed(self.search.text())
        self._on_gene()

    def _on_gene(self) -> None:
        gene = self.session.gene
        self.current.setText("No gene yet" if gene is None or self.session.bundle is None else gene)
        self._select_current()

    def _select_current(self) -> None:
        for row in range(self.filter.rowCount()):
            index = self.filter.index(row, 0)
            if index.data() == self.session.gene:
                self.list.setCurrentIndex(index)
                self.list.scrollTo(index, QListView.ScrollHint.PositionAtCenter)
                return
        self.list.clearSelection()

    def _on_typed(self, text: str) -> None:
        self.filter.set_needle(text)
        bundle = self.session.bundle
        if bundle is None:
            self.message.setText("Choose a model in the slide explorer.")
        elif self.filter.rowCount() == 0:
            self._try(text.strip())  # says that it is unknown, and which names are near
        else:
            found, known = self.filter.rowCount(), len(bundle.genes)
            self.message.setText(f"{known:,} genes" if found == known else f"{found:,} of {known:,} genes")
            self.list.setCurrentIndex(self.filter.index(0, 0)) if text.strip() else self._select_current()

    def _on_return(self) -> None:
        """Show the exact match if there is one, else the first of the list."""
        text = self.search.text().strip()
        names = [self.filter.index(row, 0).data() for row in range(self.filter.rowCount())]
        exact = [name for name in names if name.upper() == text.upper()]
        self._try((exact or names or [text])[0])

    def _on_chosen(self, index: QModelIndex) -> None:
        if index.isValid():
            self._try(index.data())

    def _try(self, name: str) -> None:
        try:
            self.session.show_gene(name)
        except GeneError as error:
            self.message.setText(sentence(str(error)))

    def _on_toggled(self, variant: str, checked: bool) -> None:
        """Show one variant in place of the other, so that one click compares them."""
        self.heatmaps.show_only(variant if checked else None)

    def _on_heatmaps(self) -> None:
        limits = self.heatmaps.limits
        if limits is not None:
            self.colours.setText(f"log10-spot units, colours {limits[0]:.2f} to {limits[1]:.2f}")
        self.colours.setVisible(limits is not None)
        for variant, button in self.toggles.items():
            layer = self.heatmaps.layer(variant)
            button.setEnabled(layer is not None)
            button.setChecked(layer is not None and layer.visible)
