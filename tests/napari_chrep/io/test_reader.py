"""Slides become layers in micrometres."""

from __future__ import annotations

import time

import numpy as np
import pytest
from PIL import Image

from napari_chrep.io.reader import get_reader, read_slides
from napari_chrep.state.session import SLIDE_KEY


@pytest.fixture
def picture():
    """uint8 (1500, 2100, 3): stripes, no two rows or columns of 64 px alike."""
    rows, cols = np.mgrid[:1500, :2100]
    return np.stack([rows // 64 * 9, cols // 64 * 7, (rows + cols) // 128 * 5], axis=-1).astype(np.uint8)


def layer(viewer, path):
    (added,) = viewer.open(path, plugin="napari-chrep")
    return added


def test_looking_is_cheap_on_a_large_file(tmp_path):
    path = tmp_path / "large.tif"
    with path.open("wb") as stream:
        stream.truncate(2 << 30)  # sparse: 2 GiB that take no room
    start = time.perf_counter()
    assert get_reader(path) is None
    assert time.perf_counter() - start < 1.0


def test_several_slides_become_several_layers(make_napari_viewer, tmp_path, write_pyramid, picture):
    paths = [write_pyramid(picture, name=name) for name in ("a.ome.tif", "b.ome.tif")]
    assert get_reader([*paths, tmp_path]) is None
    data = get_reader(paths)(paths)
    assert [kwargs["name"] for _, kwargs, _ in data] == ["a", "b"]
    viewer = make_napari_viewer()
    viewer.open(paths, plugin="napari-chrep")
    assert [layer.name for layer in viewer.layers] == ["a", "b"]


def test_a_pyramid_is_shown_in_micrometres(make_napari_viewer, write_pyramid, picture):
    viewer = make_napari_viewer()
    slide = layer(viewer, write_pyramid(picture, mpp=0.25, levels=2))
    assert slide.multiscale and slide.rgb
    assert tuple(slide.scale) == (0.25, 0.25)
    assert [str(unit) for unit in slide.units] == ["micrometer", "micrometer"]
    assert slide.name == "slide"
    assert slide.metadata[SLIDE_KEY].mpp.value == 0.25
    assert len(slide.data) == 3  # two of the file, one more to get down to 1024 px
    np.testing.assert_array_equal(np.asarray(slide.data[0][700:710, 900:910]), picture[700:710, 900:910])


def test_one_level_is_enough(make_napari_viewer, write_pyramid, picture):
    viewer = make_napari_viewer()
    slide = layer(viewer, write_pyramid(picture[:600, :800], levels=1))
    assert not slide.multiscale and slide.rgb
    assert tuple(slide.scale) == (0.5, 0.5)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_picture_without_scale_stays_in_pixels(make_napari_viewer, tmp_path, picture, suffix):
    path = tmp_path / f"photo{suffix}"
    Image.fromarray(picture).save(path)
    slide = layer(make_napari_viewer(), path)
    assert slide.metadata[SLIDE_KEY].mpp is None
    assert tuple(slide.scale) == (1, 1)
    assert [str(unit) for unit in slide.units] == ["pixel", "pixel"]


@pytest.mark.real
def test_svs(make_napari_viewer, shared_data):
    slide = layer(make_napari_viewer(), shared_data / "slides" / "CMU-1-Small-Region.svs")
    assert slide.data[0].shape == (2967, 2220, 3)
    np.testing.assert_allclose(slide.scale, 0.499)
    assert [str(unit) for unit in slide.units] == ["micrometer", "micrometer"]


@pytest.mark.real
def test_dicom_folder(shared_data):
    pytest.importorskip("openslide")
    folder = shared_data / "slides" / "CMU-1-Small-Region-dicom"
    assert get_reader(str(folder)) is not None
    ((data, kwargs, kind),) = read_slides(str(folder))
    assert kind == "image"
    assert data[0].shape == (2967, 2220, 3)
    np.testing.assert_allclose(kwargs["scale"], 0.499, rtol=1e-3)
