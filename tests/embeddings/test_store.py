"""What is on the disk is not encoded again, and is never taken for something else."""

import shutil

import numpy as np
import pytest

from chrep_model.embeddings import SlideEmbeddings
from chrep_model.embeddings import rows as rows_module
from chrep_model.embeddings import slide as module
from chrep_model.errors import ChrepError
from chrep_model.slides.slide import open_slide


def test_the_store_answers_a_second_instance_without_the_encoder(make, colours, of_tiles):
    first, points = colours(), np.array([[301.5, 260.2], [250.0, 249.0]])
    one = make(first, cache=True)
    every = one.tissue
    expected = of_tiles(one, every, (150.0,))
    at_points = one.at(points, (150.0,))
    assert first.tiles == len(every) + len(points)  # each tile once
    assert first.fits == 1

    second = colours()
    two = make(second, cache=True)
    shuffled = np.random.default_rng(1).permutation(every)
    found = of_tiles(two, shuffled, (150.0,))
    np.testing.assert_array_equal(found, expected[np.searchsorted(every, shuffled)])
    np.testing.assert_array_equal(two.at(points, (150.0,)), at_points)
    assert (second.calls, second.fits) == (0, 0)


def test_known_is_what_was_asked_for_before(make, monkeypatch, of_tiles):
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


def test_another_encoder_scale_or_picture_does_not_read_this_store(
    make, slide, write_pyramid, tmp_path, colours, picture
):
    make(cache=True).at(np.array([[300.0, 260.0]]))
    other = open_slide(write_pyramid(picture(520, 600, seed=5), mpp=2.0, levels=1, name="other.ome.tif"))
    strangers = [(slide, colours(name="else")), (slide.with_mpp(1.9), colours()), (other, colours())]
    for where, encoder in strangers:
        SlideEmbeddings(where, encoder, cache=tmp_path / "cache").prepare()
        assert encoder.tiles > 100
    renamed = shutil.copyfile(slide.path, tmp_path / "renamed.ome.tif")
    same = colours()
    SlideEmbeddings(open_slide(renamed), same, cache=tmp_path / "cache").prepare()
    assert same.tiles == 0  # the content decides, not the name


def test_each_precision_has_a_store_of_its_own(make, colours):
    one, two = colours(), colours()
    two.precision = "bf16"
    for encoder in (one, two):
        make(encoder, cache=True).prepare()
        assert encoder.tiles > 100


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


@pytest.mark.slow
def test_the_memory_stays_flat_where_there_is_a_store(make, monkeypatch, colours, of_tiles):
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
    fresh = colours()
    np.testing.assert_allclose(of_tiles(make(fresh, cache=True), every, (120.0,)), expected, atol=1e-5)
    assert fresh.calls == 0


def test_two_with_one_store_share_what_they_encode(make, colours, of_tiles):
    """As two processes would: each sees what the other has flushed, and neither breaks the other's."""
    encoders = colours(), colours()
    one, two = (make(encoder, cache=True) for encoder in encoders)
    tissue = one.tissue
    one.fill(tissue[:50])
    seen = encoders[1].tiles
    two.fill(tissue[:80])
    assert encoders[1].tiles - seen <= 30
    together = of_tiles(one, tissue, (150.0,)), of_tiles(two, tissue, (150.0,))
    np.testing.assert_array_equal(*together)
    np.testing.assert_allclose(together[0], of_tiles(make(), tissue, (150.0,)), atol=1e-5)


def test_a_store_that_is_trimmed_while_open_is_filled_again(make, tmp_path, monkeypatch, colours, of_tiles):
    monkeypatch.setattr(rows_module, "MEMORY", 0)
    encoder = colours()
    embeddings = make(encoder, cache=True)
    tissue = embeddings.tissue
    expected = of_tiles(embeddings, tissue, (150.0,))
    shutil.rmtree(tmp_path / "cache")
    before = encoder.tiles
    np.testing.assert_allclose(of_tiles(embeddings, tissue, (150.0,)), expected, atol=1e-5)
    assert encoder.tiles > before
    again = colours()
    of_tiles(make(again, cache=True), tissue)
    assert again.tiles < len(tissue)


@pytest.mark.parametrize("gone", ["values/c/0/0", "zarr.json", "values/zarr.json"])
def test_points_that_are_trimmed_halfway_are_encoded_again(make, tmp_path, gone):
    points = np.array([[300.0, 260.0], [250.5, 200.0]])
    expected = make(cache=True).at(points)
    next(tmp_path.glob(f"cache/*/points/*/{gone}")).unlink()
    np.testing.assert_array_equal(make(cache=True).at(points), expected)


def test_a_cache_that_cannot_be_written_is_named(slide, tmp_path, colours):
    (tmp_path / "file").touch()
    with pytest.raises(ChrepError, match="cannot be kept") as caught:
        SlideEmbeddings(slide, colours(), cache=tmp_path / "file" / "cache")
    assert "CHREP_CACHE" in caught.value.remedy
