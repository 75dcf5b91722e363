"""Compare the picked tile with the pinned one.

The comparison shows pictures, values, the number of shared neighbours, and the genes that differ most.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QModelIndex, Qt, Signal  # type: ignore[attr-defined]  # qtpy renames Qt's own
from qtpy.QtWidgets import (
    QGridLayout,
    QLabel,
    QVBoxLayout,
    QWidget,
)

from chrep_model.analysis.tile_comparison import Difference, TileComparison
from napari_chrep.neighbours.arithmetic import number, signed
from napari_chrep.neighbours.tile_panel import pixmap
from napari_chrep.ui.parts import heading, note
from napari_chrep.ui.tables import Cell, Column, RowTable, TextModel

PICTURE_PX = 84
_COLUMNS = (
    Column("Gene", "Click, or Enter, shows the gene"),
    Column("Pinned", "Value of the pinned tile, log10-spot"),
    Column("This tile", "Value of the picked tile, log10-spot"),
    Column(
        "± 90 %",
        "The difference in units of the interval: beyond ±1, the intervals of the two do not explain it",
    ),
)


class ComparisonPanel(QWidget):
    """Panel with the differences between the pinned tile and the picked one.

    Attributes
    ----------
    gene_chosen : Signal(str)
        Emitted with the name of a gene when the user chooses it in the table.
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
        self.listed = TextModel(_COLUMNS)
        self.table = RowTable(self.listed)
        self.table.select_one()
        self.table.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.table.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.table.setTabKeyNavigation(False)
        self.table.setMinimumWidth(260)
        self.table.clicked.connect(self._on_row)
        self.table.activated.connect(self._on_row)
        column.addWidget(self.table)

    def show_picture(self, place: int, picture: npt.NDArray[np.uint8] | None) -> None:
        """Show the picture of the pinned (`place` 0) or picked tile (1); None while it is being read."""
        if picture is None:
            self.pictures[place].clear()
            self.pictures[place].setText("…")
        else:
            self.pictures[place].setPixmap(pixmap(picture, PICTURE_PX))

    def show_comparison(self, comparison: TileComparison) -> None:
        """Show the values, the shared neighbours and the most different genes of two tiles."""
        shown = comparison.shown
        for place, (label, value) in enumerate(zip(self.values, (shown.first, shown.second), strict=True)):
            label.setText(_with_interval(value, shown, place))
        self.words.setText(f"{_in_words(shown)} {_neighbours(comparison)}")
        self._fill(comparison.most)

    def say(self, text: str) -> None:
        """Show a text instead of a comparison, such as the reason why there is none."""
        for label in self.values:
            label.clear()
        self.words.setText(text)
        self._fill(())

    def _fill(self, most: tuple[Difference, ...]) -> None:
        self._differ.setVisible(bool(most))
        self.table.setVisible(bool(most))
        rows = []
        for one in most:
            texts = (one.gene, number(one.first), number(one.second), _units(one))
            rows.append([Cell(text, column.tip) for text, column in zip(texts, _COLUMNS, strict=True)])
        self.listed.set_rows(rows)
        height = sum(self.table.rowHeight(row) for row in range(len(most)))
        self.table.setFixedHeight(self.table.across.sizeHint().height() + height + 2)

    def _on_row(self, index: QModelIndex) -> None:
        self.gene_chosen.emit(self.listed.rows[index.row()][0].text)


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
