"""Predictions of ours, and slides in folders, dropped on the viewer or opened from the panel."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import zarr
from napari.utils.notifications import notification_manager
from ome_zarr.writer import write_image
from qtpy.QtCore import Qt

from chrep_model.errors import PredictionError
from chrep_model.export.writing import output_path, write_prediction
from chrep_model.prediction.predictor import Predictor
from chrep_model.slides.slide import open_slide
from napari_chrep.io.opening import open_path
from napari_chrep.io.reader import get_reader, read_maps, read_slides, read_stored, reader_of
from napari_chrep.state.session import slide_of


@pytest.fixture
def said():
    """Texts of the notifications since the start of the test."""
    before = len(notification_manager.records)
    return lambda: [record.message for record in notification_manager.records[before:]]


@pytest.fixture
def prediction(bundle, tiny_cohort, tmp_path):
    """A prediction on a slide whose scale was typed in, and its folder."""
    picture = tmp_path / "slide.jpg"
    shutil.copy(tiny_cohort / "SYNTHETIC_P1A.jpg", picture)
    return Predictor(bundle, device="cpu", cache_dir=tmp_path / "cache").predict(open_slide(picture, mpp=0.7))


def written(prediction, format):
    path = output_path(prediction.slide.path.parent, "stored", format)
    write_prediction(prediction, path, format)
    return path


def test_a_prediction_is_shown_again(desk, prediction, said, qtbot):
    path = written(prediction, "h5ad")
    assert get_reader(path) is read_stored and get_reader([path, path]) is not read_stored
    desk.drop(path)
    qtbot.waitUntil(lambda: desk.session.prediction is not None, timeout=60_000)
    accuracy = prediction.bundle.trust.accuracy
    gene = prediction.genes[int(np.nanargmax(accuracy))]
    assert desk.session.gene == gene
    layer = desk.session.slide_layer
    assert slide_of(layer).path == prediction.slide.path and tuple(layer.scale) == (0.7, 0.7)
    qtbot.waitUntil(lambda: desk.heatmaps.layer("calibrated") is not None, timeout=60_000)
    shown = desk.heatmaps.layer("calibrated")
    assert shown.name == f"{gene} calibrated [log10]" and str(shown.units[0]) == "micrometer"
    np.testing.assert_allclose(shown.data, prediction.map(gene), rtol=1e-5)
    # The genes are chosen as ever, and nothing of the model is needed for it.
    genes = desk.dock("Genes")
    other = prediction.genes[7]
    qtbot.keyClicks(genes.search, other)
    qtbot.keyClick(genes.search, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: desk.heatmaps.layer("raw").name == f"{other} raw [log10]", timeout=60_000)
    np.testing.assert_allclose(desk.heatmaps.layer("raw").data, prediction.map(other, "raw"), rtol=1e-5)
    explorer = desk.dock("Slide explorer")
    assert explorer.model.picker.placeholderText() == "stored.h5ad, without its model"
    desk.wait()
    assert said() == []
    assert "Choose a model to predict more" in explorer.run.status.text()
    assert not explorer.run.predict_tissue.isEnabled()
    desk.engine.predict(None)  # as a command might
    desk.wait()
    (message,) = said()
    assert "not the model" in message and "Open the model" in message
    assert shown in desk.viewer.layers  # what is there stays
    desk.load(prediction.bundle.path)
    assert desk.session.bundle.path == prediction.bundle.path
    assert explorer.run.predict_tissue.isEnabled()


def test_a_spatialdata_prediction_without_its_slide_and_a_damaged_one(desk, prediction, said, qtbot):
    pytest.importorskip("spatialdata")
    path = written(prediction, "spatialdata")
    prediction.slide.path.unlink()
    desk.drop(path)
    qtbot.waitUntil(lambda: desk.heatmaps.layer("calibrated") is not None, timeout=60_000)
    assert desk.session.slide is None and len(desk.viewer.layers) == 2
    (message,) = said()
    assert prediction.slide.path.name in message and "not found" in message
    shutil.rmtree(path / "tables" / "prediction" / "layers")
    desk.viewer.open(path, plugin="napari-chrep")
    qtbot.waitUntil(lambda: len(said()) == 2, timeout=60_000)
    assert "damaged" in said()[1] and "Predict again" in said()[1]
    assert len(desk.viewer.layers) == 2


def test_exported_maps_lie_where_they_lay(desk, prediction, said, qtbot):
    """The same values in the same place and colours as the maps that the window showed."""
    desk.drop(written(prediction, "h5ad"))
    qtbot.waitUntil(lambda: desk.heatmaps.layer("calibrated") is not None, timeout=60_000)
    genes = [gene for gene in prediction.genes if gene != desk.session.gene][:2]
    path = output_path(prediction.slide.path.parent, "maps", "ome-zarr")
    write_prediction(prediction, path, "ome-zarr", tuple(genes))
    window = desk.heatmaps.layer("calibrated")
    before = set(desk.viewer.layers)
    assert get_reader(path) is read_maps and reader_of([path, path]) is None
    desk.drop(path)
    layers = {layer.name: layer for layer in desk.viewer.layers if layer not in before}
    kinds = {"calibrated": "[log10]", "raw": "[log10]", "interval_90": "[± log10]"}
    assert list(layers) == [f"{gene} {kind} {unit}" for gene in genes for kind, unit in kinds.items()]
    for gene in genes:
        for kind in ("calibrated", "raw"):
            layer = layers[f"{gene} {kind} [log10]"]
            np.testing.assert_array_equal(layer.data, prediction.map(gene, kind))
            assert layer.colormap.name == "viridis" and layer.interpolation2d == "nearest"
            np.testing.assert_allclose(layer.scale, window.scale)
            np.testing.assert_allclose(layer.translate, window.translate)
            assert layer.units == window.units
        interval = layers[f"{gene} interval_90 [± log10]"]
        np.testing.assert_array_equal(interval.data, prediction.on_grid(prediction.interval(gene)))
        assert interval.colormap.name == "magma"
    assert [layer.visible for layer in layers.values()] == [True] + 5 * [False]
    assert said() == []


def test_damaged_maps_are_left_to_others_or_refused(prediction):
    path = output_path(prediction.slide.path.parent, "maps", "ome-zarr")
    write_prediction(prediction, path, "ome-zarr", prediction.genes[:1])
    attributes = path / ".zattrs"
    sound = attributes.read_text()
    attributes.write_text(sound.replace('"translation"', '"tranzlation"'))
    with pytest.raises(PredictionError, match=r"these maps are damaged.*Export them again"):
        read_maps(path)
    attributes.write_text(sound)
    (path / "0" / ".zarray").write_text("[]")
    with pytest.raises(PredictionError, match="this zarr folder is damaged"):
        read_maps(path)
    for nothing in ("[1, 2]", "{", "3"):
        attributes.write_text(nothing)
        assert get_reader(path) is not read_maps


def test_a_viewer_tells_of_damaged_maps(desk, prediction, said):
    path = output_path(prediction.slide.path.parent, "maps", "ome-zarr")
    write_prediction(prediction, path, "ome-zarr", prediction.genes[:1])
    attributes = path / ".zattrs"
    attributes.write_text(attributes.read_text().replace('"scale"', '"skale"'))
    desk.drop(path)
    (message,) = said()
    assert "these maps are damaged" in message and not len(desk.viewer.layers)


def test_slides_in_folders(desk, tissue, tmp_path, said, qtbot):
    path = tmp_path / "he.ome.zarr"
    axes = [{"name": "c", "type": "channel"}]
    axes += [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    pixels = np.moveaxis(tissue, -1, 0)
    steps = [[{"type": "scale", "scale": [1, 0.7, 0.7]}]]
    write_image(
        pixels,
        zarr.open_group(path, mode="w"),
        axes=axes,
        scale_factors=[],
        coordinate_transformations=steps,
        storage_options={"chunks": (1, 256, 256)},
    )
    assert get_reader(str(path)) is read_slides
    desk.drop(path)
    (layer,) = desk.viewer.layers
    assert layer.name == "he" and layer.rgb and tuple(layer.scale) == (0.7, 0.7)
    np.testing.assert_array_equal(np.asarray(layer.data[0][:300, :300]), tissue[:300, :300])

    spatialdata = pytest.importorskip("spatialdata")
    from spatialdata.models import Image2DModel

    store = tmp_path / "store.zarr"
    spatialdata.SpatialData(images={"he": Image2DModel.parse(pixels[:, :600, :500], dims="cyx")}).write(store)
    explorer = desk.dock("Slide explorer")
    open_path(desk.viewer, store)
    assert explorer.slide.picker.currentText() == "store" and explorer.slide.mpp.text() == "unknown"
    (banner,) = explorer.slide.banners.shown
    assert banner.title == "Scale unknown" and not banner.grave
    open_path(desk.viewer, tmp_path)  # what cannot be opened is said
    assert said()[-1].endswith("not a slide. Name the slide file itself.")


@pytest.mark.real
def test_a_dicom_folder_is_dropped(desk, shared_data):
    pytest.importorskip("openslide")
    desk.drop(shared_data / "slides" / "CMU-1-Small-Region-dicom")
    (layer,) = desk.viewer.layers
    assert layer.data[0].shape == (2967, 2220, 3)
