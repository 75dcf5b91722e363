"""From a prediction in the viewer to a file that other programs read."""

from __future__ import annotations

import json
import resource
import sys

import anndata
import numpy as np
import pandas as pd
import pytest
from napari.utils.notifications import notification_manager
from PIL import Image
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QLineEdit

from napari_chrep.background import runner
from napari_chrep.background.runner import Task
from napari_chrep.export.exporter import FILE_KINDS
from napari_chrep.state.settings import RememberedGenes


class Exports:
    """The widget, driven by mouse and keys."""

    def __init__(self, desk, folder):
        self.desk, self.folder, self.widget = desk, folder, desk.dock("Export")
        folder.mkdir()
        self._before = len(notification_manager.records)

    @property
    def said(self):
        return [record.message for record in notification_manager.records[self._before :]]

    @property
    def names(self):
        return sorted(path.name for path in self.folder.iterdir())

    def choose(self, button):
        self.desk.qtbot.mouseClick(button, Qt.MouseButton.LeftButton, pos=QPoint(8, button.height() // 2))

    def list(self, text):
        self.widget.names.clear()
        self.desk.qtbot.keyClicks(self.widget.names, text)

    def ask(self, kind):
        self.widget.kind.setCurrentIndex(self.widget.kind.findData(kind))
        self.desk.qtbot.mouseClick(self.widget.export, Qt.MouseButton.LeftButton)

    def write(self, kind, name):
        """Export, with this name typed into the file dialog."""
        self.ask(kind)
        dialog = self.widget.dialog
        field = dialog.findChild(QLineEdit, "fileNameEdit")
        self.desk.qtbot.waitUntil(field.hasFocus)
        field.clear()
        self.desk.qtbot.keyClicks(field, str(self.folder / name))
        self.desk.qtbot.keyClick(field, Qt.Key.Key_Return)
        self.wait()
        return self.folder / name

    def wait(self):
        self.desk.qtbot.waitUntil(lambda: not self.widget.exporter.busy, timeout=60_000)


@pytest.fixture
def exports(desk, tiny_bundle, write_tissue, tmp_path):
    desk.open(write_tissue())
    desk.load(tiny_bundle)
    return Exports(desk, tmp_path / "out")


@pytest.fixture
def predicted(exports):
    exports.desk.engine.predict(None)
    exports.desk.wait()
    return exports


def test_every_kind_of_file(predicted):
    session, gene = predicted.desk.session, predicted.desk.session.gene
    tiles = len(session.prediction)
    assert f"({tiles:,})" in predicted.widget.all_tiles.text() and gene in predicted.widget.shown.text()
    table = anndata.read_h5ad(predicted.write("h5ad", "a.h5ad"))
    assert table.shape == (tiles, 1) and list(table.var_names) == [gene]
    assert f"{tiles:,} tiles written" in predicted.widget.status.text()
    values = session.prediction.gene(gene)[np.argsort(session.prediction.indices)]
    np.testing.assert_array_equal(table.layers["calibrated"][:, 0], values)
    frame = pd.read_csv(predicted.write("csv", "b.csv"))
    np.testing.assert_allclose(frame[gene], values, rtol=1e-5)
    tiles_of_qupath = json.loads(predicted.write("geojson", "c.geojson").read_text())["features"]
    assert f"{gene} calibrated" in tiles_of_qupath[0]["properties"]["measurements"]
    with Image.open(predicted.write("png", "d.png")) as picture:
        assert picture.width > 1000
    assert "<svg" in predicted.write("svg", "e.svg").read_text()[:400]
    assert list(pd.read_parquet(predicted.write("parquet", "f.parquet"))) == list(frame)
    assert predicted.names == ["a.h5ad", "b.csv", "c.geojson", "d.png", "e.svg", "f.parquet"]
    assert predicted.said == []


def test_spatialdata_and_ome_zarr(predicted):
    spatialdata = pytest.importorskip("spatialdata")
    store = spatialdata.read_zarr(predicted.write("spatialdata", "a.sdata.zarr"))
    assert len(store["tiles"]) == len(predicted.desk.session.prediction)
    zarr = pytest.importorskip("zarr")
    image = zarr.open_group(predicted.write("ome-zarr", "b.ome.zarr"), mode="r")
    np.testing.assert_array_equal(
        image["0"][1], predicted.desk.session.prediction.map(store["prediction"].var_names[0], "raw")
    )
    assert predicted.names == ["a.sdata.zarr", "b.ome.zarr"] and predicted.said == []


class Unhurried(Task):
    """Keeps the work where it first looks whether it is cancelled, until it is."""

    def cancelled(self):
        self._cancelled.wait(20)
        return super().cancelled()


def test_cancel_leaves_nothing_and_what_was_there_before(predicted, monkeypatch):
    before = predicted.write("csv", "a.csv").read_bytes()
    button, exporter, texts = predicted.widget.export, predicted.widget.exporter, []
    exporter.changed.connect(lambda _message: texts.append(button.text()))
    monkeypatch.setattr(runner, "Task", Unhurried)
    for kind, name in (("csv", "a.csv"), ("ome-zarr", "b.ome.zarr"), ("h5ad", "c.h5ad")):
        predicted.ask(kind)
        predicted.widget.dialog.fileSelected.emit(str(predicted.folder / name))
        assert button.text() == "Cancel"
        predicted.desk.qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
        assert button.text() == "Cancelling…" and not button.isEnabled()
        predicted.wait()
        assert button.text() == "Export…" and "nothing was written" in predicted.widget.status.text()
    assert predicted.names == ["a.csv"] and (predicted.folder / "a.csv").read_bytes() == before
    assert predicted.said == []


def test_the_dialog_suggests_a_name_and_adds_the_suffix(predicted):
    session, widget = predicted.desk.session, predicted.widget
    predicted.ask("png")
    field = widget.dialog.findChild(QLineEdit, "fileNameEdit")
    assert field.text() == f"slide_prediction_{session.gene}.png"
    assert widget.dialog.directory().absolutePath() == str(session.slide.path.parent)
    widget.dialog.reject()
    predicted.write("csv", "mine")
    assert predicted.names == ["mine.csv"]
    before = (predicted.folder / "mine.csv").stat().st_mtime_ns
    predicted.write("csv", "mine")  # the dialog asks about "mine", which is not there
    assert (predicted.folder / "mine.csv").stat().st_mtime_ns == before
    assert len(predicted.said) == 1 and "there is a file of this name" in predicted.said[0]


def test_the_tiles_in_view(predicted):
    camera = predicted.desk.viewer.scene.camera
    camera.center, camera.zoom = (0, 400, 400), 3.0
    predicted.choose(predicted.widget.in_view)
    table = anndata.read_h5ad(predicted.write("h5ad", "view.h5ad"))
    height, width = (extent / 3.0 for extent in predicted.desk.viewer.canvas.size)
    xy = table.obsm["spatial"] * 0.7
    reach = np.array([width, height]) / 2 + predicted.desk.session.bundle.spec.um / 2
    assert 0 < len(xy) < len(predicted.desk.session.prediction)
    assert (np.abs(xy - 400) < reach + 1).all()
    camera.center = (0, 90_000, 90_000)
    predicted.ask("h5ad")
    assert len(predicted.said) == 1 and "in view" in predicted.said[0]


def test_the_tiles_in_the_selected_shapes(predicted):
    viewer, prediction = predicted.desk.viewer, predicted.desk.session.prediction
    predicted.choose(predicted.widget.in_shapes)
    predicted.ask("csv")
    assert len(predicted.said) == 1 and "o Shapes layer" in predicted.said[0]
    triangle = np.array([(100, 100), (100, 900), (900, 100)])  # rows and columns in µm
    shapes = viewer.add_shapes([triangle], shape_type="polygon", units=("um", "um"), name="tumour")
    assert "tumour" in predicted.widget.in_shapes.text()
    frame = pd.read_csv(predicted.write("csv", "region.csv"))
    xy = prediction.grid.centres(np.sort(prediction.indices)) * 0.7
    inside = (xy > 99.65).all(1) & (xy.sum(1) < 999.3)  # 0.35: napari centres pixel 0 on 0
    np.testing.assert_allclose(frame[["x_um", "y_um"]], xy[inside], atol=0.01)
    shapes.data = [np.array([(100, 100), (900, 900), (900, 100), (100, 900)])]
    predicted.ask("csv")
    assert len(predicted.said) == 2 and "crosses itself" in predicted.said[1]
    shapes.data = [triangle + 9_000]
    predicted.ask("csv")
    assert len(predicted.said) == 3 and "othing is predicted there" in predicted.said[2]
    assert predicted.names == ["region.csv"]


def test_the_genes(predicted):
    widget, genes = predicted.widget, predicted.desk.session.bundle.genes
    predicted.choose(widget.all_genes)
    assert anndata.read_h5ad(predicted.write("h5ad", "all.h5ad")).n_vars == len(genes)
    predicted.list(f"{genes[7].lower()}, NOSUCH {genes[2]}")
    assert widget.listed.isChecked()
    table = anndata.read_h5ad(predicted.write("h5ad", "list.h5ad"))
    assert list(table.var_names) == [genes[7], genes[2]]
    assert "Not in the model: NOSUCH." in widget.status.text()
    predicted.choose(widget.favourites)
    predicted.ask("h5ad")
    assert len(predicted.said) == 1 and "no favourites" in predicted.said[0]
    RememberedGenes().toggle_favourite(genes[4])
    table = anndata.read_h5ad(predicted.write("h5ad", "favourites.h5ad"))
    assert list(table.var_names) == [genes[4]]


@pytest.mark.parametrize(
    ("kind", "text", "says"),
    [
        ("h5ad", "NOSUCH, NEITHER", "none of the 2 listed genes"),
        ("h5ad", "", "names no gene"),
        ("geojson", None, "QuPath takes 20 genes at most, and 40 are chosen"),
        ("svg", None, "takes one gene, and 40 are chosen"),
    ],
)
def test_genes_that_cannot_be_written(predicted, kind, text, says):
    predicted.choose(predicted.widget.all_genes if text is None else predicted.widget.listed)
    if text:
        predicted.list(text)
    predicted.ask(kind)
    assert len(predicted.said) == 1 and says in predicted.said[0]
    assert predicted.widget.dialog is None and says in predicted.widget.status.text()


def test_nothing_predicted(exports):
    exports.ask("h5ad")
    assert len(exports.said) == 1 and "othing is predicted" in exports.said[0]
    assert exports.widget.dialog is None


def test_a_folder_that_cannot_be_written(predicted):
    (predicted.folder / "file").write_text("no folder")
    predicted.ask("csv")
    predicted.widget.dialog.fileSelected.emit(str(predicted.folder / "file" / "a.csv"))
    predicted.wait()
    assert len(predicted.said) == 1 and "cannot be written" in predicted.said[0]
    assert predicted.names == ["file"] and predicted.widget.export.isEnabled()


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit")
@pytest.mark.parametrize("kind", ["csv", "geojson", "png", "parquet", "ome-zarr"])
def test_no_room_leaves_what_was_there(predicted, kind):
    """A file that may not grow any more, as on a full disk."""
    name = f"a{FILE_KINDS[kind].suffix}"
    before = contents(predicted.write(kind, name))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    predicted.ask(kind)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, hard))
    try:
        predicted.widget.dialog.fileSelected.emit(str(predicted.folder / name))
        predicted.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(predicted.said) == 1 and "cannot be written" in predicted.said[0]
    assert predicted.names == [name]
    assert contents(predicted.folder / name) == before
    assert (
        predicted.widget.export.isEnabled()
        and predicted.desk.session.prediction.gene(predicted.desk.session.gene).size
    )


def contents(path):
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return [(str(file), file.read_bytes()) for file in files]


def test_something_else_is_not_overwritten(predicted):
    (predicted.folder / "counts.csv").write_text("gene,count\n")
    predicted.ask("csv")
    predicted.widget.dialog.fileSelected.emit(str(predicted.folder / "counts.csv"))
    predicted.wait()
    assert len(predicted.said) == 1 and "not overwritten" in predicted.said[0]
    assert (predicted.folder / "counts.csv").read_text() == "gene,count\n"


def test_the_file_is_finished_when_the_widget_is_closed(predicted):
    exporter = predicted.widget.exporter
    predicted.ask("h5ad")
    predicted.widget.dialog.fileSelected.emit(str(predicted.folder / "a.h5ad"))
    assert exporter.busy
    predicted.desk.viewer.window.remove_dock_widget(predicted.widget)
    predicted.desk.qtbot.waitUntil(lambda: not exporter.busy, timeout=60_000)
    assert predicted.names == ["a.h5ad"] and predicted.said == []
