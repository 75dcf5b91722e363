import threading
import time

import numpy as np
import pytest

from chrep_model.errors import ScaleError, SettingsError, SlideError
from chrep_model.geometry import Rect
from chrep_model.slides import tiles as tiles_module
from chrep_model.slides.slide import open_slide
from chrep_model.slides.tiles import TileGrid, TileReader, TileSpec

RNG = np.random.default_rng(0)


def _smooth(rows, cols):
    """A picture whose colours say where they are: red and green rise across and down."""
    r, c = np.mgrid[:rows, :cols]
    return np.stack([c * 255 / cols, r * 255 / rows, 128 + 60 * np.sin(r / 40) * np.sin(c / 40)], -1).astype(
        np.uint8
    )


def test_spec():
    spec = TileSpec.from_um(112, 224)
    assert (spec.mpp, spec.um) == (0.5, 112)
    for mpp, px in [(0, 224), (-1, 224), (0.5, 0), (float("nan"), 10)]:
        with pytest.raises(SettingsError):
            TileSpec(mpp, px)
    with pytest.raises(SettingsError):
        TileSpec.from_um(100, 0)


@pytest.mark.parametrize("stride", [0.25, 0.5, 1.0, 4.0])
@pytest.mark.parametrize("shape", [(1000, 777), (112, 112), (56, 1000), (111, 100)])
def test_grid_holds_every_tile_with_its_centre_in_the_slide(shape, stride):
    grid = TileGrid(shape, 0.5, TileSpec(0.5, 112), stride)
    assert (grid.tile_px, grid.step_px) == (112, 112 * stride)
    centres = grid.centres()
    assert centres.shape == (grid.size, 2)
    assert (centres < shape[::-1]).all()
    expected = [sum(k * grid.step_px + 56 < n for k in range(10_000)) for n in shape]
    assert grid.shape == tuple(expected)


def test_grid_of_a_slide_smaller_than_half_a_tile_is_empty():
    grid = TileGrid((50, 1000), 0.5, TileSpec(0.5, 112))
    assert grid.size == 0
    assert grid.centres().shape == (0, 2)
    assert grid.indices_in(Rect(0, 0, 1000, 1000)).size == 0


def test_flat_indices_count_along_rows():
    grid = TileGrid((1000, 700), 0.25, TileSpec(0.5, 112))
    index = 2 * grid.shape[1] + 1
    np.testing.assert_allclose(grid.centres([index]), [[1.5 * 224, 2.5 * 224]])
    with pytest.raises(IndexError):
        grid.centres([grid.size])


def test_the_same_place_is_the_same_tile_in_every_view():
    grid = TileGrid((10_000, 8_000), 0.263, TileSpec(0.5, 224), 0.5)
    a, b = grid.indices_in(Rect(1000, 1000, 3000, 2000)), grid.indices_in(Rect(2100.5, 1700.25, 3000, 2000))
    shared = grid.indices_in(Rect(2100.5, 1700.25, 1899.5, 1299.75))
    np.testing.assert_array_equal(np.intersect1d(a, b), shared)
    np.testing.assert_array_equal(grid.centres(shared), grid.centres()[shared])


def test_indices_in_are_the_tiles_that_overlap():
    grid = TileGrid((3000, 2000), 0.31, TileSpec(0.5, 100), 0.7)
    rect = Rect(333.3, 500, 400, 161.29)
    half, centres = grid.tile_px / 2, grid.centres()
    overlaps = [Rect.around(x, y, 2 * half, 2 * half).intersection(rect) is not None for x, y in centres]
    np.testing.assert_array_equal(grid.indices_in(rect), np.flatnonzero(overlaps))
    assert grid.indices_in(Rect(-500, -500, 400, 400)).size == 0
    np.testing.assert_array_equal(grid.indices_in(Rect(-9, -9, 1e5, 1e5)), np.arange(grid.size))


def test_order_goes_outwards_and_is_stable():
    grid = TileGrid((1000, 1000), 1.0, TileSpec(1.0, 100))
    order = grid.order_from((500, 500), np.arange(grid.size))
    distance = np.hypot(*(grid.centres(order) - 500).T)
    assert (np.diff(distance) >= -1e-9).all()
    np.testing.assert_array_equal(order[:4], [44, 45, 54, 55])
    assert sorted(order) == list(range(grid.size))


