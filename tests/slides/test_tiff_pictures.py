"""Which picture of a TIFF file is the slide, what its colours and its scale are."""

import re

import numpy as np
import pytest
import tifffile
from PIL import Image

from chrep_model.errors import SlideError
from chrep_model.slides.slide import is_slide, open_slide

TILED = {"photometric": "rgb", "tile": (128, 128), "compression": "zlib"}
PAGE = TILED | {"metadata": None}
STRIPS = {"tile": None, "rowsperstrip": 64}


@pytest.fixture(scope="module")
def slide_image(make_tissue):
    return make_tissue(1024, 1280)


@pytest.fixture(scope="module")
def other_image(make_tissue):
    return make_tissue(1024, 1280, seed=7)


def _half(image, factor=2):
    return np.asarray(Image.fromarray(image).reduce(factor))


def _pages(path, *pages):
    with tifffile.TiffWriter(path) as writer:
        for image, options in pages:
            writer.write(np.ascontiguousarray(image), **PAGE | options)
    return path


def _ome(path, *images):
    with tifffile.TiffWriter(path, ome=True) as writer:
        for image, metadata, options in images:
            writer.write(np.ascontiguousarray(image), **TILED | options, metadata=metadata)
    return path


def _about(name=None, mpp=0.5, **more):
    named = {} if name is None else {"Name": name}
    scale = {} if mpp is None else {"PhysicalSizeX": mpp, "PhysicalSizeY": mpp}
    return {"axes": "YXS"} | named | scale | more


def _shows(slide, image):
    np.testing.assert_array_equal(slide.read(0, 0, *slide.shape), image)


def test_what_lies_before_and_beside_the_slide_is_neither_slide_nor_level(tmp_path, slide_image, other_image):
    mask = np.repeat(np.where(slide_image.mean(axis=2, keepdims=True) < 225, 255, 0), 3, axis=2).astype(
        np.uint8
    )
    extras = {
        "a thumbnail in strips": [(_half(slide_image, 8), STRIPS)],
        "a thumbnail by its name": [(_half(slide_image, 8), {"description": "thumbnail"})],
        "a macro picture": [(other_image[:200, :420], STRIPS)],
        "a label of the same proportions": [(_half(other_image, 8), STRIPS | {"subfiletype": 1})],
        "another core": [(_half(other_image, 4), {})],
        "a mask": [(_half(mask), {"subfiletype": 1})],
        "a mask in negative": [(255 - _half(mask), {})],
        "a grey mask": [(_half(mask)[..., 0], {"photometric": "minisblack"})],
        "the slide upside down": [(_half(slide_image, 4)[::-1], {})],
    }
    slide = [(slide_image, {}), (_half(slide_image), {"subfiletype": 1})]
    for name, extra in extras.items():
        for order in (extra + slide, slide + extra):
            with open_slide(_pages(tmp_path / "a.tif", *order)) as found:
                assert [level.shape for level in found.levels] == [(1024, 1280), (512, 640)], name
                _shows(found, slide_image)


def test_a_thumbnail_in_tiles_before_the_slide_is_no_level(tmp_path, slide_image):
    pages = [(_half(slide_image, 8), {}), (slide_image, {}), (_half(slide_image), {})]
    with open_slide(_pages(tmp_path / "a.tif", *pages)) as slide:
        assert [level.shape for level in slide.levels] == [(1024, 1280), (512, 640)]
        assert slide.scenes == ()


def test_a_mask_is_not_the_slide_even_if_it_is_larger_and_first(tmp_path, slide_image):
    mask = np.repeat(np.where(slide_image.mean(axis=2, keepdims=True) < 225, 255, 0), 3, axis=2).astype(
        np.uint8
    )
    larger = np.kron(mask, np.ones((2, 2, 1), np.uint8))
    with open_slide(_pages(tmp_path / "a.tif", (larger, {}), (slide_image, {}))) as slide:
        _shows(slide, slide_image)
        assert slide.scenes == ()


def test_an_empty_slide_keeps_its_levels(tmp_path):
    glass = np.full((1024, 1280, 3), 243, np.uint8)
    with open_slide(
        _pages(tmp_path / "a.tif", (glass, {}), (_half(glass), {}), (_half(glass, 4), {}))
    ) as slide:
        assert [level.downsample for level in slide.levels] == [1, 2, 4]


