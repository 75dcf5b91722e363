"""How levels lie on level 0: from sizes alone, and by their pixels where sizes leave it open."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from chrep_model.slides.backends.level_geometry import factor_by_size, placings, whole_factors
from chrep_model.slides.slide import open_slide

BASE = (1203, 1603)
TILED = {"photometric": "rgb", "tile": (128, 128), "metadata": None, "compression": "zlib"}


@pytest.fixture(scope="module")
def tissue(make_tissue):
    return make_tissue(*BASE)


def _reduced(image, factor, padded=None, fill=0):
    """Means over `factor`, the last row and column of what is there, padded to multiples of `padded`."""
    rows, cols = (-(-n // factor) for n in image.shape[:2])
    whole = np.pad(
        image, ((0, rows * factor - len(image)), (0, cols * factor - image.shape[1]), (0, 0)), mode="edge"
    )
    small = np.asarray(Image.fromarray(whole).resize((cols, rows), Image.Resampling.BOX))
    if padded is None:
        return small
    out = np.full((-(-rows // padded) * padded, -(-cols // padded) * padded, 3), fill, np.uint8)
    out[:rows, :cols] = small
    return out


def _write(path, pages):
    with tifffile.TiffWriter(path) as writer:
        for image, options in pages:
            writer.write(np.ascontiguousarray(image), **TILED | options)
    return path


@pytest.mark.parametrize(
    ("base", "shape", "expected"),
    [
        ((3003, 4003), (750, 1000), 4),  # cut off
        ((3003, 4003), (751, 1001), 4),  # rounded up
        ((3003, 4003), (751, 1000), 4),  # one of each
        ((3003, 4003), (47, 63), 64),  # 63 agrees too
        ((1000, 1000), (8, 8), 125),  # exact, though 128 agrees too
        ((4443, 3567), (2221, 1783), 2),
        ((3003, 4003), (910, 1213), 4003 / 1213),
        ((3003, 4003), (768, 1024), 4003 / 1024),  # no whole factor leads there
    ],
)
def test_factors_are_whole_only_where_both_sizes_agree(base, shape, expected):
    assert factor_by_size(base, shape) == pytest.approx(expected, rel=1e-12)


def test_what_cannot_be_a_level_has_no_placing():
    assert placings((1000, 2000), (500, 500), None) == []  # other proportions
    assert placings((1000, 2000), (1000, 2000), None) == []  # no smaller
    assert whole_factors((1000, 2000), (300, 500)) == []


@pytest.mark.parametrize("fill", [0, 255, 128])
def test_levels_padded_to_whole_tiles_are_cut_to_the_picture(tmp_path, tissue, fill):
    levels = [(_reduced(tissue, f, 128, fill), {"subfiletype": 1}) for f in (2, 4)]
    with open_slide(_write(tmp_path / "a.tif", [(tissue, {}), *levels])) as slide:
        assert [level.downsample for level in slide.levels] == [1, 2, 4]
        assert [level.shape for level in slide.levels] == [BASE, (602, 802), (301, 401)]
        np.testing.assert_array_equal(slide.read(0, 0, 301, 401, level=2), _reduced(tissue, 4))
        assert (slide.read(301, 0, 5, 5, level=2) == 255).all()  # padding is outside of the picture


def test_of_factors_that_fit_the_size_the_pixels_decide(tmp_path, tissue):
    """640 x 896 pixels may be one half padded to tiles, or other factors; only one shows the same."""
    for factor in (2, 3):
        padded = _reduced(tissue, factor, 256)
        pages = [(tissue, {}), (padded, {"tile": (256, 256)})]
        with open_slide(_write(tmp_path / f"{factor}.tif", pages)) as slide:
            assert [level.downsample for level in slide.levels] == [1, factor]


@pytest.mark.parametrize("rounding", [np.floor, np.ceil])
def test_odd_sizes_do_not_shift_positions(tmp_path, tissue, rounding):
    levels = []
    for factor in (2, 4, 8):
        rows, cols = (int(rounding(n / factor)) for n in BASE)
        levels.append((_reduced(tissue, factor)[:rows, :cols], {}))
    with open_slide(_write(tmp_path / "a.tif", [(tissue, {}), *levels])) as slide:
        assert [level.downsample for level in slide.levels] == [1, 2, 4, 8]


def test_a_level_with_one_pixel_too_many_does_not_shift_positions(tmp_path, tissue):
    levels = []
    for factor in (2, 4):
        rows, cols = (-(-n // factor) + 1 for n in BASE)
        level = np.full((rows, cols, 3), 255, np.uint8)
        level[:-1, :-1] = _reduced(tissue, factor)
        levels.append((level, {}))
    with open_slide(_write(tmp_path / "a.tif", [(tissue, {}), *levels])) as slide:
        assert [level.downsample for level in slide.levels] == [1, 2, 4]
        assert slide.levels[1].shape == tuple(-(-n // 2) for n in BASE)


def test_the_scale_that_each_page_says_is_used(tmp_path, tissue):
    def said(factor):
        return {"resolution": (40000 / factor,) * 2, "resolutionunit": 3}

    pages = [(tissue, said(1)), (_reduced(tissue, 6, 128), said(6))]
    with open_slide(_write(tmp_path / "a.tif", pages)) as slide:
        assert [level.downsample for level in slide.levels] == [1, 6]
        assert slide.mpp.value == pytest.approx(0.25)
    copied = [(tissue, said(1)), (_reduced(tissue, 2), said(1))]  # as programs do that copy all tags
    with open_slide(_write(tmp_path / "b.tif", copied)) as slide:
        assert [level.downsample for level in slide.levels] == [1, 2]


@pytest.mark.parametrize("way", ["means", "every nth", "the brightest", "sharpened"])
def test_levels_without_a_mark_are_found_however_they_were_made(tmp_path, tissue, way):
    def reduced(factor):
        cut = tissue[: 1203 // factor * factor, : 1603 // factor * factor]
        blocks = cut.reshape(cut.shape[0] // factor, factor, cut.shape[1] // factor, factor, 3)
        size = cut.shape[1] // factor, cut.shape[0] // factor
        return {
            "means": lambda: blocks.mean(axis=(1, 3)).astype(np.uint8),
            "every nth": lambda: tissue[::factor, ::factor],
            "the brightest": lambda: blocks.max(axis=(1, 3)),
            "sharpened": lambda: np.asarray(Image.fromarray(cut).resize(size, Image.Resampling.LANCZOS)),
        }[way]()

    pages = [(tissue, {}), *((reduced(factor), {"compression": "jpeg"}) for factor in (2, 8))]
    with open_slide(_write(tmp_path / "a.tif", pages)) as slide:
        assert [level.downsample for level in slide.levels] == [1, 2, 8]
        assert slide.scenes == ()


@pytest.mark.real
def test_real_pyramid_of_odd_sizes(shared_data):
    with open_slide(shared_data / "slides" / "TCGA-CR-7395-01A-01-TS1.svs") as slide:
        assert [(level.shape, level.downsample) for level in slide.levels] == [
            ((3567, 4443), 1),
            ((1783, 2221), 2),
        ]
        assert slide.mpp is None
        level = slide.read(400, 400, 256, 256, level=1).astype(int)

        def off_by(row, col):  # from level 0, reduced
            whole = slide.read(800 + row, 800 + col, 512, 512).reshape(256, 2, 256, 2, 3).mean(axis=(1, 3))
            return np.abs(level - whole).mean()

        assert off_by(0, 0) < 0.8 * min(off_by(2, 0), off_by(-2, 0), off_by(0, 2), off_by(0, -2))
