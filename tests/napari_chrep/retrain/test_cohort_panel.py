"""A cohort is put together from files, each pair checked."""

from __future__ import annotations

import shutil
from pathlib import Path

import anndata
import numpy as np
import pytest
from qtpy.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QApplication

from chrep_model.bundle import load_bundle
from chrep_model.cohorts.cohort import open_cohort
from napari_chrep.io.samples import sample_bundles
from napari_chrep.retrain.cohort_panel import HINT, CohortPanel
from napari_chrep.retrain.pair_table import PATIENT, SCALE, SECTION

TIMEOUT_MS = 60_000


@pytest.fixture
def panel(desk, qtbot):
    widget = CohortPanel(desk.viewer)
    desk.viewer.window.add_dock_widget(widget, name="Cohort")
    return widget


@pytest.fixture
def folder(tiny_cohort: Path, tmp_path: Path) -> Path:
    """A good pair, and one whose spots lie outside of its picture."""
    folder = tmp_path / "pairs"
    folder.mkdir()
    good, wrong, _ = sorted(tiny_cohort.glob("*.h5ad"))
    for counts in (good, wrong):
        for file in tiny_cohort.glob(f"{counts.stem}.*"):
            shutil.copy(file, folder)
    table = anndata.read_h5ad(folder / wrong.name)
    table.obsm["spatial"] = table.obsm["spatial"] * 2.0
    table.write_h5ad(folder / wrong.name)
    return folder


def click(qtbot, button):
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def wait(qtbot, panel):
    qtbot.waitUntil(
        lambda: not panel.checker.busy and all(row.check for row in panel.table.pairs.rows),
        timeout=TIMEOUT_MS,
    )


def cell(panel, row, column):
    return panel.table.pairs.data(panel.table.pairs.index(row, column))


def test_a_folder_is_added_and_what_is_wrong_with_a_pair_is_shown(panel, qtbot, folder, tmp_path):
    assert panel.cohort is None
    assert panel.message.text() == HINT
    assert not panel.save.isEnabled()
    changes = []
    panel.changed.connect(lambda: changes.append(panel.cohort))
    click(qtbot, panel.add_folder)
    panel.dialog.filesSelected.emit([str(folder)])
    panel.dialog.reject()
    qtbot.waitUntil(lambda: len(panel.table.pairs.rows) == 2, timeout=TIMEOUT_MS)
    wait(qtbot, panel)
    assert changes
    first, second = (cell(panel, row, SECTION) for row in range(2))
    assert first.endswith("✓ good") and second.endswith("✗ left out")
    assert len(panel.cohort) == 1 and panel.cohort.names[0] in first
    assert "1 of 2 pairs can be used" in panel.message.text()

    # The first one is selected: its spots are drawn on its picture.
    overlay = panel.table.pairs.rows[0].check.overlay
    drawn = panel.view.picture.pixmap().toImage()
    x, y = (overlay.xy[0] * drawn.width() / overlay.picture.shape[1]).astype(int)
    seen = np.array(drawn.pixelColor(QPoint(int(x), int(y))).getRgb()[:3])
    assert np.abs(seen - overlay.picture[y, x].astype(int)).max() > 20

    # A click on the wrong one says why.
    place = panel.table.visualRect(panel.table.pairs.index(1, SECTION)).center()
    qtbot.mouseClick(panel.table.viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert "outside of the image" in panel.view.findings.text()

    panel.save_as(tmp_path / "mine")
    qtbot.waitUntil(lambda: (tmp_path / "mine.yaml").exists(), timeout=TIMEOUT_MS)
    assert open_cohort(tmp_path / "mine.yaml").names == panel.cohort.names

    click(qtbot, panel.remove)
    assert [row.pair.name for row in panel.table.pairs.rows] == list(panel.cohort.names)


def test_spots_left_out_and_positions_of_another_scale_are_shown(panel, qtbot, folder):
    good, wrong = sorted(folder.glob("*.h5ad"))
    table = anndata.read_h5ad(good)
    table.obs["in_tissue"] = [0, 0] + [1] * (table.n_obs - 2)
    table.write_h5ad(good)
    table = anndata.read_h5ad(wrong)
    table.obsm["spatial"] = table.obsm["spatial"] * 0.1
    table.write_h5ad(wrong)
    panel.add([folder])
    qtbot.waitUntil(lambda: len(panel.table.pairs.rows) == 2, timeout=TIMEOUT_MS)
    wait(qtbot, panel)
    assert "have in_tissue 0 and are left out" in panel.view.findings.text()
    assert len(panel.cohort) == 1
    place = panel.table.visualRect(panel.table.pairs.index(1, SECTION)).center()
    qtbot.mouseClick(panel.table.viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert "they would overlap" in panel.view.findings.text()


def test_files_are_dropped_and_patient_and_scale_typed_over(panel, qtbot, folder):
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(sorted(folder.glob("*.h5ad"))[0])), QUrl.fromLocalFile("/no.txt")])
    copy, left, none = Qt.DropAction.CopyAction, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    # On the table, which leaves it to the panel.
    under = panel.table.viewport()
    enter = QDragEnterEvent(QPoint(5, 5), copy, data, left, none)
    assert QApplication.sendEvent(under, enter) and enter.isAccepted()
    QApplication.sendEvent(under, QDropEvent(QPointF(5, 5), copy, data, left, none))
    qtbot.waitUntil(lambda: len(panel.table.pairs.rows) == 1, timeout=TIMEOUT_MS)
    wait(qtbot, panel)
    assert "no.txt: this is neither a slide nor an h5ad" in panel.message.text()
    pairs = panel.table.pairs
    former = panel.cohort.sections[0]
    assert pairs.setData(pairs.index(0, PATIENT), "someone")
    assert panel.cohort.patients == {"someone": (former.name,)}
    assert not pairs.setData(pairs.index(0, SCALE), "no number")
    assert pairs.setData(pairs.index(0, SCALE), "0,35")
    assert panel.cohort is None  # until it is checked again
    wait(qtbot, panel)
    (section,) = panel.cohort
    assert (section.mpp, section.patient) == (0.35, "someone")
    panel.add([section.counts_path])  # again: it is not listed twice
    wait(qtbot, panel)
    assert len(pairs.rows) == 1