def test_pictures_of_an_aperio_slide(tmp_path, slide_image, other_image):
    """Slide, thumbnail, a level behind it, label and macro, as ImageScope writes them."""

    def said(text):
        return {"description": f"Aperio Image Library v11.2.1\r\n{text}", "software": None}

    with tifffile.TiffWriter(tmp_path / "a.svs") as writer:
        for image, options in [
            (slide_image, said("1280x1024 (128x128) JPEG/RGB Q=70|AppMag = 20|MPP = 0,4990")),
            (_half(slide_image, 4), said("1280x1024 -> 320x256 - |AppMag = 20")),
            (_half(slide_image), said("1280x1024 (128x128) -> 640x512 JPEG/RGB Q=70|AppMag = 20")),
            (_half(other_image, 8), said("label 160x128") | STRIPS | {"subfiletype": 1}),
            (_half(slide_image, 8), said("macro 160x128") | STRIPS | {"subfiletype": 9}),
        ]:
            writer.write(np.ascontiguousarray(image), **PAGE | options)
    with open_slide(tmp_path / "a.svs") as slide:
        assert [level.shape for level in slide.levels] == [(1024, 1280), (512, 640)]
        assert (slide.mpp.value, slide.properties["objective"]) == (0.499, "20")
        assert slide.scenes == ()


def test_scenes_are_named_and_can_be_chosen(tmp_path, slide_image, other_image):
    path = _ome(
        tmp_path / "a.ome.tif",
        (other_image[:800], _about("core B", 0.5), {}),
        (slide_image, _about("core A", 0.25), {}),
        (_half(other_image), _about("macro image", 8.0), {}),
    )
    with open_slide(path) as slide:
        assert (slide.scene, slide.scenes) == ("core A", ("core B", "core A"))
        assert slide.mpp.value == 0.25
        _shows(slide, slide_image)
        default = slide.fingerprint
    for name in ("core B", "1"):
        with open_slide(path, scene=name) as slide:
            assert (slide.scene, slide.mpp.value) == ("core B", 0.5)
            _shows(slide, other_image[:800])
            assert slide.fingerprint != default  # embeddings are stored by it
    with open_slide(path, scene="core A") as slide:
        assert slide.fingerprint == default
    with pytest.raises(SlideError, match=r"no scene 'core C'.*1 \(core B\), 2 \(core A\)"):
        open_slide(path, scene="core C")


def test_a_file_with_one_picture_has_no_scenes(tmp_path, slide_image, write_pyramid):
    Image.fromarray(slide_image).save(tmp_path / "a.png")
    for path in (write_pyramid(slide_image), tmp_path / "a.png"):
        with open_slide(path, scene="1") as slide:
            assert slide.scenes == ()
        with pytest.raises(SlideError, match="no scene"):
            open_slide(path, scene="2")


def test_of_pictures_of_one_size_each_has_its_own_scale(tmp_path, slide_image, other_image):
    images = [(slide_image, _about("A", 8.0), {}), (other_image, _about("B", 0.5), {})]
    for order in (images, images[::-1]):
        with open_slide(_ome(tmp_path / "a.ome.tif", *order)) as slide:
            assert (slide.scene, slide.mpp.value) == ("B", 0.5)
            _shows(slide, other_image)


def test_a_larger_label_picture_does_not_hide_the_slide(tmp_path, slide_image):
    labels = np.zeros((2000, 2000), np.uint16)
    grey = {"photometric": "minisblack"}
    path = _ome(
        tmp_path / "a.ome.tif", (labels, {"axes": "YX", "Name": "cells"}, grey), (slide_image, _about(), {})
    )
    with open_slide(path) as slide:
        _shows(slide, slide_image)
        assert slide.mpp.value == 0.5


@pytest.mark.parametrize(
    ("names", "order"),
    [(None, "rgb"), (["Red", "Green", "Blue"], "rgb"), (["b", "g", "r"], "bgr"), (["G", "R", "B"], "grb"),
     (["Channel 0", "Channel 1", "Channel 2"], "rgb")],
)  # fmt: skip
def test_one_page_for_each_colour(tmp_path, slide_image, names, order):
    pages = np.stack([slide_image[..., "rgb".index(colour)] for colour in order])
    about = _about() | {"axes": "CYX"} | ({} if names is None else {"Channel": {"Name": names}})
    options = TILED | {"photometric": "minisblack"}
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as writer:
        writer.write(pages, subifds=1, metadata=about, **options)
        writer.write(pages[:, ::2, ::2], subfiletype=1, **options)
    with open_slide(tmp_path / "a.ome.tif") as slide:
        assert [level.downsample for level in slide.levels] == [1, 2]
        assert slide.mpp.value == 0.5
        _shows(slide, slide_image)
        np.testing.assert_array_equal(slide.read(0, 0, 512, 640, level=1), slide_image[::2, ::2])
    assert is_slide(tmp_path / "a.ome.tif")


