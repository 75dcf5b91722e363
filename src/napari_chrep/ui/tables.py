"""Qt models and views of tables with titled columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, QObject, Qt
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableView

RIGHT = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter


@dataclass(frozen=True)
class Column:
    """Title of a column, and tool tip of its header."""

    title: str
    tip: str = ""


class RowModel(QAbstractTableModel):
    """Table model of a sequence of rows; a subclass defines the `columns`, and the cells in `data`.

    Attributes
    ----------
    rows : sequence
        One object for each row of the table.
    """

    columns: Sequence[Column] = ()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.rows: Sequence[Any] = []

    def rowCount(self, parent: QModelIndex | None = None) -> int:  # noqa: N802
        """Return the number of rows."""
        return 0 if parent is not None and parent.isValid() else len(self.rows)

    def columnCount(self, parent: QModelIndex | None = None) -> int:  # noqa: N802
        """Return the number of columns."""
        return 0 if parent is not None and parent.isValid() else len(self.columns)

    def headerData(  # noqa: N802
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        """Return the titles and tool tips of the columns."""
        if orientation != Qt.Orientation.Horizontal:
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return self.columns[section].title
        return self.columns[section].tip if role == Qt.ItemDataRole.ToolTipRole else None

    def refresh_columns(self, first: int, last: int) -> None:
        """Tell the view that the cells between two columns have changed."""
        if self.rows:
            self.dataChanged.emit(self.index(0, first), self.index(len(self.rows) - 1, last))


class RowTable(QTableView):
    """Table view of rows of one height, without a grid; the first column fills the free width.

    Parameters
    ----------
    model : RowModel
        Model of the rows; the view becomes its parent.
    row_px : int, optional
        Height of a row in pixels; by default that of the text and `padding`.
    padding : int
        Pixels added to the height of the text.
    """

    def __init__(self, model: RowModel, row_px: int | None = None, *, padding: int = 6) -> None:
        super().__init__()
        model.setParent(self)
        self.setModel(model)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setShowGrid(False)
        down, across = self.verticalHeader(), self.horizontalHeader()
        assert down is not None and across is not None  # noqa: S101  (a table view has both)
        self.down, self.across = down, across
        down.hide()
        down.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        down.setDefaultSectionSize(row_px or down.fontMetrics().height() + padding)
        across.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        across.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        across.setHighlightSections(False)

    def select_one(self) -> None:
        """Let the user select one row at a time."""
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)

    def scroll_smoothly(self) -> None:
        """Scroll by pixels and only vertically, and shorten long names in the middle."""
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)  # names of sections often differ at the end


@dataclass(frozen=True)
class Cell:
    """Text of a cell, and its tool tip."""

    text: str
    tip: str = ""


class TextModel(RowModel):
    """Table model of rows of `Cell`; all columns but the first are aligned to the right."""

    def __init__(self, columns: Sequence[Column]) -> None:
        super().__init__()
        self.columns = columns

    def set_rows(self, rows: Sequence[Sequence[Cell]]) -> None:
        """Replace the rows; if their number is the same, the selection stays."""
        if len(rows) == len(self.rows):
            self.rows = rows
            self.refresh_columns(0, len(self.columns) - 1)
            return
        self.beginResetModel()
        self.rows = rows
        self.endResetModel()

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return a cell's text, tool tip or alignment."""
        cell: Cell = self.rows[index.row()][index.column()]
        if role == Qt.ItemDataRole.DisplayRole:
            return cell.text
        if role == Qt.ItemDataRole.ToolTipRole:
            return cell.tip
        return RIGHT if role == Qt.ItemDataRole.TextAlignmentRole and index.column() else None
