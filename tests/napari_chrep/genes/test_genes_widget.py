"""Finding a gene, marking it, and showing lists of genes, with real key and mouse events."""

from __future__ import annotations

import numpy as np
import pytest
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QPoint, Qt
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import QDialogButtonBox, QPushButton

from napari_chrep.genes.gene_table import ACCURACY, FAVOURITE, GENE, MORAN
from napari_chrep.state.settings import gene_names_file

CTRL = Qt.KeyboardModifier.ControlModifier


@pytest.fixture
def genes(desk, tiny_bundle):
    widget = desk.dock("Genes")
    desk.load(tiny_bundle)
    return widget


@pytest.fixture
def predicted(genes, desk, write_tissue):
    """The widget over a slide that is predicted as a whole."""
    desk.open(write_tissue())
    desk.engine.predict(None)
    desk.wait()
    desk.qtbot.waitUntil(lambda: genes.maps.toggles["calibrated"].isEnabled(), timeout=5000)
    return genes


def click(qtbot, genes, row, column):
    rect = genes.view.visualRect(genes.table.index(row, column))
    qtbot.mouseClick(genes.view.viewport(), Qt.MouseButton.LeftButton, pos=rect.center())


def test_type_and_enter_shows_the_first_match(genes, desk, qtbot):
    wanted = desk.session.bundle.genes[7]
    qtbot.keyClicks(genes.search, wanted[:2].lower())
    first = genes.table.names()[0]
    assert first.upper().startswith(wanted[:2].upper())
    qtbot.keyClick(genes.search, Qt.Key.Key_Return)
    assert desk.session.gene == first
    assert genes.current.text() == first


def test_a_whole_name_beats_a_longer_one_that_begins_with_it(genes, desk, qtbot):
    wanted = desk.session.bundle.genes[9]
    qtbot.keyClicks(genes.search, wanted.lower())
    qtbot.keyClick(genes.search, Qt.Key.Key_Return)
    assert desk.session.gene == wanted


def test_down_goes_into_the_table_and_enter_picks(genes, desk, qtbot):
    listed = genes.table.names()
    qtbot.keyClicks(genes.search, listed[0][0])
    among = genes.table.names()
    qtbot.keyClick(genes.search, Qt.Key.Key_Down)
    qtbot.keyClick(genes.view, Qt.Key.Key_Down)
    qtbot.keyClick(genes.view, Qt.Key.Key_Return)
    assert desk.session.gene == among[min(1, len(among) - 1)]


def test_an_unknown_gene_names_the_nearest(genes, desk, qtbot):
    known = desk.session.gene
    qtbot.keyClicks(genes.search, known + "QQ")
    assert known in genes.message.text()
    qtbot.keyClick(genes.search, Qt.Key.Key_Return)
    assert desk.session.gene == known


def test_a_header_sorts_by_accuracy(genes, desk, qtbot):
    header = genes.view.horizontalHeader()
    pos = header.sectionPosition(ACCURACY) + header.sectionSize(ACCURACY) // 2
    qtbot.mouseClick(header.viewport(), Qt.MouseButton.LeftButton, pos=QPoint(pos, 5))
    accuracies = [float(genes.table.index(row, ACCURACY).data()) for row in range(genes.table.rowCount())]
    assert accuracies == sorted(accuracies, reverse=True)
    current = genes.view.currentIndex()
    assert genes.table.gene(current.row()).name == desk.session.gene


def test_stars_come_by_click_and_key_and_are_remembered(genes, desk, qtbot, tiny_bundle):
    first, second = genes.table.names()[:2]
    click(qtbot, genes, 0, FAVOURITE)
    assert genes.table.index(0, FAVOURITE).data() == "★"
    assert desk.session.gene != second
    genes.window().show()  # a shortcut needs the focus
    genes.window().activateWindow()
    genes.search.setFocus()
    qtbot.waitUntil(genes.search.hasFocus, timeout=5000)
    qtbot.keyClicks(genes.search, second)
    qtbot.keyClick(genes.search, Qt.Key.Key_D, CTRL)
    assert genes.remembered.favourites == [first, second]
    qtbot.keyClick(genes.search, Qt.Key.Key_Down)
    assert genes.view.hasFocus()
    qtbot.keyClick(genes.view, Qt.Key.Key_D, CTRL)
    assert genes.remembered.favourites == [first]
    again = type(genes)(desk.viewer)
    qtbot.addWidget(again)
    assert again.table.index(0, FAVOURITE).data() == "★"


