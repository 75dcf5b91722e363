"""The table of training spots behind a value, one row each."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QAbstractTableModel, QModelIndex, QObject, QSize, Qt
from qtpy.QtGui import QPixmap
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableView

from chrep_model.analysis.explanation import Neighbour
from napari_chrep.neighbours.arithmetic import number
from napari_chrep.neighbours.tile_panel import pixmap

#: So many neighbours are listed before the user asks for all.
FIRST = 12
#: Side of a neighbour's picture, and height of its row, in pixels.
PICTURE_PX, ROW_PX = 48, 52

_TITLES = ("Training spot", "Similar", "Weight", "Value")
_TIPS = (
    "Section and patient; double click opens the section at this spot",
    "Cosine to the tile, in the space in which the model compares tissue",
    "Share in the neighbours' mean",
    "What was measured of the gene at this spot, log10-spot",
)
_RIGHT = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter


class NeighbourModel(QAbstractTableModel):
    """Table model of the neighbours, with their pictures as they arrive."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.neighbours: tuple[Neighbour, ...] = ()
        self.shared: frozenset[int] = frozenset()
        self._pictures: dict[int, QPixmap] = {}

    def set_neighbours(self, neighbours: tuple[Neighbour, ...]) -> None:
        """Set the neighbours; pictures of those that stay are kept."""
        self.beginResetModel()
        self.neighbours = neighbours
        rows = {n.row for n in neighbours}
        self._pictures = {row: picture for row, picture in self._pictures.items() if row in rows}
        self.endResetModel()

    def set_shared(self, rows: frozenset[int]) -> None:
        """Mark the neighbours that the pinned tile has too."""
        if rows != self.shared:
            self.shared = rows
            self.dataChanged.emit(self.index(0, 0), self.index(max(len(self.neighbours) - 1, 0), 0))

    def set_picture(self, row: int, picture: npt.NDArray[np.uint8]) -> None:
        """Set the picture of the neighbour at this row of the gallery."""
        self._pictures[row] = pixmap(picture, PICTURE_PX)
        for place, neighbour in enumerate(self.neighbours):
            if neighbour.row == row:
                index = self.index(place, 0)
                self.dataChanged.emit(index, index, [Qt.ItemDataRole.DecorationRole])

    def forget_pictures(self) -> None:
        """Drop all pictures, because the gallery is another one now."""
        self._pictures.clear()

    @property
    def pictures(self) -> int:
        """Number of pictures present."""
        return len(self._pictures)

    def rowCount(self, parent: QModelIndex = QModelIndex()) -> int:  # noqa: B008, N802
        """Return the number of neighbours."""
        return 0 if parent.isValid() else len(self.neighbours)

    def columnCount(self, parent: QModelIndex = QModelIndex()) -> int:  # noqa: B008, N802
        """Return the number of columns."""
        return 0 if parent.isValid() else len(_TITLES)

    def headerData(  # noqa: N802
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        """Return the titles of the columns."""
        if orientation != Qt.Orientation.Horizontal:
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return _TITLES[section]
        if role == Qt.ItemDataRole.ToolTipRole:
            return _TIPS[section]
        return None

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return a cell's content for a role."""
        neighbour, column = self.neighbours[index.row()], index.column()
        if role == Qt.ItemDataRole.DisplayRole:
            mark = "\nshared" if column == 0 and neighbour.row in self.shared else ""
            return _text(neighbour, column) + mark
        if role == Qt.ItemDataRole.TextAlignmentRole and column > 0:
            return _RIGHT
        if role == Qt.ItemDataRole.DecorationRole and column == 0:
            return self._pictures.get(neighbour.row)
        if role == Qt.ItemDataRole.ToolTipRole:
            x, y = (value / 1000 for value in neighbour.position_um)
            return f"{neighbour.section}, {neighbour.patient}: x {x:.2f}, y {y:.2f} mm. {_TIPS[column]}"
        return None


def _text(neighbour: Neighbour, column: int) -> str:
    if column == 0:
        return f"{neighbour.section}\n{neighbour.patient}"
    if column == 1:
        return f"{neighbour.similarity:.3f}"
    if column == 2:
        return "–" if neighbour.weight is None else f"{neighbour.weight:.1%}"
    return "not measured" if neighbour.measured is None else number(neighbour.measured)


class NeighbourTable(QTableView):
    """Table view of the neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.listed = NeighbourModel(self)
        self.setModel(self.listed)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setShowGrid(False)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)  # names of sections often differ at the end
        self.setWordWrap(True)
        self.setIconSize(QSize(PICTURE_PX, PICTURE_PX))
        self.setMinimumSize(300, 5 * ROW_PX)
        down, across = self.verticalHeader(), self.horizontalHeader()
        assert down is not None and across is not None  # noqa: S101  (a table view has both)
        down.hide()
        down.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        down.setDefaultSectionSize(ROW_PX)
        across.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        across.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        across.setHighlightSections(False)
