"""Tables of rows: titles and tool tips, and the selection when other rows are shown."""

from __future__ import annotations

import pytest
from qtpy.QtCore import QModelIndex, Qt

from napari_chrep.ui.tables import RIGHT, Cell, Column, RowTable, TextModel


@pytest.fixture
def table(qtbot):
    made = RowTable(TextModel([Column("Gene", "A gene"), Column("Value")]), 30)
    qtbot.addWidget(made)
    made.model().set_rows([[Cell("CD3E", "T cells"), Cell("1.5")], [Cell("ERBB2"), Cell("0.2")]])
    return made


def test_cells_and_headers_say_what_they_were_given(table):
    model, across = table.model(), Qt.Orientation.Horizontal
    assert (model.rowCount(), model.columnCount()) == (2, 2)
    assert model.rowCount(model.index(0, 0)) == 0  # a table, not a tree
    assert [model.headerData(column, across) for column in (0, 1)] == ["Gene", "Value"]
    assert model.headerData(0, across, Qt.ItemDataRole.ToolTipRole) == "A gene"
    assert model.headerData(0, Qt.Orientation.Vertical) is None
    assert model.index(0, 0).data() == "CD3E" and model.index(1, 1).data() == "0.2"
    assert model.index(0, 0).data(Qt.ItemDataRole.ToolTipRole) == "T cells"
    role = Qt.ItemDataRole.TextAlignmentRole
    alignments = [model.data(model.index(0, column), role) for column in (0, 1)]
    assert alignments == [None, RIGHT]


def test_rows_have_the_height_they_were_given(table):
    assert [table.rowHeight(row) for row in (0, 1)] == [30, 30]


def test_a_selected_row_stays_selected_while_there_are_as_many(table):
    table.select_one()
    table.selectRow(1)
    table.model().set_rows([[Cell("CD4"), Cell("1")], [Cell("MS4A1"), Cell("2")]])
    assert table.currentIndex().data() == "MS4A1"
    assert [index.row() for index in table.selectionModel().selectedRows()] == [1]
    table.model().set_rows([[Cell("CD4"), Cell("1")]])
    assert table.currentIndex() == QModelIndex() and not table.selectionModel().hasSelection()
