"""Finding a gene by typing, with real key events."""

from __future__ import annotations

import time

import pytest
from qtpy.QtCore import Qt

from napari_chrep.widgets.genes import GeneFilter


def names(filter_model):
    return [filter_model.index(row, 0).data() for row in range(filter_model.rowCount())]


def test_names_that_begin_with_it_come_first(qtbot):
    genes = GeneFilter()
    genes.set_names(["COL1A1", "COL3A1", "PCOLCE", "ERBB2", "col6a1"])
    genes.set_needle("col")
    assert names(genes) == ["COL1A1", "COL3A1", "col6a1", "PCOLCE"]
    genes.set_needle("a1")
    assert names(genes) == ["COL1A1", "COL3A1", "col6a1"]
    genes.set_needle("")
    assert names(genes) == ["COL1A1", "COL3A1", "PCOLCE", "ERBB2", "col6a1"]
    genes.set_needle("xyz")
    assert names(genes) == []


def test_twenty_thousand_genes_keep_up_with_typing(qtbot):
    genes = GeneFilter()
    genes.set_names([f"G{i:05d}A" for i in range(20_000)])
    start = time.perf_counter()
    for needle in ("g", "g0", "g01", "g0", "g", ""):
        genes.set_needle(needle)
    assert (time.perf_counter() - start) / 6 < 0.5


@pytest.fixture
def genes(desk, tiny_bundle):
    widget = desk.dock("Genes")
    desk.load(tiny_bundle)
    return widget


def test_type_and_enter_shows_the_first_match(genes, desk, qtbot):
    wanted = desk.session.bundle.genes[7]
    qtbot.keyClicks(genes.search, wanted[:2].lower())
    first = genes.filter.index(0, 0).data()
    assert first.upper().startswith(wanted[:2].upper())
    qtbot.keyClick(genes.search, Qt.Key.Key_Return)
    assert desk.session.gene == first
    assert genes.current.text() == first


def test_a_whole_name_beats_a_longer_one_that_begins_with_it(genes, desk, qtbot):
    wanted = desk.session.bundle.genes[9]
    qtbot.keyClicks(genes.search, wanted.lower())
    qtbot.keyClick(genes.search, Qt.Key.Key_Return)
    assert desk.session.gene == wanted


def test_down_goes_into_the_list_and_enter_picks(genes, desk, qtbot):
    listed = names(genes.filter)
    qtbot.keyClicks(genes.search, listed[0][0])
    among = names(genes.filter)
    qtbot.keyClick(genes.search, Qt.Key.Key_Down)
    qtbot.keyClick(genes.list, Qt.Key.Key_Down)
    qtbot.keyClick(genes.list, Qt.Key.Key_Return)
    assert desk.session.gene == among[min(1, len(among) - 1)]


def test_an_unknown_gene_names_the_nearest(genes, desk, qtbot):
    known = desk.session.gene
    qtbot.keyClicks(genes.search, known + "QQ")
    assert known in genes.message.text()
    qtbot.keyClick(genes.search, Qt.Key.Key_Return)
    assert desk.session.gene == known


def test_the_buttons_show_one_variant_or_none(genes, desk, qtbot, write_tissue):
    calibrated, raw = genes.toggles["calibrated"], genes.toggles["raw"]
    assert not calibrated.isEnabled() and not raw.isEnabled()
    desk.open(write_tissue())
    desk.engine.predict(None)
    desk.wait()
    qtbot.waitUntil(lambda: calibrated.isEnabled(), timeout=5000)
    shown = {v: desk.heatmaps.layer(v) for v in ("raw", "calibrated")}
    assert calibrated.isChecked() and not raw.isChecked()
    qtbot.mouseClick(raw, Qt.MouseButton.LeftButton)
    assert shown["raw"].visible and not shown["calibrated"].visible
    assert raw.isChecked() and not calibrated.isChecked()
    qtbot.mouseClick(raw, Qt.MouseButton.LeftButton)
    assert not shown["raw"].visible and not shown["calibrated"].visible
    shown["calibrated"].visible = True  # from napari's layer list
    assert calibrated.isChecked()
