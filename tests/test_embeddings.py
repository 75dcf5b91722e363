"""Embeddings: one tile, one value, whatever else was asked for; the encoder is called once for it."""

import shutil
import threading

import numpy as np
import pytest
import torch

from chrep_model.embeddings import CLIP, SlideEmbeddings
from chrep_model.embeddings import rows as rows_module
from chrep_model.embeddings import slide as module
from chrep_model.errors import Cancelled, ChrepError, ScaleError, SlideError
from chrep_model.geometry import Rect
from chrep_model.networks.encoder import Encoder
from chrep_model.slides.slide import open_slide
from chrep_model.slides.tiles import TileGrid, TileSpec

MPP = 2.0
SPEC = TileSpec(4.0, 16)  # 64 µm: 32 px of the slide


class Colours(Encoder):
    """Mean and sd of each channel; counts what it is asked for."""

    def __init__(self, room=10**9, name="colours"):
        self.name, self.spec, self.dim, self.id = name, SPEC, 6, f"{name}-id"
        self.room, self.tiles, self.calls, self.fits = room, 0, 0, 0

    def fit_slide(self, sample):
        self.fits += 1
        return {"brightness": float(sample.mean())}

    def encode(self, tiles, state):
        self.calls += 1
        if len(tiles) > self.room:
            raise torch.OutOfMemoryError("no room")
        self.tiles += len(tiles)
        x = tiles.astype(np.float64) / state["brightness"]
        return np.concatenate([x.mean((1, 2)), x.std((1, 2))], axis=1).astype(np.float32)


