"""The picked tile against the pinned one: pictures, values, neighbours, and the genes that differ most."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import Qt, Signal  # type: ignore[attr-defined]  # qtpy renames Qt's own
from qtpy.QtWidgets import (
    QAbstractItemView,
    QGridLayout,
    QHeaderView,
    QLabel,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from chrep_model.analysis.tile_comparison import Difference, TileComparison
from napari_chrep.neighbours.arithmetic import number, signed
from napari_chrep.neighbours.tile_panel import pixmap
from napari_chrep.ui.parts import heading, note

PICTURE_PX = 84
_TITLES = ("Gene", "Pinned", "This tile", "± 90 %")
_TIPS = (
    "Click, or Enter, shows the gene",
    "Value of the pinned tile, log10-spot",
    "Value of the picked tile, log10-spot",
    "The difference in units of the interval: beyond ±1, the intervals of the two do not explain it",
)
_RIGHT = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter


class ComparisonPanel(QWidget):
    """Shows what tells two tiles apart.

    Attributes
    ----------
    gene_chosen : Signal(str)
        The user wants to see this gene.
    """

    gene_chosen = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        column.addWidget(heading("Against the pinned tile"))
        grid = QGridLayout()
        grid.setHorizontalSpacing(8)
        grid.setVerticalSpacing(2)
        self.pictures, self.values = (QLabel(), QLabel()), (note(), note())
        for place, (title, picture, value) in enumerate(
            zip(("Pinned", "This tile"), self.pictures, self.values, strict=True)
        ):
            picture.setFixedSize(PICTURE_PX, PICTURE_PX)
            picture.setAlignment(Qt.AlignmentFlag.AlignCenter)
            grid.addWidget(QLabel(title), 0, place)
            grid.addWidget(picture, 1, place)
            grid.addWidget(value, 2, place)
            grid.setColumnStretch(place, 1)
        column.addLayout(grid)
        self.words = note()
        column.addWidget(self.words)
        self._differ = heading("Genes that differ most")
        column.addWidget(self._differ)
        self.table = _table()
        self.table.cellClicked.connect(self._on_row)
        self.table.cellActivated.connect(self._on_row)
        column.addWidget(self.table)

    def show_picture(self, place: int, picture: npt.NDArray[np.uint8] | None) -> None:
        """Show the pinned tile (0) or the picked one (1); None while it is being read."""
        if picture is None:
            self.pictures[place].clear()
            self.pictures[place].setText("…")
        else:
            self.pictures[place].setPixmap(pixmap(picture, PICTURE_PX))

    def show_comparison(self, comparison: TileComparison) -> None:
        """Say it."""
        shown = comparison.shown
        for place, (label, value) in enumerate(zip(self.values, (shown.first, shown.second), strict=True)):
            label.setText(_with_interval(value, shown, place))
        self.words.setText(f"{_in_words(shown)} {_neighbours(comparison)}")
        self._fill(comparison.most)

    def say(self, text: str) -> None:
        """Say why there is nothing to compare, or that it is being computed."""
        for label in self.values:
            label.clear()
        self.words.setText(text)
        self._fill(())

    def _fill(self, most: tuple[Difference, ...]) -> None:
        self._differ.setVisible(bool(most))
        self.table.setVisible(bool(most))
        self.table.setRowCount(len(most))
        for row, difference in enumerate(most):
            texts = (difference.gene, number(difference.first), number(difference.second), _units(difference))
            for column, text in enumerate(texts):
                item = QTableWidgetItem(text)
                item.setToolTip(_TIPS[column])
                if column:
                    item.setTextAlignment(_RIGHT)
                self.table.setItem(row, column, item)
        across = self.table.horizontalHeader()
        if across is not None:
            rows = sum(self.table.rowHeight(row) for row in range(len(most)))
            self.table.setFixedHeight(across.sizeHint().height() + rows + 2)

    def _on_row(self, row: int, _column: int) -> None:
        item = self.table.item(row, 0)
        if item is not None:
            self.gene_chosen.emit(item.text())


def _table() -> QTableWidget:
    table = QTableWidget(0, len(_TITLES))
    table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
    table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
    table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
    table.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    table.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    table.setTabKeyNavigation(False)
    table.setShowGrid(False)
    table.setMinimumWidth(260)
    down, across = table.verticalHeader(), table.horizontalHeader()
    assert down is not None and across is not None  # noqa: S101  (a table has both)
    down.hide()
    down.setDefaultSectionSize(down.fontMetrics().height() + 6)
    for column, (title, tip) in enumerate(zip(_TITLES, _TIPS, strict=True)):
        item = QTableWidgetItem(title)
        item.setToolTip(tip)
        table.setHorizontalHeaderItem(column, item)
    across.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
    across.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
    across.setHighlightSections(False)
    return table


def _with_interval(value: float, shown: Difference, place: int) -> str:
    text = number(value)
    return text if shown.half_widths is None else f"{text}\n± {number(shown.half_widths[place])}"


def _in_words(shown: Difference) -> str:
    by = signed(shown.second - shown.first)
    if shown.half_widths is None:
        return f"{shown.gene}: {by}, {_units(shown)} sd of the training spots."
    verdict = "more than their intervals explain" if abs(shown.units) > 1 else "within their intervals"
    return f"{shown.gene}: {by}, {verdict}."


def _neighbours(comparison: TileComparison) -> str:
    shared, (first, second) = len(comparison.shared), comparison.neighbours
    of = f"{first}" if first == second else f"{first} and {second}"
    return f"{shared} of {of} neighbours are shared."


def _units(difference: Difference) -> str:
    return f"{difference.units:+.1f}".replace("-", "−")
