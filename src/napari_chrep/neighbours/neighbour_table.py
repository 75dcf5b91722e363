"""Show the training spots that a tile's value comes from in a table, one row each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QModelIndex, QObject, QSize, Qt
from qtpy.QtGui import QPixmap

from chrep_model.analysis.explanation import Neighbour
from napari_chrep.neighbours.arithmetic import number
from napari_chrep.neighbours.tile_panel import pixmap
from napari_chrep.ui.tables import RIGHT, Column, RowModel, RowTable

#: Number of neighbours that are listed until the user asks for all.
FIRST = 12
#: Side length of a neighbour's picture and height of its row, in pixels.
PICTURE_PX, ROW_PX = 48, 52

_COLUMNS = (
    Column("Training spot", "Section and patient; double click opens the section at this spot"),
    Column("Similar", "Cosine to the tile, in the space in which the model compares tissue"),
    Column("Weight", "Share in the neighbours' mean"),
    Column("Value", "What was measured of the gene at this spot, log10-spot"),
)


class NeighbourModel(RowModel):
    """Table model of the neighbours; their pictures are added as they are read."""

    columns = _COLUMNS
    rows: Sequence[Neighbour]

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.shared: frozenset[int] = frozenset()
        self._pictures: dict[int, QPixmap] = {}

    def set_neighbours(self, neighbours: tuple[Neighbour, ...]) -> None:
        """Set the neighbours; pictures of neighbours that are still listed are kept."""
        self.beginResetModel()
        self.rows = neighbours
        rows = {n.row for n in neighbours}
        self._pictures = {row: picture for row, picture in self._pictures.items() if row in rows}
        self.endResetModel()

    def set_shared(self, rows: frozenset[int]) -> None:
        """Mark the neighbours that the pinned tile also has, by their rows in the gallery."""
        if rows != self.shared:
            self.shared = rows
            self.refresh_columns(0, 0)

    def set_picture(self, row: int, picture: npt.NDArray[np.uint8]) -> None:
        """Set the picture of the neighbour with this row in the gallery."""
        self._pictures[row] = pixmap(picture, PICTURE_PX)
        for place, neighbour in enumerate(self.rows):
            if neighbour.row == row:
                index = self.index(place, 0)
                self.dataChanged.emit(index, index, [Qt.ItemDataRole.DecorationRole])

    def forget_pictures(self) -> None:
        """Drop all pictures, for example because the gallery changed."""
        self._pictures.clear()

    @property
    def pictures(self) -> int:
        """Number of pictures that are set."""
        return len(self._pictures)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return a cell's content for a role."""
        neighbour, column = self.rows[index.row()], index.column()
        if role == Qt.ItemDataRole.DisplayRole:
            mark = "\nshared" if column == 0 and neighbour.row in self.shared else ""
            return _text(neighbour, column) + mark
        if role == Qt.ItemDataRole.TextAlignmentRole and column > 0:
            return RIGHT
        if role == Qt.ItemDataRole.DecorationRole and column == 0:
            return self._pictures.get(neighbour.row)
        if role == Qt.ItemDataRole.ToolTipRole:
            x, y = (value / 1000 for value in neighbour.position_um)
            return (
                f"{neighbour.section}, {neighbour.patient}: x {x:.2f}, y {y:.2f} mm. {_COLUMNS[column].tip}"
            )
        return None


def _text(neighbour: Neighbour, column: int) -> str:
    if column == 0:
        return f"{neighbour.section}\n{neighbour.patient}"
    if column == 1:
        return f"{neighbour.similarity:.3f}"
    if column == 2:
        return "–" if neighbour.weight is None else f"{neighbour.weight:.1%}"
    return "not measured" if neighbour.measured is None else number(neighbour.measured)


class NeighbourTable(RowTable):
    """Table view of the neighbours."""

    def __init__(self) -> None:
        self.listed = NeighbourModel()
        super().__init__(self.listed, ROW_PX)
        self.select_one()
        self.scroll_smoothly()
        self.setIconSize(QSize(PICTURE_PX, PICTURE_PX))
        self.setMinimumSize(300, 5 * ROW_PX)