def picture(rows, cols, seed=0):
    """Nuclei on eosin that gets paler to the right, with glass around."""
    rng = np.random.default_rng(seed)
    r, c = np.mgrid[:rows, :cols]
    image = np.broadcast_to([226.0, 160, 200], (rows, cols, 3)).copy()
    image += 20 * (c / cols)[..., None] + rng.normal(0, 6, (rows, cols, 1))
    nuclei = rng.uniform(0, 1, (rows * cols // 60, 2)) * [rows, cols]
    for y, x in nuclei.astype(int):
        image[y : y + 4, x : x + 4] = [90, 60, 140]
    glass = np.minimum.reduce([r, c, rows - 1 - r, cols - 1 - c]) < 70
    image[glass] = 245
    return np.clip(image, 0, 255).astype(np.uint8)


def of_tiles(embeddings, indices, context=(), **options):
    """Features of tiles of the grid, asked for in batches."""
    parts = (indices[i : i + 7] for i in range(0, len(indices), 7))
    found = [features for _, features in embeddings.stream(parts, context, **options)]
    return np.concatenate([np.empty((0, embeddings.encoder.dim * (1 + len(context))), np.float32), *found])


@pytest.fixture
def slide(write_pyramid):
    return open_slide(write_pyramid(picture(520, 600), mpp=MPP, levels=1))


@pytest.fixture
def make(slide, tmp_path):
    """Make embeddings: ``make()`` in memory, ``make(cache=True)`` with the store of this test."""

    def make(encoder=None, *, cache=False, batch_size=7):
        return SlideEmbeddings(
            slide, encoder or Colours(), cache=tmp_path / "cache" if cache else None, batch_size=batch_size
        )

    return make


def test_the_slide_has_glass_and_tissue(make):
    embeddings = make()
    assert 100 < len(embeddings.tissue) < embeddings.grid.size - 50


def test_values_are_the_encoders_standardised_by_the_tissue(make):
    embeddings = make()
    every = embeddings.tissue  # fewer than the sample's size: the sample is all of them
    found = of_tiles(embeddings, every)
    tiles = embeddings.reader.read(embeddings.grid.centres(every))
    raw = Colours().encode(tiles, Colours().fit_slide(tiles))
    expected = np.clip((raw - raw.mean(0)) / raw.std(0), -CLIP, CLIP)
    assert len(every) < 256
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(found.std(0), 1, atol=0.1)


@pytest.mark.parametrize("cache", [False, True])
def test_a_tile_has_one_value_whatever_else_was_asked_for(make, cache):
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


def test_the_store_answers_a_second_instance_without_the_encoder(make):
    first, points = Colours(), np.array([[301.5, 260.2], [250.0, 249.0]])
    one = make(first, cache=True)
    every = one.tissue
    expected = of_tiles(one, every, (150.0,))
    at_points = one.at(points, (150.0,))
    assert first.tiles == len(every) + len(points)  # each tile once
    assert first.fits == 1

    second = Colours()
    two = make(second, cache=True)
    shuffled = np.random.default_rng(1).permutation(every)
    found = of_tiles(two, shuffled, (150.0,))
    np.testing.assert_array_equal(found, expected[np.searchsorted(every, shuffled)])
    np.testing.assert_array_equal(two.at(points, (150.0,)), at_points)
    assert (second.calls, second.fits) == (0, 0)


@pytest.mark.parametrize("cache", [False, True])
def test_tiles_that_are_missing_are_those_that_will_be_encoded(make, cache):
    encoder = Colours()
    embeddings = make(encoder, cache=cache)
    xy = embeddings.grid.centres(embeddings.tissue[:4]) + 3.0
    expected = embeddings.missing(xy, (100.0, 200.0))
    assert encoder.calls == 0
    embeddings.at(xy, (100.0, 200.0))
    assert encoder.tiles == expected > 4
    assert (make(cache=cache).missing(xy, (100.0, 200.0)) == 0) is cache


def test_known_is_what_was_asked_for_before(make, monkeypatch):
    monkeypatch.setattr(module, "SAMPLE", 10)

    def opened():
        embeddings = make(cache=True)
        embeddings.prepare()
        return embeddings

    first = opened()
    assert not len(first.known())
    assert not len(opened().known())  # the sample is not what somebody asked for
    some = first.tissue[: len(first.tissue) // 2]
    of_tiles(first, some)
    assert not len(first.known())
    known = opened().known()
    assert set(some) <= set(known)
    assert len(known) <= len(some) + 10
    again = opened()
    around = again.known((150.0,))
    assert 0 < len(around) < len(known)
    before = again.encoder.tiles
    of_tiles(again, around, (150.0,))
    assert again.encoder.tiles == before
    of_tiles(first, first.tissue)
    np.testing.assert_array_equal(opened().known((150.0,)), first.tissue)


def test_memory_answers_within_an_instance(make):
    encoder = Colours()
    embeddings = make(encoder)
    some = embeddings.tissue[:30]
    first = of_tiles(embeddings, some)
    calls = encoder.calls
    np.testing.assert_array_equal(of_tiles(embeddings, some), first)
    assert encoder.calls == calls


def test_another_encoder_scale_or_picture_does_not_read_this_store(make, slide, write_pyramid, tmp_path):
    make(cache=True).at(np.array([[300.0, 260.0]]))
    other = open_slide(write_pyramid(picture(520, 600, seed=5), mpp=MPP, levels=1, name="other.ome.tif"))
    strangers = [(slide, Colours(name="else")), (slide.with_mpp(1.9), Colours()), (other, Colours())]
    for where, encoder in strangers:
        SlideEmbeddings(where, encoder, cache=tmp_path / "cache").prepare()
        assert encoder.tiles > 100
    renamed = shutil.copyfile(slide.path, tmp_path / "renamed.ome.tif")
    same = Colours()
    SlideEmbeddings(open_slide(renamed), same, cache=tmp_path / "cache").prepare()
    assert same.tiles == 0  # the content decides, not the name


def test_each_precision_has_a_store_of_its_own(make):
    one, two = Colours(), Colours()
    two.precision = "bf16"
    for encoder in (one, two):
        make(encoder, cache=True).prepare()
        assert encoder.tiles > 100


def test_context_is_the_mean_over_tissue_tiles_within_the_radius(make):
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
            near = np.hypot(*(centres - point).T) * MPP <= radius
            assert near.any()
            np.testing.assert_allclose(row[i * dim : (i + 1) * dim], values[near].mean(0), atol=1e-5)


def test_without_tissue_around_the_context_is_zero(make):
    found = make().at(np.array([[5.0, 5.0]]), (30.0,))
    assert np.isfinite(found).all()
    assert not found[0, 6:].any()


def test_outliers_are_cut(make):
    class Alarmed(Colours):
        def encode(self, tiles, state):
            return super().encode(tiles, state) + 50.0 * (tiles.min((1, 2, 3)) > 240)[:, None]

    embeddings = make(Alarmed())
    glass = np.array([[10.0, 10.0]])
    np.testing.assert_array_equal(embeddings.at(glass), CLIP)
    assert np.abs(embeddings.at(embeddings.grid.centres(embeddings.tissue))).max() < CLIP


def test_a_slide_is_standardised_by_one_fixed_sample(make, monkeypatch):
    """Of more tissue than the sample holds, everybody draws the same tiles."""
    monkeypatch.setattr(module, "SAMPLE", 40)
    one, two = make(), make()
    some = one.tissue[::5]
    first = of_tiles(one, some)
    of_tiles(two, two.tissue[50:60])
    np.testing.assert_array_equal(of_tiles(two, some), first)
    encoder = Colours()
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
def test_cancelling_keeps_what_was_done(make, cache):
    encoder = Colours()
    embeddings = make(encoder, cache=cache)
    embeddings.prepare()
    every = np.arange(embeddings.grid.size)
    before = encoder.tiles

    with pytest.raises(Cancelled):
        of_tiles(embeddings, every, cancelled=lambda: encoder.tiles >= before + 3 * 7)
    assert encoder.tiles == before + 3 * 7
    assert not [t for t in threading.enumerate() if t.name.startswith("chrep-tiles")]
    if cache:  # as after a restart
        encoder = Colours()
        embeddings = make(encoder, cache=True)
        before = 0
    found = of_tiles(embeddings, every)
    known = len(embeddings.tissue) + 3 * 7
    assert encoder.tiles == (len(every) - known if cache else before + len(every) - len(embeddings.tissue))
    fresh = make()
    np.testing.assert_allclose(found, of_tiles(fresh, every), atol=1e-5)


def test_cancelling_the_preparation_leaves_it_undone(make):
    embeddings = make()
    with pytest.raises(Cancelled):
        embeddings.prepare(cancelled=lambda: True)
    some = embeddings.tissue[:5]
    reference = make()
    np.testing.assert_allclose(
        of_tiles(embeddings, some),
        of_tiles(reference, some),
        atol=1e-6,
    )


@pytest.mark.parametrize("room", [1, 5])
def test_running_out_of_memory_halves_the_batch_and_changes_nothing(make, room):
    tight, wide = Colours(room), Colours()
    expected = make(wide, batch_size=32)
    every = expected.tissue
    reference = of_tiles(expected, every, (150.0,))
    embeddings = make(tight, batch_size=32)
    found = of_tiles(embeddings, every, (150.0,))
    np.testing.assert_allclose(found, reference, atol=1e-5)
    assert embeddings.batch_size <= max(room, 4)  # and stays small: no failure per batch


def test_no_room_for_a_single_tile_is_an_error(make):
    with pytest.raises(torch.OutOfMemoryError):
        make(Colours(room=0)).prepare()


def test_progress_counts_tiles(make):
    seen = []
    embeddings = make()
    embeddings.prepare(progress=lambda done, total, what: seen.append((done, total)))
    total = len(embeddings.tissue)
    assert seen[-1] == (total, total)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_a_slide_without_tissue_without_scale_or_too_coarse(write_pyramid, tmp_path):
    white = open_slide(write_pyramid(np.full((300, 300, 3), 250, np.uint8), mpp=MPP, levels=1))
    with pytest.raises(SlideError, match="tissue") as caught:
        SlideEmbeddings(white, Colours(), cache=tmp_path).prepare()
    assert caught.value.path == str(white.path)
    tiny = open_slide(write_pyramid(picture(520, 600)[200:212, 200:212], mpp=MPP, levels=1, name="t.tif"))
    with pytest.raises(SlideError, match="tissue"):
        SlideEmbeddings(tiny.with_mpp(MPP), Colours(), cache=tmp_path).prepare()
    with pytest.raises(ScaleError, match="coarse"):
        SlideEmbeddings(white.with_mpp(8.0), Colours(), cache=None)
    unknown = open_slide(write_pyramid(picture(520, 600), mpp=None, levels=1, name="unknown.tif"))
    with pytest.raises(ScaleError):
        SlideEmbeddings(unknown, Colours(), cache=None)


@pytest.mark.parametrize(
    "part", ["zarr.json", "prepared.json", "indices/zarr.json", "values/c/0/0", "indices/c/0"]
)
def test_a_damaged_store_is_named_and_can_be_deleted(make, part, tmp_path):
    point = np.array([[300.0, 260.0]])
    expected = make(cache=True).at(point, (100.0,))
    (folder,) = (tmp_path / "cache").iterdir()
    file = next(folder.glob(f"grids/*/*/{part}"), folder / part)
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ChrepError, match="damaged") as caught:
        make(cache=True).at(point, (100.0,))
    assert caught.value.path == str(folder)
    shutil.rmtree(folder)
    np.testing.assert_array_equal(make(cache=True).at(point, (100.0,)), expected)


def test_a_torn_number_is_damage(make, tmp_path):
    point = np.array([[300.0, 260.0]])
    make(cache=True).at(point, (100.0,))
    file = next(tmp_path.glob("cache/*/grids/*/*/values/c/0/0"))
    content = bytearray(file.read_bytes())
    content[5] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(ChrepError, match="damaged"):
        make(cache=True).at(point, (100.0,))


def test_the_memory_stays_flat_where_there_is_a_store(make, monkeypatch):
    reference = make()
    every = np.random.default_rng(0).permutation(reference.grid.size)
    expected = of_tiles(reference, every, (120.0,))
    for name, value in (("SEGMENT", 16), ("MEMORY", 16 * 6 * 4 * 3)):
        monkeypatch.setattr(rows_module, name, value)
    tight = make(cache=True)
    np.testing.assert_allclose(of_tiles(tight, every, (120.0,)), expected, atol=1e-5)
    np.testing.assert_allclose(of_tiles(tight, every, (120.0,)), expected, atol=1e-5)
    held = tight._rows[1.0]._loaded
    assert len(held) < len(tight._rows[1.0]._segments) / 2
    fresh = Colours()
    np.testing.assert_allclose(of_tiles(make(fresh, cache=True), every, (120.0,)), expected, atol=1e-5)
    assert fresh.calls == 0


def test_two_with_one_store_share_what_they_encode(make):
    """As two processes would: each sees what the other has flushed, and neither breaks the other's."""
    encoders = Colours(), Colours()
    one, two = (make(encoder, cache=True) for encoder in encoders)
    tissue = one.tissue
    one.fill(tissue[:50])
    seen = encoders[1].tiles
    two.fill(tissue[:80])
    assert encoders[1].tiles - seen <= 30
    together = of_tiles(one, tissue, (150.0,)), of_tiles(two, tissue, (150.0,))
    np.testing.assert_array_equal(*together)
    np.testing.assert_allclose(together[0], of_tiles(make(), tissue, (150.0,)), atol=1e-5)


def test_a_store_that_is_trimmed_while_open_is_filled_again(make, tmp_path, monkeypatch):
    monkeypatch.setattr(rows_module, "MEMORY", 0)
    encoder = Colours()
    embeddings = make(encoder, cache=True)
    tissue = embeddings.tissue
    expected = of_tiles(embeddings, tissue, (150.0,))
    shutil.rmtree(tmp_path / "cache")
    before = encoder.tiles
    np.testing.assert_allclose(of_tiles(embeddings, tissue, (150.0,)), expected, atol=1e-5)
    assert encoder.tiles > before
    again = Colours()
    of_tiles(make(again, cache=True), tissue)
    assert again.tiles < len(tissue)


@pytest.mark.parametrize("gone", ["values/c/0/0", "zarr.json", "values/zarr.json"])
def test_points_that_are_trimmed_halfway_are_encoded_again(make, tmp_path, gone):
    points = np.array([[300.0, 260.0], [250.5, 200.0]])
    expected = make(cache=True).at(points)
    next(tmp_path.glob(f"cache/*/points/*/{gone}")).unlink()
    np.testing.assert_array_equal(make(cache=True).at(points), expected)


def test_shards_are_all_tissue_once(make):
    embeddings = make()
    shards = embeddings.shards(50)
    assert max(map(len, shards)) <= 50
    np.testing.assert_array_equal(np.sort(np.concatenate(shards)), embeddings.tissue)


def test_batches_are_whole_across_parts(make):
    encoder = Colours()
    embeddings = make(encoder, batch_size=8)
    embeddings.prepare()
    outside = np.setdiff1d(np.arange(embeddings.grid.size), embeddings.tissue)[:30]
    calls = encoder.calls
    parts = [outside[i : i + 3] for i in range(0, len(outside), 3)]
    assert [len(features) for _, features in embeddings.stream(parts)] == [3] * 10
    assert encoder.calls - calls == 4  # 8 + 8 + 8 + 6


def test_parts_are_taken_when_there_is_room_to_read_ahead(make):
    embeddings = make(batch_size=4)
    embeddings.prepare()
    outside = np.setdiff1d(np.arange(embeddings.grid.size), embeddings.tissue)[:80]
    taken = []

    def parts():
        for start in range(0, 80, 4):
            taken.append(start)
            yield outside[start : start + 4]

    stream = embeddings.stream(parts())
    next(stream)
    assert len(taken) <= 5
    stream.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("chrep-tiles")]


@pytest.mark.parametrize("cache", [False, True])
def test_half_stride_shares_neighbourhoods_and_is_kept(make, cache):
    encoder = Colours()
    embeddings = make(encoder, cache=cache)
    half = TileGrid(embeddings.slide.shape, MPP, SPEC, 0.5)
    some = half.indices_in(Rect(200, 200, 120, 120))
    ((_, found),) = embeddings.stream([some], (150.0,), stride=0.5)
    np.testing.assert_allclose(found, make().at(half.centres(some), (150.0,)), atol=1e-5)
    calls = encoder.calls
    again = make(encoder, cache=True) if cache else embeddings
    ((_, kept),) = again.stream([some[::-1]], (150.0,), stride=0.5)
    np.testing.assert_array_equal(kept, found[::-1])
    assert encoder.calls == calls


def test_a_cache_that_cannot_be_written_is_named(slide, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ChrepError, match="cannot be kept") as caught:
        SlideEmbeddings(slide, Colours(), cache=tmp_path / "file" / "cache")
    assert "CHREP_CACHE" in caught.value.remedy