def test_the_last_genes_stay_at_hand(genes, desk, qtbot):
    before = desk.session.gene
    others = [name for name in genes.table.names() if name != before][:2]
    for name in others:
        click(qtbot, genes, genes.table.names().index(name), GENE)
    buttons = {button.text(): button for button in genes.recent.findChildren(QPushButton)}
    assert {before, others[0]} <= set(buttons)
    qtbot.mouseClick(buttons[before], Qt.MouseButton.LeftButton)
    assert desk.session.gene == before
    assert genes.remembered.recent[:3] == [before, others[1], others[0]]


def test_a_pasted_list_becomes_one_map_and_names_what_is_unknown(predicted, desk, qtbot):
    known = desk.session.bundle.genes[:3]
    QGuiApplication.clipboard().setText("\n".join([*known, "unheard-of"]).lower())
    qtbot.keyClick(predicted.search, Qt.Key.Key_V, CTRL)
    qtbot.keyClick(predicted.search, Qt.Key.Key_Return)
    assert desk.session.signature.genes == known
    assert desk.heatmaps.visible == ("signature",)
    assert predicted.maps.toggles["signature"].isChecked()
    assert "3 genes" in predicted.maps.listed.text() and "unheard-of" in predicted.maps.listed.text()
    predicted.search.clear()
    click(qtbot, predicted, predicted.table.names().index(known[1]), GENE)
    assert desk.heatmaps.visible == ("calibrated",)  # the gene that was asked for


def test_a_list_from_a_file_is_called_like_the_file(predicted, desk, qtbot, tmp_path):
    path = tmp_path / "stroma.txt"
    path.write_text("\n".join(desk.session.bundle.genes[:4]))
    qtbot.mouseClick(predicted.list_button, Qt.MouseButton.LeftButton)
    predicted.list_dialog.load(path)
    ok = predicted.list_dialog.buttons.button(QDialogButtonBox.StandardButton.Ok)
    qtbot.mouseClick(ok, Qt.MouseButton.LeftButton)
    assert desk.heatmaps.layer("signature").name == "stroma signature [mean z]"
    assert "unknown" not in predicted.maps.listed.text()


def test_a_list_without_a_known_gene_is_told_of_and_changes_nothing(predicted, desk, qtbot, tmp_path):
    before = desk.heatmaps.visible
    notification_manager.records.clear()
    qtbot.keyClicks(predicted.search, "unheard-of nowhere")
    qtbot.keyClick(predicted.search, Qt.Key.Key_Return)
    (record,) = notification_manager.records
    assert "none of the 2 listed genes" in record.message and "unheard-of" in record.message
    assert desk.session.signature is None and desk.heatmaps.visible == before
    predicted.list_dialog.load(tmp_path / "absent.txt")
    assert len(notification_manager.records) == 2