@pytest.mark.parametrize(
    ("mpp", "level"), [(0.25, 0), (0.4, 0), (0.5, 1), (0.504, 1), (0.9, 1), (1.0, 2), (9, 2)]
)
def test_the_nearest_finer_level_is_read(write_pyramid, mpp, level):
    with open_slide(write_pyramid(_smooth(1200, 1200), mpp=0.25)) as slide:
        assert TileReader(slide, TileSpec(mpp, 64)).level == level


def test_scale_is_needed_and_not_invented(write_pyramid):
    with open_slide(write_pyramid(_smooth(300, 300), levels=1, mpp=None)) as slide:
        with pytest.raises(ScaleError, match="--mpp"):
            TileReader(slide, TileSpec(0.5, 64))
        TileReader(slide.with_mpp(0.54), TileSpec(0.5, 64))
        with pytest.raises(ScaleError, match="too coarse"):
            TileReader(slide.with_mpp(0.56), TileSpec(0.5, 64))


def test_tiles_at_the_scale_of_the_slide_are_its_pixels(write_pyramid):
    image = RNG.integers(0, 256, (600, 500, 3), dtype=np.uint8)
    with open_slide(write_pyramid(image, mpp=0.5, levels=1)) as slide:
        tiles = TileReader(slide, TileSpec(0.5, 64)).read([[132, 232], [10, 10]])
        np.testing.assert_array_equal(tiles[0], image[200:264, 100:164])
        np.testing.assert_array_equal(tiles[1][22:, 22:], image[:42, :42])
        assert (tiles[1][:22] == 255).all()


@pytest.mark.parametrize("spec_mpp", [0.25, 0.3, 0.5, 0.77, 1.0, 2.6])
def test_tiles_are_centred_to_half_a_pixel(write_pyramid, spec_mpp):
    """A blurred dot is painted where the tile is centred; its centre of mass has to be that of the tile."""
    r, c = np.mgrid[:1600, :1600]
    x, y = 803.4, 777.8  # continuous: the centre of pixel i is i + 0.5
    dot = np.exp(-((c + 0.5 - x) ** 2 + (r + 0.5 - y) ** 2) / (2 * 30**2))
    image = np.repeat((255 * (1 - dot))[..., None], 3, axis=-1).round().astype(np.uint8)
    with open_slide(write_pyramid(image, mpp=0.25)) as slide:
        px = round(400 * 0.25 / spec_mpp)
        dark = 255.0 - TileReader(slide, TileSpec(spec_mpp, px)).read([[x, y]])[0, ..., 0]
        centre = (np.arange(px) + 0.5) * spec_mpp / 0.25  # in level-0 pixels
        off = [dark.sum(axis) @ centre / dark.sum() - px * spec_mpp / 0.25 / 2 for axis in (0, 1)]
        assert np.abs(off).max() < 0.5


def test_tiles_match_a_resampling_of_the_whole(write_pyramid):
    from PIL import Image

    image = _smooth(1024, 1024)
    with open_slide(write_pyramid(image, mpp=0.25, levels=1)) as slide:
        whole = np.asarray(Image.fromarray(image).resize((256, 256), Image.Resampling.BILINEAR))
        tile = TileReader(slide, TileSpec(1.0, 64)).read([[4 * 96, 4 * 160]])[0]
        np.testing.assert_allclose(tile.astype(int), whole[128:192, 64:128], atol=1)


@pytest.mark.parametrize("spec", [TileSpec(0.5, 64), TileSpec(0.61, 50)])
def test_a_tile_does_not_depend_on_its_batch(write_pyramid, spec):
    with open_slide(write_pyramid(_smooth(1500, 1300), mpp=0.263, compression="zlib")) as slide:
        reader, centres = TileReader(slide, spec), RNG.uniform(-50, 1400, (37, 2))
        tiles = reader.read(centres)
        np.testing.assert_array_equal(np.concatenate([reader.read(c[None]) for c in centres]), tiles)
        shuffled = RNG.permutation(37)
        np.testing.assert_array_equal(reader.read(centres[shuffled]), tiles[shuffled])
        for batch_size, threads, prefetch in [(1, 1, 0), (8, 2, 2), (8, 5, 1), (100, 3, 2)]:
            parts = list(reader.batches(centres, batch_size, threads, prefetch))
            np.testing.assert_array_equal(np.concatenate([p for _, p in parts]), tiles)
            assert [part for s, _ in parts for part in range(s.start, s.stop)] == list(range(37))
        assert list(reader.batches(np.zeros((0, 2)), 8)) == []
        with pytest.raises(SettingsError):
            reader.batches(centres, 0)