def test_planes_in_another_order_keep_their_names_and_scale(tmp_path, slide_image):
    """The first plane need not be in the first directory."""
    path = tmp_path / "a.ome.tif"
    stored = np.moveaxis(slide_image, -1, 0)[::-1]
    grey = TILED | {"photometric": "minisblack"}

    def write(names):
        tifffile.imwrite(
            path, stored, **grey, metadata=_about() | {"axes": "CYX", "Channel": {"Name": names}}
        )
        planes = "".join(f'<TiffData IFD="{2 - c}" FirstC="{c}" PlaneCount="1"/>' for c in range(3))
        xml = re.sub("<TiffData.*?</TiffData>|<TiffData[^>]*/>", "", tifffile.tiffcomment(path), flags=re.S)
        tifffile.tiffcomment(path, xml.replace("</Pixels>", f"{planes}</Pixels>").encode())

    write(["Red", "Green", "Blue"])
    with open_slide(path) as slide:
        assert slide.mpp.value == 0.5
        _shows(slide, slide_image)
    write(["DAPI", "FITC", "Cy5"])
    with pytest.raises(SlideError, match="as of fluorescence"):
        open_slide(path)


def test_channels_of_fluorescence_are_refused_by_their_names(tmp_path, slide_image):
    pages = np.moveaxis(slide_image, -1, 0)
    grey = TILED | {"photometric": "minisblack"}
    for number, channel in enumerate(
        [
            {"Name": ["DAPI", "FITC", "Cy5"]},
            {"Name": ["1", "2", "3"], "EmissionWavelength": [460, 520, 670]},
        ]
    ):
        path = tmp_path / f"{number}.ome.tif"
        tifffile.imwrite(path, pages, **grey, metadata={"axes": "CYX", "Channel": channel})
        with pytest.raises(SlideError, match="as of fluorescence"):
            open_slide(path)
        assert not is_slide(path)
    two = tmp_path / "two.ome.tif"
    tifffile.imwrite(two, pages[:2], **grey, metadata={"axes": "CYX"})
    with pytest.raises(SlideError, match="separate channels"):
        open_slide(two)


def test_planar_pixels_with_alpha_lie_over_white(tmp_path, slide_image):
    alpha = np.full((*slide_image.shape[:2], 1), 255, np.uint8)
    alpha[:, 640:] = 0
    rgba = np.moveaxis(np.concatenate([slide_image, alpha], axis=2), -1, 0)
    options = PAGE | {"planarconfig": "separate"}
    for kind in ("unassalpha", "assocalpha", "unspecified"):
        picture = rgba * (rgba[3:] > 0) if kind == "assocalpha" else rgba
        tifffile.imwrite(tmp_path / f"{kind}.tif", picture, extrasamples=[kind], **options)
        with open_slide(tmp_path / f"{kind}.tif") as slide:
            _shows(slide, slide_image if kind == "unspecified" else np.where(alpha > 0, slide_image, 255))


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("rows", [1, 100, 1024])
def test_strips_of_any_size(tmp_path, slide_image, rows, planar):
    image = np.moveaxis(slide_image, -1, 0) if planar else slide_image
    for compression in (None, "zlib"):
        options = {"photometric": "rgb", "metadata": None, "rowsperstrip": rows, "compression": compression}
        tifffile.imwrite(
            tmp_path / "a.tif", image, **options, planarconfig="separate" if planar else "contig"
        )
        with open_slide(tmp_path / "a.tif") as slide:
            _shows(slide, slide_image)
            np.testing.assert_array_equal(slide.read(500, 700, 60, 50), slide_image[500:560, 700:750])


@pytest.mark.slow
def test_a_huge_strip_is_read_by_rows(tmp_path, growth_mb):
    """As ImageJ and Space Ranger write: 1.7 GB in one strip, of which a region takes a few MB."""
    path = tmp_path / "huge.tif"
    options = {"photometric": "rgb", "metadata": None}
    image = tifffile.memmap(path, shape=(24240, 24240, 3), dtype=np.uint8, **options)
    image[12000:12100, 12000:12100] = 7
    image.flush()
    del image
    setup = f"from chrep_model.slides.slide import open_slide\nslide = open_slide({str(path)!r})"
    measured = "assert slide.read(11990, 11990, 120, 120).sum() == 100 * 100 * 3 * 7"
    assert growth_mb(setup, measured) < 50
    assert is_slide(path)
    path.unlink()


def test_a_large_compressed_strip_is_decoded_once(tmp_path, slide_image, monkeypatch):
    from chrep_model.slides.backends import tiff_levels

    monkeypatch.setattr(tiff_levels, "_LARGE_STRIP_PX", 1000)
    options = {"photometric": "rgb", "metadata": None, "compression": "zlib", "rowsperstrip": 700}
    tifffile.imwrite(tmp_path / "a.tif", slide_image, **options)
    with open_slide(tmp_path / "a.tif") as slide:
        assert slide.pyramid()[0].chunksize == (1024, 1024, 3)  # tiles of 512, not one strip
        _shows(slide, slide_image)
        (tmp_path / "a.tif").write_bytes(b"")  # what is decoded is there
        np.testing.assert_array_equal(slide.read(600, 0, 200, 1280), slide_image[600:800])


