"""Exported maps opened by napari-ome-zarr; run by ``make test-peers``, which installs it."""

from __future__ import annotations

import numpy as np
import pytest

from chrep_model.export.writing import write_prediction

pytest.importorskip("napari_ome_zarr")


def test_maps_lie_over_the_slide(prediction, tmp_path, make_napari_viewer):
    """napari-ome-zarr puts the maps where our own reader does, over the slide that our reader opens."""
    genes, path = prediction.genes[:2], tmp_path / "maps.ome.zarr"
    write_prediction(prediction, path, "ome-zarr", genes)
    viewer = make_napari_viewer()
    theirs = viewer.open(path, plugin="napari-ome-zarr")
    ours = viewer.open(path, plugin="napari-chrep")
    assert len(theirs) == len(ours) == 6
    for one, other in zip(theirs, ours, strict=True):
        values = one.data[0] if one.multiscale else one.data
        np.testing.assert_array_equal(np.asarray(values), other.data)
        np.testing.assert_allclose(one.extent.world, other.extent.world)
        assert str(other.units[0]) == "micrometer"
        np.testing.assert_allclose(one.contrast_limits, other.contrast_limits)
        assert one.visible == other.visible
    assert [layer.name for layer in theirs] == [layer.name.split(" [")[0] for layer in ours]
    grid, index = prediction.grid, int(prediction.indices[0])
    row, col = divmod(index, grid.shape[1])
    x, y = grid.centres([index])[0]  # continuous px; napari centres pixel 0 on 0
    np.testing.assert_allclose(theirs[0].data_to_world((row, col)), (np.array([y, x]) - 0.5) * 0.7)