def _threads():
    return [t for t in threading.enumerate() if t.name.startswith("chrep-tiles")]


@pytest.mark.parametrize("taken", [1, 3])
def test_closing_the_iterator_stops_its_threads(write_pyramid, taken):
    with open_slide(write_pyramid(_smooth(1500, 1300))) as slide:
        batches = TileReader(slide, TileSpec(0.5, 64)).batches(RNG.uniform(0, 1300, (5000, 2)), 16, threads=3)
        for _ in range(taken):
            next(batches)
        assert _threads()
        started = time.monotonic()
        batches.close()
        assert time.monotonic() - started < 2
        assert not _threads()


def test_reading_ahead_is_bounded(write_pyramid, monkeypatch):
    with open_slide(write_pyramid(_smooth(600, 600), levels=1)) as slide:
        reader, read = TileReader(slide, TileSpec(0.5, 32)), []
        monkeypatch.setattr(
            slide, "read", lambda *a, **k: read.append(1) or np.zeros((a[2], a[3], 3), np.uint8)
        )
        batches = reader.batches(RNG.uniform(0, 600, (1000, 2)), 10, prefetch=2)
        next(batches)
        time.sleep(0.3)
        assert len(read) <= 30
        batches.close()


def test_an_unreadable_tile_ends_the_iteration_with_its_error(write_pyramid):
    slide = open_slide(write_pyramid(_smooth(600, 600), levels=1))
    reader = TileReader(slide, TileSpec(0.5, 32))
    slide.close()
    with pytest.raises(SlideError, match="closed"):
        list(reader.batches(RNG.uniform(0, 600, (100, 2)), 10))
    assert not _threads()


@pytest.mark.parametrize("stride", [0.5, 1.0, 2.0])
def test_the_tile_at_a_place_is_the_one_with_the_nearest_centre(stride):
    grid = TileGrid((1000, 1400), 0.5, TileSpec(0.7, 224), stride)
    centres = grid.centres()
    for index, (x, y) in enumerate(centres):
        for dx, dy in ((0, 0), (0.49, -0.49), (-0.49, 0.49)):
            assert grid.index_at(x + dx * grid.step_px, y + dy * grid.step_px) == index
    assert grid.index_at(centres[0, 0] - 0.51 * grid.step_px, centres[0, 1]) is None
    assert grid.index_at(*(centres[-1] + 0.51 * grid.step_px)) is None


def test_a_scan_goes_row_by_row_in_strips_and_every_tile_of_the_file_is_decoded_once(
    write_pyramid, monkeypatch
):
    monkeypatch.setattr(tiles_module, "STRIP", 4)
    with open_slide(write_pyramid(RNG.integers(0, 255, (700, 900, 3), np.uint8), mpp=0.5, levels=1)) as slide:
        grid = TileGrid(slide.shape, 0.5, TileSpec(0.5, 64))
        order = grid.scan_order(RNG.permutation(grid.size))
        np.testing.assert_array_equal(np.sort(order), np.arange(grid.size))
        rows, cols = np.divmod(order, grid.shape[1])
        assert (np.diff(cols // 4) >= 0).all()
        assert list(zip(rows[:8], cols[:8], strict=True)) == [(r, c) for r in (0, 1) for c in range(4)]

        decoded = []
        decode = slide._backend.decode
        monkeypatch.setattr(slide._backend, "decode", lambda *place: decoded.append(place) or decode(*place))
        list(TileReader(slide, grid.spec).batches(grid.centres(order), 8, threads=4))
        assert len(decoded) == len(set(decoded)) > 4
