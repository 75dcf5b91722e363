"""The part of the slide in view."""

from __future__ import annotations

import numpy as np
import pytest

from chrep_model.geometry import Rect
from napari_chrep.canvas.viewport import Viewport, rect_in_view, view_rect
from napari_chrep.state.session import SLIDE_KEY

SHAPE = (3000, 4000)  # rows, cols


def test_the_rectangle_is_what_the_canvas_shows():
    # 800 x 600 canvas pixels at 2 a µm are 400 x 300 µm, so 800 x 600 px; world 0 is half a pixel in.
    rect = view_rect((0.0, 500.0, 1000.0), 2.0, (600, 800), 0.5, SHAPE)
    assert rect == Rect(2000.5 - 400, 1000.5 - 300, 800, 600)


def test_the_rectangle_is_clipped_to_the_slide():
    assert view_rect((0.0, 0.0), 1.0, (600, 800), 0.5, SHAPE) == Rect(0, 0, 800.5, 600.5)
    assert view_rect((0.0, 0.0), 1e-4, (600, 800), 0.5, SHAPE) == Rect(0, 0, 4000, 3000)


def test_a_slide_out_of_view_has_no_rectangle():
    assert view_rect((0.0, -5000.0), 1.0, (600, 800), 0.5, SHAPE) is None
    assert view_rect((0.0, 0.0), 0.0, (600, 800), 0.5, SHAPE) is None


@pytest.fixture
def viewer_with_slide(make_napari_viewer, write_pyramid):
    viewer = make_napari_viewer()
    path = write_pyramid(np.full((1500, 2100, 3), 200, np.uint8), mpp=0.25, levels=2)
    (layer,) = viewer.open(path, plugin="napari-chrep")
    return viewer, layer


@pytest.mark.parametrize("zoom", [0.9, 4.0, 31.0])
def test_the_rectangle_agrees_with_the_layers_own_coordinates(viewer_with_slide, zoom):
    viewer, layer = viewer_with_slide
    slide = layer.metadata[SLIDE_KEY]
    camera = viewer.scene.camera
    camera.center, camera.zoom = (0, 171.3, 266.6), zoom
    rect = rect_in_view(viewer, slide)
    half = np.array(viewer.canvas.size) / zoom / 2
    top_left = layer.world_to_data(np.array(camera.center[-2:]) - half) + 0.5  # (row, col) of napari
    bottom_right = layer.world_to_data(np.array(camera.center[-2:]) + half) + 0.5
    rows, cols = slide.shape
    np.testing.assert_allclose((rect.y, rect.x), np.clip(top_left, 0, (rows, cols)), atol=1e-6)
    np.testing.assert_allclose((rect.bottom, rect.right), np.clip(bottom_right, 0, (rows, cols)), atol=1e-6)


def test_pan_and_zoom_are_told_at_once_until_nobody_listens(viewer_with_slide):
    viewer, layer = viewer_with_slide
    slide, camera = layer.metadata[SLIDE_KEY], viewer.scene.camera
    camera.zoom = 4
    viewport = Viewport(viewer)
    seen = []
    viewport.moved.connect(lambda: seen.append(viewport.rect(slide)))
    camera.center = (0, 110, 100)
    assert seen[-1] == rect_in_view(viewer, slide)
    told = len(seen)
    camera.zoom = 5
    assert len(seen) > told and seen[-1] == rect_in_view(viewer, slide)
    viewport.disconnect()
    told = len(seen)
    camera.center = (0, 50, 50)
    assert len(seen) == told
