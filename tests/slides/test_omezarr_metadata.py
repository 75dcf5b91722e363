"""Which image of a zarr folder is the slide, in which colours, levels and scale."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import zarr

from chrep_model.errors import SlideError
from chrep_model.slides.backends.omezarr import OmeZarrBackend, is_slide
from chrep_model.slides.backends.omezarr_metadata import um_of_unit
from chrep_model.slides.slide import open_slide

IMAGE = np.random.default_rng(0).integers(0, 256, (300, 420, 3), np.uint8)
AXES = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}


def arrays(group, image=IMAGE, axes="cyx", levels=3, chunk=128):
    """Write (rows, cols, channels) and its levels, every second pixel each; returns their datasets."""
    datasets = []
    for level in range(levels):
        pixels = image[:: 2**level, :: 2**level].transpose(
            [("y", "x", "c").index(a) for a in axes if a in "yxc"]
        )
        pixels = np.expand_dims(pixels, [i for i, axis in enumerate(axes) if axis in "tz"])
        chunks = tuple(chunk if axis in "yx" else n for axis, n in zip(axes, pixels.shape, strict=True))
        group.create_array(str(level), data=np.ascontiguousarray(pixels), chunks=chunks)
        scale = [0.5 * 2**level if axis in "yx" else 1.0 for axis in axes]
        datasets.append(
            {"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        )
    return datasets


def described(axes="cyx", unit="micrometer"):
    return [
        {"name": axis, "type": AXES[axis]} | ({"unit": unit} if AXES[axis] == "space" else {})
        for axis in axes
    ]


def write(path, image=IMAGE, axes="cyx", levels=3, labels=None, colours=None, edit=None, **more):
    """Write OME-Zarr 0.4; `edit` changes the multiscale before it is written."""
    group = zarr.open_group(path, mode="w", zarr_format=2)
    multiscale = {"version": "0.4", "axes": described(axes), "name": "he"}
    multiscale["datasets"] = arrays(group, image, axes, levels)
    if edit:
        edit(multiscale)
    attributes = {"multiscales": [multiscale], **more}
    if labels or colours:
        rows = zip(labels or [None] * len(colours), colours or [""] * len(labels), strict=True)
        attributes["omero"] = {"channels": [{"label": label, "color": colour} for label, colour in rows]}
    group.attrs.update(attributes)
    return path


def pixels(path, **options):
    slide = OmeZarrBackend(path, **options)
    rows, cols = slide.shapes[0]
    found = slide.read(0, 0, 0, rows, cols)
    slide.close()
    return found


@pytest.mark.parametrize(
    ("unit", "um"),
    [
        ("micrometer", 1), ("Micrometer", 1), ("micron", 1), ("microns", 1), ("micrometre", 1), ("µm", 1),
        ("μm", 1), ("um", 1), ("nanometer", 1e-3), ("nm", 1e-3), ("angstrom", 1e-4), ("picometer", 1e-6),
        ("millimeter", 1e3), ("mm", 1e3), ("centimeter", 1e4), ("decimeter", 1e5), ("meter", 1e6),
        ("inch", 25400),
        ("foot", 304800), ("yard", 914400), ("kilometer", 1e9), ("yottameter", 1e30), ("yoctometer", 1e-18),
        ("Mm", None), ("pixel", None), ("second", None), ("", None), (None, None), (1, None), ({}, None),
    ],
)  # fmt: skip
def test_units(unit, um):
    assert um_of_unit(unit) == (None if um is None else pytest.approx(um))


@pytest.mark.parametrize("unit", [None, "", "pixel", 5])
def test_a_scale_without_a_known_unit_is_none(tmp_path, unit):
    def edit(multiscale):
        multiscale["axes"] = described(unit=unit)

    with open_slide(write(tmp_path / "a.zarr", edit=edit)) as slide:
        assert slide.mpp is None and len(slide.levels) == 3


@pytest.mark.parametrize("scale", [0, -0.5, float("inf")])
def test_a_scale_that_cannot_be_is_none(tmp_path, scale):
    def edit(multiscale):
        for dataset in multiscale["datasets"]:
            dataset["coordinateTransformations"] = [{"type": "scale", "scale": [1, scale, scale]}]

    slide = OmeZarrBackend(write(tmp_path / "a.zarr", edit=edit))
    assert slide.mpp_xy is None and slide.downsamples == (1, 2, 4)


def test_the_largest_level_is_level_0_wherever_it_stands(tmp_path):
    path = write(tmp_path / "a.zarr", edit=lambda multiscale: multiscale["datasets"].reverse())
    slide = OmeZarrBackend(path)
    assert slide.shapes == ((300, 420), (150, 210), (75, 105))
    assert slide.downsamples == (1, 2, 4) and slide.mpp_xy == (0.5, 0.5)
    np.testing.assert_array_equal(pixels(path), IMAGE)


def test_a_common_transformation_scales_all_levels(tmp_path):
    def edit(multiscale):
        for factor, dataset in zip((1, 2, 4), multiscale["datasets"], strict=True):
            dataset["coordinateTransformations"] = [{"type": "scale", "scale": [1, factor, factor]}]
        multiscale["coordinateTransformations"] = [{"type": "scale", "scale": [1, 0.25, 0.25]}]

    slide = OmeZarrBackend(write(tmp_path / "a.zarr", edit=edit))
    assert slide.mpp_xy == (0.25, 0.25) and slide.downsamples == (1, 2, 4)


def test_levels_that_begin_elsewhere_are_left_out(tmp_path):
    """Half a pixel is how centres are counted; more is another part of the picture."""

    def edit(multiscale):
        for factor, dataset in zip((1, 2, 4), multiscale["datasets"], strict=True):
            shift = 0.25 * (factor - 1) if factor < 4 else 30.0
            dataset["coordinateTransformations"].append(
                {"type": "translation", "translation": [0, shift, shift]}
            )

    slide = OmeZarrBackend(write(tmp_path / "a.zarr", edit=edit))
    assert slide.shapes == ((300, 420), (150, 210)) and slide.mpp_xy == (0.5, 0.5)


def test_padding_of_a_level_is_cut_off_where_its_scale_says_so(tmp_path):
    path = write(tmp_path / "a.zarr", levels=2)
    padded = np.full((3, 256, 256), 255, np.uint8)
    padded[:, :150, :210] = IMAGE[::2, ::2].transpose(2, 0, 1)
    shutil.rmtree(path / "1")
    zarr.open_group(path, mode="a").create_array("1", data=padded, chunks=(3, 128, 128))
    slide = OmeZarrBackend(path)
    assert slide.shapes == ((300, 420), (150, 210)) and slide.downsamples == (1, 2)
    np.testing.assert_array_equal(slide.read(1, 0, 0, 150, 210), IMAGE[::2, ::2])


def test_a_scale_that_contradicts_the_sizes_is_not_believed(tmp_path):
    def edit(multiscale):
        for dataset in multiscale["datasets"]:
            dataset["coordinateTransformations"] = [{"type": "scale", "scale": [1, 0.5, 0.5]}]

    slide = OmeZarrBackend(write(tmp_path / "a.zarr", edit=edit))
    assert slide.shapes == ((300, 420), (150, 210), (75, 105)) and slide.downsamples == (1, 2, 4)


@pytest.mark.parametrize(
    ("version", "axes", "given"),
    [("0.1", "tczyx", None), ("0.2", "tczyx", None), ("0.3", "cyx", list("cyx")), (None, "cyx", "dicts")],
)
def test_older_versions_are_read_where_their_axes_are_known(tmp_path, version, axes, given):
    def edit(multiscale):
        multiscale["version"] = version
        if given != "dicts":
            multiscale["axes"] = given
            for dataset in multiscale["datasets"]:
                del dataset["coordinateTransformations"]

    path = write(tmp_path / "a.zarr", axes=axes, edit=edit)
    np.testing.assert_array_equal(pixels(path), IMAGE)
    assert OmeZarrBackend(path).mpp_xy == ((0.5, 0.5) if given == "dicts" else None)


@pytest.mark.parametrize(("version", "axes", "word"), [("0.1", None, "axes"), ("0.6", "cyx", "version 0.6")])
def test_what_is_not_known_is_refused(tmp_path, version, axes, word):
    def edit(multiscale):
        multiscale["version"] = version
        multiscale["axes"] = axes and described(axes)

    path = write(tmp_path / "a.zarr", edit=edit)
    with pytest.raises(SlideError, match=word):
        OmeZarrBackend(path)
    assert not is_slide(path)


CYAN = np.dstack([np.full((60, 80), value, np.uint8) for value in (10, 200, 240)])


@pytest.mark.parametrize(
    ("labels", "order"),
    [
        ("r g b", "rgb"), ("b g r", "bgr"), ("Red Green Blue", "rgb"), ("Blue Green Red", "bgr"),
        ("g r b", "grb"), ("0 1 2", "rgb"), ("1 2 3", "rgb"), ("Channel:0:0 Channel:0:1 Channel:0:2", "rgb"),
        ("C0 C1 C2", "rgb"), ("Blue_channel Green_channel Red_channel", "bgr"),
    ],
)  # fmt: skip
def test_names_of_channels_decide_their_colours(tmp_path, labels, order):
    stored = CYAN[..., ["rgb".index(colour) for colour in order]]
    path = write(tmp_path / "a.zarr", stored, levels=1, labels=labels.split())
    np.testing.assert_array_equal(pixels(path), CYAN)


def test_pure_colours_of_channels_without_a_name_decide_too(tmp_path):
    path = write(tmp_path / "a.zarr", CYAN[..., ::-1], levels=1, colours=["0000FF", "00FF00", "FF0000"])
    np.testing.assert_array_equal(pixels(path), CYAN)
    path = write(tmp_path / "b.zarr", CYAN, levels=1, colours=["FFFFFF", "00FF00", "FF0000"])
    np.testing.assert_array_equal(pixels(path), CYAN)


@pytest.mark.parametrize(
    "labels", ["DAPI 18S aSMA", "Cy3 Cy5 Cy7", "Hematoxylin Eosin DAB", "red green DAPI", "r r b"]
)
def test_channels_of_other_names_are_no_he(tmp_path, labels):
    path = write(tmp_path / "a.zarr", labels=labels.split())
    with pytest.raises(SlideError, match=f"its channels are {labels.replace(' ', ', ')}"):
        OmeZarrBackend(path)
    assert not is_slide(path)


def rgba(alpha):
    return np.dstack([IMAGE, np.broadcast_to(np.asarray(alpha, np.uint8), (300, 420))])


def test_alpha_is_laid_over_white(tmp_path):
    clear = np.full((300, 420), 255)
    clear[:, :100] = 0
    for name, labels in (("named", "r g b a"), ("unnamed", "")):
        path = write(tmp_path / f"{name}.zarr", rgba(clear), labels=labels.split())
        found = pixels(path)
        np.testing.assert_array_equal(found[:, 100:], IMAGE[:, 100:])
        assert (found[:, :100] == 255).all() and is_slide(path)
    path = write(
        tmp_path / "argb.zarr", rgba(clear)[..., [3, 0, 1, 2]], labels=["alpha", "red", "green", "blue"]
    )
    np.testing.assert_array_equal(pixels(path)[:, 100:], IMAGE[:, 100:])


def test_a_fourth_channel_that_is_a_picture_is_no_alpha(tmp_path):
    with pytest.raises(SlideError, match=r"4 channel\(s\)"):
        OmeZarrBackend(write(tmp_path / "a.zarr", rgba(IMAGE[..., 0])))


@pytest.mark.parametrize("axes", ["cyx", "yxc", "ycx", "tczyx", "czyx", "zyxc"])
def test_axes_in_any_order(tmp_path, axes):
    np.testing.assert_array_equal(pixels(write(tmp_path / "a.zarr", axes=axes)), IMAGE)


def series(path, **images):
    """Write a group of images, as bioformats2raw (numbers) or SpatialData (names, under "images")."""
    root = zarr.open_group(path, mode="w", zarr_format=2)
    for name, image in images.items():
        write(path / name, image)
    return root


def test_of_several_images_the_largest_is_the_slide_and_all_can_be_chosen(tmp_path):
    small = IMAGE[:100, :100]
    series(tmp_path / "a.zarr", **{"0": small, "1": IMAGE, "2": IMAGE[:200].copy()})
    slide = OmeZarrBackend(tmp_path / "a.zarr")
    assert slide.scenes == ("0", "1", "2") and slide.part == "1" and slide.shapes[0] == (300, 420)
    np.testing.assert_array_equal(pixels(tmp_path / "a.zarr", scene="0"), small)
    assert OmeZarrBackend(tmp_path / "a.zarr", scene="2").part == "2"
    with pytest.raises(SlideError, match=r"no scene 'x'\. Choose from 1 \(0\), 2 \(1\), 3 \(2\)"):
        OmeZarrBackend(tmp_path / "a.zarr", scene="x")


def test_several_multiscales_of_one_group_are_scenes(tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    known = []
    for name, image in (("first", IMAGE[:100, :120]), ("second", IMAGE)):
        datasets = arrays(group.create_group(name), image, levels=1)
        for dataset in datasets:
            dataset["path"] = f"{name}/{dataset['path']}"
        known.append({"version": "0.4", "axes": described(), "name": name, "datasets": datasets})
    group.attrs["multiscales"] = known
    slide = OmeZarrBackend(tmp_path / "a.zarr")
    assert slide.scenes == ("first", "second") and slide.part == "second"
    np.testing.assert_array_equal(pixels(tmp_path / "a.zarr", scene="1"), IMAGE[:100, :120])


@pytest.mark.parametrize(
    "aside", ["S_hires_image", "S_lowres_image", "label", "macro image", "cytassist_image"]
)
def test_a_reduced_or_other_picture_is_never_the_slide_beside_one(tmp_path, aside):
    series(tmp_path / "a.zarr", **{aside: IMAGE, "S_full": IMAGE[:100, :100]})
    slide = OmeZarrBackend(tmp_path / "a.zarr")
    assert slide.part == "S_full" and slide.shapes[0] == (100, 100)


def test_a_picture_with_named_colours_is_the_slide_beside_a_larger_one_without(tmp_path):
    root = series(tmp_path / "a.zarr", he=IMAGE[:100, :100].copy(), other=IMAGE)
    root["he"].attrs["omero"] = {"channels": [{"label": colour} for colour in "rgb"]}
    assert OmeZarrBackend(tmp_path / "a.zarr").part == "he"


def test_dark_channels_without_names_are_fluorescence(tmp_path):
    path = write(tmp_path / "a.zarr", IMAGE // 8)
    with pytest.raises(SlideError, match="are dark, as those of fluorescence"):
        OmeZarrBackend(path)
    named = write(tmp_path / "b.zarr", IMAGE // 8, labels=["r", "g", "b"])
    np.testing.assert_array_equal(pixels(named), IMAGE // 8)


def test_scales_that_stand_at_other_levels_are_not_believed(tmp_path):
    def mixed_up(multiscale):
        first, *_, last = multiscale["datasets"]
        ways = first["coordinateTransformations"], last["coordinateTransformations"]
        last["coordinateTransformations"], first["coordinateTransformations"] = ways

    slide = OmeZarrBackend(write(tmp_path / "a.zarr", edit=mixed_up))
    assert slide.mpp_xy is None and slide.downsamples == (1, 2, 4)


def test_a_level_that_was_never_written_is_not_read_as_black(tmp_path):
    path = write(tmp_path / "a.zarr")
    for number in ("2", "1"):
        for chunk in (path / number).glob("[0-9]*"):
            chunk.unlink()
    slide = OmeZarrBackend(path)
    assert slide.shapes == ((300, 420),)
    np.testing.assert_array_equal(pixels(path), IMAGE)
    for chunk in (path / "0").glob("[0-9]*"):
        chunk.unlink()
    with pytest.raises(SlideError, match="no chunk of its largest level"):
        OmeZarrBackend(path)
    shutil.rmtree(path / "0")
    with pytest.raises(SlideError, match="its level '0' is not in the folder"):
        OmeZarrBackend(path)


def test_a_chunk_that_is_lost_in_one_colour_alone_is_an_error(tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    group.create_array("0", data=np.ascontiguousarray(np.moveaxis(IMAGE, -1, 0)), chunks=(1, 128, 128))
    group.attrs["multiscales"] = [{"version": "0.4", "axes": described(), "datasets": [{"path": "0"}]}]
    np.testing.assert_array_equal(pixels(tmp_path / "a.zarr"), IMAGE)
    (lost,) = (
        file for file in (tmp_path / "a.zarr").rglob("*") if file.match("0/1.0.2") or file.match("1/0/2")
    )
    lost.unlink()
    with pytest.raises(SlideError, match="is not there, but those of other colours are"):
        pixels(tmp_path / "a.zarr")
    for colour in "02":  # what is missing in all of them was never written
        (lost.parent / lost.name.replace("1", colour, 1)).unlink()
    expected = IMAGE.copy()
    expected[:128, 256:384] = 0
    np.testing.assert_array_equal(pixels(tmp_path / "a.zarr"), expected)


def test_a_label_image_is_never_the_slide(tmp_path):
    write(tmp_path / "a.zarr", **{"image-label": {"version": "0.4"}})
    with pytest.raises(SlideError, match="label image"):
        OmeZarrBackend(tmp_path / "a.zarr")


@pytest.mark.parametrize("attributes", [{"plate": {"wells": []}}, {"well": {"images": []}}])
def test_plates_are_refused(tmp_path, attributes):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    group.attrs.update(attributes)
    with pytest.raises(SlideError, match="plate of many images"):
        OmeZarrBackend(tmp_path / "a.zarr")


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_bare_array_is_refused(tmp_path, zarr_format):
    zarr.create_array(tmp_path / "a.zarr", data=IMAGE, zarr_format=zarr_format)
    with pytest.raises(SlideError, match="one zarr array"):
        open_slide(tmp_path / "a.zarr")


def test_a_zip_archive_is_refused_with_what_to_do(tmp_path):
    write(tmp_path / "a.zarr")
    file = shutil.make_archive(str(tmp_path / "a.zarr"), "zip", tmp_path / "a.zarr")
    with pytest.raises(SlideError, match=r"zip archive\. Unpack it"):
        open_slide(file)


def test_a_shape_of_no_slide_is_refused(tmp_path):
    path = write(tmp_path / "a.zarr", levels=1)
    metadata = json.loads((path / "0" / ".zarray").read_text()) | {
        "shape": [3, 2**21, 2**21],
        "chunks": [3, 1024, 1024],
    }
    (path / "0" / ".zarray").write_text(json.dumps(metadata))
    with pytest.raises(SlideError, match="more than any slide"):
        OmeZarrBackend(path)


def test_a_read_after_closing_is_a_clear_error(tmp_path):
    slide = OmeZarrBackend(write(tmp_path / "a.zarr"))
    slide.close()
    with pytest.raises(SlideError, match="closed"):
        slide.read(0, 0, 0, 10, 10)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.999])
def test_a_blosc_chunk_that_is_cut_short_is_an_error_and_no_pixels(tmp_path, share):
    from numcodecs import Blosc

    path = write(tmp_path / "a.zarr", levels=1)
    shutil.rmtree(path / "0")
    stored = np.ascontiguousarray(IMAGE.transpose(2, 0, 1))
    zarr.open_group(path, mode="a").create_array("0", data=stored, chunks=(3, 128, 128), compressors=Blosc())
    chunk = path / "0" / "0.1.1"
    chunk.write_bytes(chunk.read_bytes()[: int(chunk.stat().st_size * share)])
    slide = OmeZarrBackend(path)
    with pytest.raises(SlideError, match="not whole"):
        slide.read(0, 130, 130, 50, 50)