def test_two_genes_blend_and_can_be_left_again(predicted, desk, qtbot):
    session, maps = desk.session, desk.heatmaps
    first, other = session.gene, next(n for n in predicted.table.names() if n != session.gene)
    assert predicted.maps.blend.isHidden()
    rect = predicted.view.visualRect(predicted.table.index(predicted.table.names().index(other), GENE))
    qtbot.mouseClick(predicted.view.viewport(), Qt.MouseButton.RightButton, pos=rect.center())
    action = next(a for a in predicted.view.actions() if "Blend" in a.text())
    assert action.shortcut().toString() == "Ctrl+B"
    action.trigger()  # from the menu that the right click opens
    assert maps.visible == ("first", "second")
    magenta, green = maps.layer("first"), maps.layer("second")
    assert (magenta.name, green.name) == (f"{first} [log10]", f"{other} [log10]")
    assert (magenta.colormap.name, green.colormap.name) == ("magenta", "green")
    assert green.blending == "additive"
    np.testing.assert_array_equal(green.data, session.prediction.map(other))
    assert predicted.maps.blend.isChecked() and other in predicted.maps.blend.text()
    click(qtbot, predicted, predicted.table.names().index(other), GENE)
    assert magenta.name.startswith(f"{other} [log10]") and maps.visible == ("first", "second")
    qtbot.mouseClick(predicted.maps.blend, Qt.MouseButton.LeftButton)
    assert maps.visible == ()
    qtbot.mouseClick(predicted.maps.toggles["calibrated"], Qt.MouseButton.LeftButton)
    assert maps.visible == ("calibrated",)


def test_how_much_genes_vary_is_computed_once_a_run_has_ended(genes, predicted, desk, qtbot):
    variability = genes.variability
    qtbot.waitUntil(lambda: not variability.busy and bool(variability.moran), timeout=120_000)
    assert set(variability.moran) == set(desk.session.bundle.genes)
    header = genes.view.horizontalHeader()
    pos = header.sectionPosition(MORAN) + header.sectionSize(MORAN) // 2
    qtbot.mouseClick(header.viewport(), Qt.MouseButton.LeftButton, pos=QPoint(pos, 5))
    listed = [variability.moran[name] for name in genes.table.names()]
    assert listed == sorted(listed, reverse=True) and listed[0] > 0.2
    assert genes.table.index(0, MORAN).data() == f"{listed[0]:.2f}"
    desk.viewer.layers.remove(desk.session.slide_layer)
    assert variability.moran == {} and genes.table.index(0, MORAN).data() == ""


def test_aliases_are_found_typed_and_listed(genes, desk, qtbot, tmp_path):
    """HER2 and CD20 out of the box; ids and former names from a table that is opened once."""
    names = desk.session.bundle.genes
    first, second = names[4], names[9]
    table = tmp_path / "hgnc_complete_set.txt"
    table.write_text(
        "symbol\talias_symbol\tprev_symbol\tensembl_gene_id\n"
        f"{first}\tQQALIAS|QQOTHER\t\tENSG00000999901\n{second}\t\tQQFORMER\tENSG00000999902\n"
    )
    qtbot.mouseClick(genes.list_button, Qt.MouseButton.LeftButton)
    genes.list_dialog.gene_names.open(table)
    qtbot.waitUntil(lambda: "2 genes" in genes.list_dialog.known.text(), timeout=30_000)
    genes.list_dialog.reject()
    qtbot.keyClicks(genes.search, "qqal")
    assert genes.table.index(0, GENE).data() == f"{first} (QQALIAS)"
    qtbot.keyClick(genes.search, Qt.Key.Key_Return)
    assert desk.session.gene == first
    genes.search.clear()
    qtbot.keyClicks(genes.search, "ensg00000999902.7")
    assert second in genes.message.text()
    qtbot.keyClick(genes.search, Qt.Key.Key_Return)
    assert desk.session.gene == second
    genes.search.clear()
    qtbot.keyClicks(genes.search, f"qqformer {names[2]} NOSUCH")
    qtbot.keyClick(genes.search, Qt.Key.Key_Return)
    assert desk.session.signature.genes == (second, names[2])
    assert desk.session.signature.unknown == ("NOSUCH",)
    assert f"qqformer → {second}" in genes.message.text()
    assert gene_names_file().exists()
    bad = tmp_path / "counts.txt"
    bad.write_text("a,b\n")
    before = len(notification_manager.records)
    genes.list_dialog.gene_names.open(bad)
    qtbot.waitUntil(lambda: not genes.list_dialog.gene_names.busy, timeout=30_000)
    assert "hgnc_complete_set" in notification_manager.records[before].message
    assert desk.session.names.find("QQALIAS") == first  # the former table stays
