"""One tile, one value, whatever else was asked for."""

import numpy as np
import pytest

from chrep_model.embeddings import CLIP, SlideEmbeddings
from chrep_model.embeddings import slide as module
from chrep_model.errors import ScaleError, SlideError
from chrep_model.geometry import Rect
from chrep_model.progress import Progress
from chrep_model.slides.slide import open_slide
from chrep_model.slides.tiles import TileGrid


def test_the_slide_has_glass_and_tissue(make):
    embeddings = make()
    assert 100 < len(embeddings.tissue) < embeddings.grid.size - 50


def test_values_are_the_encoders_standardised_by_the_tissue(make, colours, of_tiles):
    embeddings = make()
    every = embeddings.tissue  # fewer than the sample's size: the sample is all of them
    found = of_tiles(embeddings, every)
    tiles = embeddings.reader.read(embeddings.grid.centres(every))
    raw = colours().encode(tiles, colours().fit_slide(tiles))
    expected = np.clip((raw - raw.mean(0)) / raw.std(0), -CLIP, CLIP)
    assert len(every) < 256
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(found.std(0), 1, atol=0.1)


@pytest.mark.parametrize("cache", [False, True])
def test_a_tile_has_one_value_whatever_else_was_asked_for(make, cache, of_tiles):
    context = (120.0, 250.0)
    reference = make()
    every = np.arange(reference.grid.size)
    expected = of_tiles(reference, every, context)
    assert np.isfinite(expected).all()

    rng = np.random.default_rng(0)
    piecemeal = make(cache=cache, batch_size=3)
    for part in np.array_split(rng.permutation(every), 9):
        found = of_tiles(piecemeal, part, context)
        np.testing.assert_allclose(found, expected[part], atol=1e-5)
    again = rng.permutation(every)[:40]
    np.testing.assert_allclose(of_tiles(piecemeal, again, context), expected[again], atol=1e-5)
    # as points instead of as tiles of the grid, and in another instance that finds them in the store
    points = reference.grid.centres(again)
    for embeddings in (make(), make(cache=cache, batch_size=32)):
        np.testing.assert_allclose(embeddings.at(points, context), expected[again], atol=1e-5)


def test_context_is_the_mean_over_tissue_tiles_within_the_radius(make, of_tiles):
    embeddings = make()
    points = np.array([[300.0, 260.0], [200.3, 180.9], [95.0, 95.0]])
    found = embeddings.at(points, (100.0, 260.0))
    dim = embeddings.encoder.dim
    assert found.shape == (3, 3 * dim)
    tissue = embeddings.tissue
    centres = embeddings.grid.centres(tissue)
    values = of_tiles(make(), tissue)
    for row, point in zip(found, points, strict=True):
        for i, radius in enumerate((100.0, 260.0), start=1):
            near = np.hypot(*(centres - point).T) * embeddings.mpp <= radius
            assert near.any()
            np.testing.assert_allclose(row[i * dim : (i + 1) * dim], values[near].mean(0), atol=1e-5)


def test_without_tissue_around_the_context_is_zero(make):
    found = make().at(np.array([[5.0, 5.0]]), (30.0,))
    assert np.isfinite(found).all()
    assert not found[0, 6:].any()


def test_outliers_are_cut(make, colours):
    class Alarmed(colours):
        def encode(self, tiles, state):
            return super().encode(tiles, state) + 50.0 * (tiles.min((1, 2, 3)) > 240)[:, None]

    embeddings = make(Alarmed())
    glass = np.array([[10.0, 10.0]])
    np.testing.assert_array_equal(embeddings.at(glass), CLIP)
    assert np.abs(embeddings.at(embeddings.grid.centres(embeddings.tissue))).max() < CLIP


def test_a_slide_is_standardised_by_one_fixed_sample(make, monkeypatch, colours, of_tiles):
    """Of more tissue than the sample holds, everybody draws the same tiles."""
    monkeypatch.setattr(module, "SAMPLE", 40)
    one, two = make(), make()
    some = one.tissue[::5]
    first = of_tiles(one, some)
    of_tiles(two, two.tissue[50:60])
    np.testing.assert_array_equal(of_tiles(two, some), first)
    encoder = colours()
    make(encoder).prepare()
    assert encoder.tiles == 40
    monkeypatch.undo()
    everything = make()
    assert np.abs(of_tiles(everything, some) - first).max() > 1e-3


def test_no_points_no_rows(make):
    embeddings = make(cache=True)
    assert embeddings.at(np.empty((0, 2)), (100.0,)).shape == (0, 12)
    assert list(embeddings.stream([])) == []


@pytest.mark.parametrize("cache", [False, True])
def test_half_stride_shares_neighbourhoods_and_is_kept(make, cache, colours):
    encoder = colours()
    embeddings = make(encoder, cache=cache)
    half = TileGrid(embeddings.slide.shape, embeddings.mpp, encoder.spec, 0.5)
    some = half.indices_in(Rect(200, 200, 120, 120))
    ((_, found),) = embeddings.stream([some], (150.0,), stride=0.5)
    np.testing.assert_allclose(found, make().at(half.centres(some), (150.0,)), atol=1e-5)
    calls = encoder.calls
    again = make(encoder, cache=True) if cache else embeddings
    ((_, kept),) = again.stream([some[::-1]], (150.0,), stride=0.5)
    np.testing.assert_array_equal(kept, found[::-1])
    assert encoder.calls == calls


def test_progress_counts_tiles(make):
    seen = []
    embeddings = make()
    embeddings.prepare(Progress(advance=lambda done, total, what: seen.append((done, total))))
    total = len(embeddings.tissue)
    assert seen[-1] == (total, total)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_a_slide_without_tissue_without_scale_or_too_coarse(write_pyramid, tmp_path, colours, picture):
    white = open_slide(write_pyramid(np.full((300, 300, 3), 250, np.uint8), mpp=2.0, levels=1))
    with pytest.raises(SlideError, match="tissue") as caught:
        SlideEmbeddings(white, colours(), cache=tmp_path).prepare()
    assert caught.value.path == str(white.path)
    tiny = open_slide(write_pyramid(picture(520, 600)[200:212, 200:212], mpp=2.0, levels=1, name="t.tif"))
    with pytest.raises(SlideError, match="tissue"):
        SlideEmbeddings(tiny.with_mpp(2.0), colours(), cache=tmp_path).prepare()
    with pytest.raises(ScaleError, match="coarse"):
        SlideEmbeddings(white.with_mpp(8.0), colours(), cache=None)
    unknown = open_slide(write_pyramid(picture(520, 600), mpp=None, levels=1, name="unknown.tif"))
    with pytest.raises(ScaleError):
        SlideEmbeddings(unknown, colours(), cache=None)