def test_a_strip_behind_the_end_is_a_file_cut_short(tmp_path, slide_image):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, slide_image, photometric="rgb", metadata=None)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(SlideError, match="cut short"):
        open_slide(path)


@pytest.mark.parametrize("tag", [2, 3, 6, 8])
def test_orientation_is_said_and_not_applied(tmp_path, slide_image, tag):
    exif = Image.Exif()
    exif[0x0112] = tag
    Image.fromarray(slide_image).save(tmp_path / "a.png", exif=exif)
    Image.fromarray(slide_image).save(tmp_path / "a.jpg", exif=exif)
    tifffile.imwrite(tmp_path / "a.tif", slide_image, **PAGE, extratags=[(274, 3, 1, tag, True)])
    words = {2: "mirrored left", 3: "180 degrees", 6: "90 degrees clockwise", 8: "counterclockwise"}[tag]
    for name in ("a.png", "a.jpg", "a.tif"):
        with open_slide(tmp_path / name) as slide:
            assert words in slide.properties["orientation"]
            if name != "a.jpg":
                _shows(slide, slide_image)
    Image.fromarray(slide_image).save(tmp_path / "plain.png")
    with open_slide(tmp_path / "plain.png") as slide:
        assert "orientation" not in slide.properties


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (0.5 / 25400, "in", 0.5), (0.5 / 25.4, "thou", 0.5), (0.5 * 12 / 25400, "li", 0.5), (5e-6, "dm", 0.5),
        (0.5 / 304800, "ft", 0.5), (0.5 / 914400, "yd", 0.5), (0.5 * 72 / 25400, "pt", 0.5),
        (5e-8, "dam", 0.5), (5e-9, "hm", 0.5), (5e-10, "km", 0.5), (5e-13, "Mm", 0.5), (5000, "\u00c5", 0.5),
        (0.5, "\u03bcm", 0.5), (1, "reference frame", None), (0, "\u00b5m", None), (-0.5, "\u00b5m", None),
        (float("nan"), "\u00b5m", None),
    ],
)  # fmt: skip
def test_every_length_of_ome(tmp_path, slide_image, value, unit, expected):
    about = {"axes": "YXS"} | {
        f"PhysicalSize{a}{s}": v for a in "XY" for s, v in (("", value), ("Unit", unit))
    }
    tifffile.imwrite(tmp_path / "a.ome.tif", slide_image, **TILED, metadata=about)
    with open_slide(tmp_path / "a.ome.tif") as slide:
        assert (slide.mpp and slide.mpp.value) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("unit", "per_unit", "expected"),
    [("mm", 2000, 0.5), ("nm", 0.002, 0.5), ("cm", 20000, 0.5), ("inch", 50800, 0.5), ("microns", 2, 0.5),
     ("\\u00B5m", 2, 0.5), ("micrometer", 2, 0.5), ("m", 2e6, 0.5), ("pixel", 1, None), ("", 1, None)],
)  # fmt: skip
def test_every_unit_of_imagej(tmp_path, slide_image, unit, per_unit, expected):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, slide_image, imagej=True, resolution=(per_unit, per_unit), metadata={"unit": unit})
    with open_slide(path) as slide:
        assert (slide.mpp and slide.mpp.value) == (expected and pytest.approx(expected, rel=1e-4))
    assert is_slide(path) == (expected is not None)  # a plain picture that says its scale is a slide


def test_resolution_tags_count_where_ome_gives_no_length(tmp_path, slide_image):
    tags = {"resolution": (20000, 20000), "resolutionunit": 3}
    for number, about in enumerate(
        [_about(mpp=None), _about(PhysicalSizeXUnit="pixel", PhysicalSizeYUnit="pixel")]
    ):
        tifffile.imwrite(tmp_path / f"{number}.ome.tif", slide_image, **TILED, **tags, metadata=about)
        with open_slide(tmp_path / f"{number}.ome.tif") as slide:
            assert slide.mpp.value == pytest.approx(0.5)


@pytest.mark.parametrize("kind", ["webp", "bmp", "jp2"])
def test_other_plain_pictures(tmp_path, slide_image, kind):
    lossless = {"webp": {"lossless": True}, "bmp": {}, "jp2": {"irreversible": False}}[kind]
    Image.fromarray(slide_image).save(tmp_path / f"a.{kind}", **lossless)
    with open_slide(tmp_path / f"a.{kind}") as slide:
        _shows(slide, slide_image)
    assert is_slide(tmp_path / f"a.{kind}")
    (tmp_path / f"a.{kind}").write_bytes((tmp_path / f"a.{kind}").read_bytes()[:-5000])
    with pytest.raises(SlideError), open_slide(tmp_path / f"a.{kind}") as slide:
        slide.read(0, 0, 5, 5)
