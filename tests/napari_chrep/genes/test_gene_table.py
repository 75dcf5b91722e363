"""The table of genes: filter, sort, grey, stars."""

from __future__ import annotations

import math
import time

import pytest
from qtpy.QtCore import Qt

from napari_chrep.genes.gene_table import ACCURACY, FAVOURITE, GENE, MORAN, Gene, GeneModel

DOWN = Qt.SortOrder.DescendingOrder


def table_of(*genes):
    table = GeneModel()
    table.set_genes([Gene(gene) if isinstance(gene, str) else gene for gene in genes])
    return table


def test_names_that_begin_with_it_come_first(qtbot):
    genes = table_of("COL1A1", "COL3A1", "PCOLCE", "ERBB2", "col6a1")
    genes.set_needle("col")
    assert genes.names() == ["COL1A1", "COL3A1", "col6a1", "PCOLCE"]
    genes.set_needle("a1")
    assert genes.names() == ["COL1A1", "COL3A1", "col6a1"]
    genes.set_needle("")
    assert genes.names() == ["COL1A1", "COL3A1", "PCOLCE", "ERBB2", "col6a1"]
    genes.set_needle("xyz")
    assert genes.names() == []


def test_twenty_thousand_genes_keep_up_with_typing(qtbot):
    genes = GeneModel()
    others = [(f"ALIAS{i}", f"ENSG{i:011d}") for i in range(20_000)]
    genes.set_genes([Gene(f"G{i:05d}A", i / 20_000, others=others[i]) for i in range(20_000)])
    genes.sort(ACCURACY, DOWN)
    start = time.perf_counter()
    for needle in ("g", "g0", "g01", "g0", "g", ""):
        genes.set_needle(needle)
    assert (time.perf_counter() - start) / 6 < 0.5


def test_other_names_are_found_and_told(qtbot):
    genes = table_of(
        Gene("EREG"), Gene("ESR1", others=("ER", "ENSG00000091831")), Gene("HER2X"),
        Gene("ERBB2", others=("HER2", "NEU", "MLN-HER")), Gene("SERPINA1"),
    )  # fmt: skip

    def listed(needle):
        genes.set_needle(needle)
        return [genes.index(row, GENE).data() for row in range(genes.rowCount())]

    assert listed("er") == ["ESR1 (ER)", "EREG", "ERBB2", "HER2X", "SERPINA1"]
    assert listed("her") == ["HER2X", "ERBB2 (HER2)"]
    assert listed("her2") == ["ERBB2 (HER2)", "HER2X"]
    assert listed("ensg00000091831") == ["ESR1 (ENSG00000091831)"]
    assert listed("") == ["EREG", "ESR1", "HER2X", "ERBB2", "SERPINA1"]
    assert "Also HER2, NEU" in genes.index(3, GENE).data(Qt.ItemDataRole.ToolTipRole)


def test_how_much_a_gene_varies_in_space(qtbot):
    genes = table_of("A", "B", "C", "D")
    genes.sort(MORAN, DOWN)

    def column():
        return [genes.index(row, MORAN).data() for row in range(4)]

    assert column() == [""] * 4
    genes.set_moran({"A": -0.024, "B": 0.5}, complete=False)
    assert column() == ["−0.02", "0.50", "", ""]  # nothing moves under the mouse
    genes.set_moran({"A": -0.024, "B": 0.5, "C": math.nan, "D": 0.9}, complete=True)
    assert genes.names() == ["D", "B", "A", "C"]
    assert column() == ["0.90", "0.50", "−0.02", "–"]
    tip = genes.headerData(MORAN, Qt.Orientation.Horizontal, Qt.ItemDataRole.ToolTipRole)
    assert "predicted map" in tip and "neighbouring tiles" in tip


@pytest.fixture
def measured(qtbot):
    return table_of(
        Gene("COL1A1", 0.5), Gene("ERBB2", 0.8), Gene("PCOLCE", math.nan), Gene("COL3A1", 0.1, False)
    )


def test_sorted_by_accuracy_and_what_begins_with_it_stays_on_top(measured):
    measured.sort(ACCURACY, DOWN)
    assert measured.names() == ["ERBB2", "COL1A1", "COL3A1", "PCOLCE"]
    measured.set_needle("co")
    assert measured.names() == ["COL1A1", "COL3A1", "PCOLCE"]
    measured.sort(GENE, DOWN)
    assert measured.names() == ["COL3A1", "COL1A1", "PCOLCE"]
    measured.set_needle("")
    measured.set_favourites(["PCOLCE"])
    assert measured.names() == ["PCOLCE", "ERBB2", "COL3A1", "COL1A1"]  # nothing moves under the mouse
    measured.sort(FAVOURITE, DOWN)
    assert measured.names()[0] == "PCOLCE"
    first = measured.headerData(ACCURACY, Qt.Orientation.Horizontal, Qt.ItemDataRole.InitialSortOrderRole)
    assert first == DOWN


def test_what_a_row_says(measured):
    rows = [[measured.index(row, column).data() for column in range(4)] for row in range(4)]
    assert rows == [
        ["COL1A1", "0.50", "", "☆"],
        ["ERBB2", "0.80", "", "☆"],
        ["PCOLCE", "–", "", "☆"],
        ["COL3A1", "0.10", "", "☆"],
    ]
    greyed = [measured.index(row, GENE).data(Qt.ItemDataRole.ForegroundRole) is not None for row in range(4)]
    assert greyed == [False, False, False, True]
    tips = [measured.index(row, GENE).data(Qt.ItemDataRole.ToolTipRole) for row in range(4)]
    assert "0.80" in tips[1] and "does not say" in tips[2] and "Cannot be predicted" in tips[3]
