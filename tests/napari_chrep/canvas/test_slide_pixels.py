"""A slide that is deleted while it is open: one notification, hatching, and a viewer that goes on."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import zarr
from napari.utils.notifications import notification_manager
from ome_zarr.writer import write_image

from napari_chrep.canvas.slide_layer import SHOWN_KEY


@pytest.fixture
def said():
    """Texts of the notifications since the start of the test."""
    before = len(notification_manager.records)
    return lambda: [record.message for record in notification_manager.records[before:]]


@pytest.fixture
def omezarr(tmp_path, tissue):
    """An OME-Zarr of two levels in chunks of 256 px."""
    path = tmp_path / "slide.zarr"
    axes = [{"name": "c", "type": "channel"}]
    axes += [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    steps = [[{"type": "scale", "scale": [1, 0.7 * factor, 0.7 * factor]}] for factor in (1, 2)]
    write_image(
        np.moveaxis(tissue, -1, 0),
        zarr.open_group(path, mode="w"),
        axes=axes,
        scale_factors=[2],
        coordinate_transformations=steps,
        storage_options={"chunks": (1, 256, 256)},
    )
    return path


def grey(pixels):
    """Whether this is hatching: no colour, and no black."""
    return bool((np.ptp(pixels, axis=-1) == 0).all() and pixels.min() > 90 and len(np.unique(pixels)) == 2)


def test_panning_over_a_slide_that_is_gone(make_napari_viewer, qtbot, omezarr, tissue, said):
    viewer = make_napari_viewer(show=True)
    (layer,) = viewer.open(omezarr, plugin="napari-chrep")
    viewer.scene.camera.zoom = 8
    viewer.scene.camera.center = (100, 100)
    qtbot.wait(50)
    shutil.rmtree(omezarr)
    for place in (800, 500, 900):
        viewer.scene.camera.center = (place, place)
        viewer.screenshot()
    assert grey(np.asarray(layer.data[0])[1400:1500, 1400:1500])
    qtbot.wait(50)
    (message,) = said()
    assert str(omezarr) in message and "moved or deleted" in message and "Put it back" in message
    viewer.layers.remove(layer)  # and the viewer is as usable as before
    other = viewer.add_image(tissue)
    viewer.reset_view()
    assert viewer.screenshot().any() and other in viewer.layers and len(said()) == 1


def test_predicting_on_a_slide_that_is_gone_stops_with_a_reason(
    desk, tiny_bundle, omezarr, write_tissue, said
):
    explorer = desk.dock("Slide explorer")
    layer = desk.open(omezarr)
    assert explorer.slide.banners.isHidden() and layer.metadata[SHOWN_KEY].trouble == ""
    shutil.rmtree(omezarr)
    desk.qtbot.waitUntil(lambda: bool(said()), timeout=5000)  # told of at once, before anything is read
    (banner,) = explorer.slide.banners.shown
    assert banner.title == "The slide is lost" and banner.grave
    desk.load(tiny_bundle)
    desk.wait()
    assert len(said()) == 1 and desk.session.context is None  # prepared ahead of its time, in vain
    desk.engine.predict(None)
    desk.wait()
    assert len(said()) == 2 and "cannot be read" in said()[1] and "put it back" in said()[1]
    assert explorer.run.status.text() == said()[1]
    assert desk.session.prediction is None or not len(desk.session.prediction)
    desk.viewer.layers.remove(layer)
    assert explorer.slide.banners.isHidden()
    desk.open(write_tissue())
    assert explorer.run.predict_view.isEnabled() and explorer.slide.banners.isHidden()


def test_a_file_is_told_of_even_while_it_can_still_be_read(desk, write_tissue, said, tissue):
    desk.dock("Slide explorer")
    path = write_tissue()
    layer = desk.open(path)
    path.unlink()
    desk.qtbot.waitUntil(lambda: len(said()) == 1, timeout=5000)
    pixels = np.asarray(layer.data[0][1000:1200, 1000:1200])
    assert grey(pixels) or (pixels == tissue[1000:1200, 1000:1200]).all()  # as the system has it
    assert len(said()) == 1 and str(path) in said()[0]
