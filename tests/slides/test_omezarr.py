"""OME-Zarr and SpatialData as slides: real stores, written by the libraries that people write them with."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import zarr
from ome_zarr.format import FormatV04, FormatV05
from ome_zarr.writer import write_multiscale

from chrep_model.errors import SlideError
from chrep_model.slides.slide import is_slide, open_slide

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(1, 256, (301, 420, 3), dtype=np.uint8)
AXES = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}


def write(path, image=IMAGE, axes="tczyx", *, fmt=None, unit="micrometer", scale=0.5, levels=2, **options):
    """Write (rows, cols, channels), every second pixel for each further level."""
    fmt = fmt or FormatV05()
    group = zarr.open_group(path, mode="w", zarr_format=fmt.zarr_format)
    order = [("y", "x", "c").index(axis) for axis in axes if axis in "yxc"]
    arrays, steps = [], []
    for level in range(levels):
        planes = image[:: 2**level, :: 2**level].transpose(order)
        arrays.append(np.expand_dims(planes, [i for i, axis in enumerate(axes) if axis in "tz"]))
        size = [scale * 2**level if axis in "yx" else 1 for axis in axes]
        steps.append([{"type": "scale", "scale": size}])
    described = [
        {"name": axis, "type": AXES[axis]} | ({"unit": unit} if AXES[axis] == "space" and unit else {})
        for axis in axes
    ]
    options = {"storage_options": {"chunks": tuple(100 if axis in "yx" else 1 for axis in axes)}} | options
    write_multiscale(arrays, group, fmt=fmt, axes=described, coordinate_transformations=steps, **options)
    return path


@pytest.mark.parametrize(
    ("fmt", "axes"), [(FormatV04(), "tczyx"), (FormatV05(), "tczyx"), (FormatV05(), "cyx")]
)
def test_both_versions_are_read(tmp_path, fmt, axes):
    path = write(tmp_path / "he.ome.zarr", fmt=fmt, axes=axes)
    assert is_slide(path)
    with open_slide(path) as slide:
        assert slide.name == "he"
        assert [level.shape for level in slide.levels] == [(301, 420), (151, 210)]
        assert (slide.mpp.value, slide.mpp.source) == (0.5, "file")
        assert slide.properties["format"] == f"OME-Zarr {fmt.version}"
        np.testing.assert_array_equal(slide.read(0, 0, 301, 420), IMAGE)
        np.testing.assert_array_equal(slide.read(40, 60, 90, 130, level=1), IMAGE[80:260:2, 120:380:2])
        assert (slide.read(-5, 400, 20, 40)[:5] == 255).all()
        image, downsample = slide.thumbnail(210)
        assert image.shape == (151, 210, 3) and downsample == 2


def test_channels_last(tmp_path):
    """Not in the order of the specification, yet some write it."""
    path = write(tmp_path / "yxc.zarr", axes="cyx", levels=1)
    metadata = json.loads((path / "zarr.json").read_text())
    multiscale = metadata["attributes"]["ome"]["multiscales"][0]
    multiscale["axes"] = multiscale["axes"][1:] + multiscale["axes"][:1]
    multiscale["datasets"][0]["coordinateTransformations"][0]["scale"] = [0.5, 0.5, 1]
    zarr.create_array(path / "s0", data=IMAGE, chunks=(100, 100, 3), overwrite=True)
    (path / "zarr.json").write_text(json.dumps(metadata))
    with open_slide(path) as slide:
        np.testing.assert_array_equal(slide.read(10, 20, 200, 300), IMAGE[10:210, 20:320])
        assert slide.mpp.value == 0.5


@pytest.mark.parametrize(
    ("unit", "scale", "mpp"),
    [("nanometer", 250, 0.25), ("millimeter", 5e-4, 0.5), (None, 0.5, None), ("parsec", 0.5, None)],
)
def test_scale_is_taken_in_its_unit_only(tmp_path, unit, scale, mpp):
    path = write(tmp_path / "he.zarr", axes="cyx", scale=scale, unit=None, levels=1)
    text = (path / "zarr.json").read_text()
    if unit:
        text = text.replace('"type": "space"', f'"type": "space", "unit": "{unit}"')
    (path / "zarr.json").write_text(text)
    with open_slide(path) as slide:
        assert slide.mpp is None if mpp is None else slide.mpp.value == pytest.approx(mpp)


def test_sharded_chunks_and_levels_that_are_no_smaller(tmp_path):
    path = write(tmp_path / "he.zarr", axes="cyx", levels=1)
    metadata = json.loads((path / "zarr.json").read_text())
    datasets = metadata["attributes"]["ome"]["multiscales"][0]["datasets"]
    for name in ("same", "strip"):
        pixels = np.moveaxis(IMAGE if name == "same" else IMAGE[:20, :50], -1, 0)
        zarr.create_array(
            path / name, data=np.ascontiguousarray(pixels), chunks=(1, 50, 50), shards=(3, 200, 200)
        )
        datasets.append(datasets[0] | {"path": name})
    datasets.pop(0)
    (path / "zarr.json").write_text(json.dumps(metadata))
    with open_slide(path) as slide:
        assert [level.shape for level in slide.levels] == [(301, 420)]
        np.testing.assert_array_equal(slide.read(0, 0, 301, 420), IMAGE)


def test_what_is_no_rgb_is_said(tmp_path):
    for name, image, match in [
        ("deep", IMAGE.astype(np.uint16), "uint16 instead of uint8"),
        ("grey", IMAGE[..., :1], r"1 channel\(s\)"),
        ("rgba", np.dstack([IMAGE, IMAGE[..., :1]]), r"4 channel\(s\)"),
    ]:
        path = write(tmp_path / f"{name}.zarr", image)
        with pytest.raises(SlideError, match=match) as caught:
            open_slide(path)
        assert "Convert it" in str(caught.value) and str(path) in str(caught.value)
        assert is_slide(path) == (name == "rgba")  # whose fourth channel only its pixels tell
    zarr.open_group(tmp_path / "empty.zarr", mode="w")
    plate = zarr.open_group(tmp_path / "plate.zarr", mode="w")
    plate.attrs["ome"] = {"version": "0.5", "plate": {}}
    damaged = write(tmp_path / "damaged.zarr")
    (damaged / "zarr.json").write_text("{")
    for name, match in [("empty", "no image"), ("plate", "plate"), ("damaged", "damaged: zarr.json")]:
        with pytest.raises(SlideError, match=match):
            open_slide(tmp_path / f"{name}.zarr")
        assert not is_slide(tmp_path / f"{name}.zarr")


def test_fingerprint_follows_the_pixels(tmp_path):
    first, copy = write(tmp_path / "a.zarr"), write(tmp_path / "b.zarr")
    other = write(tmp_path / "c.zarr", 255 - IMAGE)
    (copy / "labels").mkdir()
    (copy / "labels" / "zarr.json").write_text("{}")
    prints = [open_slide(path).fingerprint for path in (first, copy, other)]
    assert prints[0] == prints[1] != prints[2]


def test_the_fingerprint_of_a_slide_that_is_gone_is_an_error_with_a_remedy(tmp_path):
    with open_slide(write(tmp_path / "a.zarr")) as slide:
        shutil.rmtree(tmp_path / "a.zarr")
        with pytest.raises(SlideError, match=r"a\.zarr: the slide cannot be read .* put it back"):
            _ = slide.fingerprint


@pytest.mark.parametrize("gone", ["folder", "chunk", "cut", "metadata"])
def test_what_is_lost_while_it_is_open_is_an_error_and_never_black(tmp_path, gone):
    path = write(tmp_path / "he.zarr", axes="cyx", levels=1)
    with open_slide(path) as slide:
        chunk = path / "s0" / "c" / "1" / "0" / "0"
        if gone == "folder":
            shutil.rmtree(path)
        elif gone == "chunk":
            chunk.unlink()
        elif gone == "metadata":
            shutil.rmtree(path / "s0")
        else:
            chunk.write_bytes(chunk.read_bytes()[:50])
        with pytest.raises(SlideError, match="row 0, column 0 of level 0 cannot be read") as caught:
            slide.read(0, 0, 50, 50)
        assert ("put it back" in str(caught.value)) == (gone == "folder")


def test_chunks_that_were_never_written_are_what_the_store_says(tmp_path):
    image = IMAGE.copy()
    image[:100, :100] = 0  # zarr leaves such a chunk out
    path = write(tmp_path / "he.zarr", image, axes="cyx", levels=1)
    assert not (path / "s0" / "c" / "0" / "0" / "0").exists()
    with open_slide(path) as slide:
        np.testing.assert_array_equal(slide.read(0, 0, 301, 420), image)
    with pytest.raises(SlideError, match="closed"):
        slide.read(0, 0, 10, 10)


def test_spatialdata_gives_its_largest_rgb_image(tmp_path):
    spatialdata = pytest.importorskip("spatialdata")
    from spatialdata.models import Image2DModel
    from spatialdata.transformations import Identity, Scale

    he, small = np.moveaxis(IMAGE, -1, 0), np.moveaxis(IMAGE[:90, :80], -1, 0)
    in_um = {"global": Identity(), "micrometer": Scale([0.25, 0.25], axes=("x", "y"))}
    images = {
        "dapi": Image2DModel.parse(np.concatenate([he, he])[:5], dims="cyx"),
        "he": Image2DModel.parse(he, dims="cyx", scale_factors=[2], transformations=in_um),
        "small": Image2DModel.parse(small, dims="cyx"),
    }
    spatialdata.SpatialData(images=images).write(tmp_path / "store.zarr")
    spatialdata.SpatialData(images={"small": images["small"]}).write(tmp_path / "one.zarr")
    assert is_slide(tmp_path / "store.zarr")
    with open_slide(tmp_path / "store.zarr") as slide:
        assert slide.name == "store he"
        assert len(slide.levels) == 2 and slide.properties["format"] == "SpatialData"
        assert slide.mpp.value == 0.25
        np.testing.assert_array_equal(slide.read(0, 0, *slide.shape), IMAGE)
    with open_slide(tmp_path / "one.zarr") as slide:
        assert slide.name == "one" and slide.mpp is None  # its numbers have no unit
    spatialdata.SpatialData(images={"dapi": images["dapi"]}).write(tmp_path / "fluo.zarr")
    with pytest.raises(SlideError, match=r"5 channel\(s\)"):
        open_slide(tmp_path / "fluo.zarr")


def test_bioformats2raw_gives_the_slide_and_not_its_label(tmp_path):
    root = zarr.open_group(tmp_path / "slide.zarr", mode="w", zarr_format=2)
    root.attrs["bioformats2raw.layout"] = 3
    write(tmp_path / "slide.zarr" / "0", fmt=FormatV04())
    write(tmp_path / "slide.zarr" / "1", IMAGE[:50, :60], fmt=FormatV04(), levels=1)
    with open_slide(tmp_path / "slide.zarr") as slide:
        assert slide.shape == (301, 420) and slide.name == "slide 0"