def test_open_slides_are_taken_and_genes_compared(panel, desk, qtbot, folder):
    click(qtbot, panel.from_slides)
    assert "No slide is open" in panel.message.text()
    good, _ = sorted(folder.glob("*.h5ad"))
    (picture,) = (file for file in folder.glob(f"{good.stem}.*") if file != good)
    desk.open(picture)
    table = anndata.read_h5ad(good)
    table.var_names = [f"ENSG{number:011d}" for number in range(table.n_vars)]
    table.write_h5ad(folder / "named.h5ad")
    shutil.copy(picture, folder / f"named{picture.suffix}")
    click(qtbot, panel.from_slides)
    qtbot.waitUntil(lambda: len(panel.table.pairs.rows) == 1, timeout=TIMEOUT_MS)
    panel.add([folder / "named.h5ad"])
    qtbot.waitUntil(lambda: len(panel.table.pairs.rows) == 2, timeout=TIMEOUT_MS)
    wait(qtbot, panel)
    assert panel.cohort.names == (good.stem,)
    assert "Ensembl ids" in panel.table.pairs.rows[1].findings[0].text
    desk.session.set_bundle(load_bundle(sample_bundles()[0]))
    levels = [finding.level for finding in panel.table.pairs.rows[1].beside]
    assert levels == ["error", "warning"]
    assert panel.table.pairs.rows[0].beside == ()
    # With another of its kind, those two are the most, and the other one is left out.
    for file in (folder / "named.h5ad", folder / f"named{picture.suffix}"):
        shutil.copy(file, folder / f"again{file.suffix}")
    panel.add([folder / "again.h5ad"])
    qtbot.waitUntil(lambda: len(panel.table.pairs.rows) == 3, timeout=TIMEOUT_MS)
    wait(qtbot, panel)
    assert panel.cohort.names == ("named", "again")


def test_the_window_can_be_closed_meanwhile(desk, qtbot, folder):
    panel = CohortPanel(desk.viewer)
    dock = desk.viewer.window.add_dock_widget(panel, name="Cohort")
    panel.add([folder])
    qtbot.waitUntil(lambda: len(panel.table.pairs.rows) == 2, timeout=TIMEOUT_MS)
    checker = panel.checker
    desk.viewer.window.remove_dock_widget(dock)
    panel.deleteLater()
    qtbot.waitUntil(lambda: not checker._tasks.busy and not checker._waiting, timeout=TIMEOUT_MS)
