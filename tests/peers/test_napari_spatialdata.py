"""An exported SpatialData store in napari-spatialdata; run by ``make test-peers``, which installs it."""

from __future__ import annotations

import numpy as np
import pytest

from chrep_model.export.writing import write_prediction

pytest.importorskip("napari_spatialdata")


@pytest.fixture
def opened(prediction, tmp_path, make_napari_viewer, qtbot):
    """A viewer in which the store was opened, and napari-spatialdata's list of what is in it."""
    from napari_spatialdata._sdata_widgets import SdataWidget

    path = tmp_path / "prediction.sdata.zarr"
    write_prediction(prediction, path, "spatialdata")
    viewer = make_napari_viewer()
    viewer.open(path, plugin="napari-spatialdata")
    return viewer, viewer.window._qt_window.findChild(SdataWidget)


@pytest.mark.parametrize(("system", "per_px"), [("global", 1.0), ("um", 0.7)])
def test_tiles_are_polygons_that_know_their_genes(prediction, opened, qtbot, system, per_px):
    viewer, widget = opened
    listed = widget.coordinate_system_widget
    assert {listed.item(row).text() for row in range(listed.count())} == {"global", "um"}
    (item,) = [listed.item(row) for row in range(listed.count()) if listed.item(row).text() == system]
    listed.setCurrentItem(item)
    listed.itemClicked.emit(item)
    (tiles,) = [widget.elements_widget.item(row) for row in range(widget.elements_widget.count())]
    assert tiles.text() == "tiles"
    widget.elements_widget.itemDoubleClicked.emit(tiles)
    qtbot.waitUntil(lambda: len(viewer.layers) == 1, timeout=60_000)
    (layer,) = viewer.layers
    assert len(layer.data) == len(prediction)
    centres = np.array(
        [layer.data_to_world(corners.min(0) / 2 + corners.max(0) / 2) for corners in layer.data]
    )
    expected = prediction.grid.centres(np.sort(prediction.indices)) * per_px
    np.testing.assert_allclose(centres[:, ::-1], expected, rtol=1e-6)
    table = layer.metadata["adata"]
    gene = prediction.genes[3]
    order = np.argsort(prediction.indices)
    np.testing.assert_allclose(np.asarray(table[:, gene].X)[:, 0], prediction.gene(gene)[order], rtol=1e-6)
