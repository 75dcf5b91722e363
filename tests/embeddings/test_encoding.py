"""Tiles are encoded once, in whole batches, and what was encoded is kept."""

import itertools
import threading
import time

import numpy as np
import pytest
import torch

from chrep_model.errors import Cancelled, SlideError
from chrep_model.progress import Progress


@pytest.mark.parametrize("cache", [False, True])
def test_tiles_that_are_missing_are_those_that_will_be_encoded(make, cache, colours):
    encoder = colours()
    embeddings = make(encoder, cache=cache)
    xy = embeddings.grid.centres(embeddings.tissue[:4]) + 3.0
    expected = embeddings.missing(xy, (100.0, 200.0))
    assert encoder.calls == 0
    embeddings.at(xy, (100.0, 200.0))
    assert encoder.tiles == expected > 4
    assert (make(cache=cache).missing(xy, (100.0, 200.0)) == 0) is cache


def test_memory_answers_within_an_instance(make, colours, of_tiles):
    encoder = colours()
    embeddings = make(encoder)
    some = embeddings.tissue[:30]
    first = of_tiles(embeddings, some)
    calls = encoder.calls
    np.testing.assert_array_equal(of_tiles(embeddings, some), first)
    assert encoder.calls == calls


@pytest.mark.parametrize("cache", [False, True])
def test_cancelling_keeps_what_was_done(make, cache, colours, of_tiles):
    encoder = colours()
    embeddings = make(encoder, cache=cache)
    embeddings.prepare()
    every = np.arange(embeddings.grid.size)
    before = encoder.tiles

    with pytest.raises(Cancelled):
        of_tiles(embeddings, every, progress=Progress(cancelled=lambda: encoder.tiles >= before + 3 * 7))
    assert encoder.tiles == before + 3 * 7
    assert not [t for t in threading.enumerate() if t.name.startswith("chrep-tiles")]
    if cache:  # as after a restart
        encoder = colours()
        embeddings = make(encoder, cache=True)
        before = 0
    found = of_tiles(embeddings, every)
    known = len(embeddings.tissue) + 3 * 7
    assert encoder.tiles == (len(every) - known if cache else before + len(every) - len(embeddings.tissue))
    fresh = make()
    np.testing.assert_allclose(found, of_tiles(fresh, every), atol=1e-5)


def test_cancelling_the_preparation_leaves_it_undone(make, of_tiles):
    embeddings = make()
    with pytest.raises(Cancelled):
        embeddings.prepare(Progress(cancelled=lambda: True))
    some = embeddings.tissue[:5]
    reference = make()
    np.testing.assert_allclose(
        of_tiles(embeddings, some),
        of_tiles(reference, some),
        atol=1e-6,
    )


@pytest.mark.parametrize("room", [1, 5])
def test_running_out_of_memory_halves_the_batch_and_changes_nothing(make, room, colours, of_tiles):
    tight, wide = colours(room), colours()
    expected = make(wide, batch_size=32)
    every = expected.tissue
    reference = of_tiles(expected, every, (150.0,))
    embeddings = make(tight, batch_size=32)
    found = of_tiles(embeddings, every, (150.0,))
    np.testing.assert_allclose(found, reference, atol=1e-5)
    assert embeddings.batch_size <= max(room, 4)  # and stays small: no failure per batch


def test_no_room_for_a_single_tile_is_an_error(make, colours):
    with pytest.raises(torch.OutOfMemoryError):
        make(colours(room=0)).prepare()


def test_batches_are_whole_across_parts(make, colours):
    encoder = colours()
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


def test_shards_are_all_tissue_once(make):
    embeddings = make()
    shards = embeddings.shards(50)
    assert max(map(len, shards)) <= 50
    np.testing.assert_array_equal(np.sort(np.concatenate(shards)), embeddings.tissue)


def test_on_a_cpu_nothing_is_read_while_it_encodes(make, colours, monkeypatch):
    """Reading takes turns with the encoder; turns grow, so that the first result is there soon."""
    events = []

    class Watched(colours):
        def encode(self, tiles, state):
            before = len(events)
            time.sleep(0.02)
            assert len(events) == before
            events.append("encoded")
            return super().encode(tiles, state)

    embeddings = make(Watched(), batch_size=4)
    embeddings.prepare()
    tile = embeddings.reader.tile
    monkeypatch.setattr(embeddings.reader, "tile", lambda x, y: events.append("read") or tile(x, y))
    outside = np.setdiff1d(np.arange(embeddings.grid.size), embeddings.tissue)[:60]
    for ask in (
        lambda: list(embeddings.stream([outside])),
        lambda: embeddings.at(embeddings.grid.centres(outside) + 1.5),
    ):
        events.clear()
        ask()
        turns = [(what, len(list(run))) for what, run in itertools.groupby(events)]
        assert turns[:6] == [
            ("read", 4), ("encoded", 1), ("read", 8), ("encoded", 2), ("read", 16), ("encoded", 4)
        ]  # fmt: skip
        assert sum(n for what, n in turns if what == "read") == 60


def test_beside_a_gpu_reading_goes_on_while_it_encodes(make, colours, monkeypatch):
    reading = threading.Semaphore(0)

    class Elsewhere(colours):
        device = torch.device("meta")

        def encode(self, tiles, state):
            if watching:
                assert reading.acquire(timeout=10)  # a tile of a later batch
            return super().encode(tiles, state)

    watching = False
    embeddings = make(Elsewhere(), batch_size=4)
    embeddings.prepare()
    watching = True
    tile, seen = embeddings.reader.tile, []

    def read(x, y):
        seen.append((x, y))
        if len(seen) > 4:
            reading.release()
        return tile(x, y)

    monkeypatch.setattr(embeddings.reader, "tile", read)
    outside = np.setdiff1d(np.arange(embeddings.grid.size), embeddings.tissue)[:40]
    ((_, found),) = embeddings.stream([outside])
    assert len(found) == 40


def test_points_stop_when_cancelled(make, colours):
    encoder = colours()
    embeddings = make(encoder, batch_size=5)
    embeddings.prepare()
    before = encoder.tiles
    points = embeddings.grid.centres(embeddings.tissue[:40]) + 0.5
    with pytest.raises(Cancelled):
        embeddings.at(points, progress=Progress(cancelled=lambda: encoder.tiles >= before + 10))
    assert encoder.tiles == before + 10
    assert not [t for t in threading.enumerate() if t.name.startswith("chrep-tiles")]


@pytest.fixture
def _two_cores():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_two_cores")
def test_in_bulk_each_core_has_its_own_and_the_values_are_the_same(make, colours, of_tiles):
    two, ones = threading.Barrier(2), []

    class Together(colours):
        def encode(self, tiles, state):
            ones.append(torch.get_num_threads())
            if watching:
                two.wait(10)  # for the other core
            return super().encode(tiles, state)

    watching = False
    embeddings = make(Together(), batch_size=4, in_bulk=True)
    embeddings.prepare()
    outside = np.setdiff1d(np.arange(embeddings.grid.size), embeddings.tissue)[:64]
    watching = True
    found = of_tiles(embeddings, outside, (120.0,))
    at_points = embeddings.at(embeddings.grid.centres(outside) + 1.5)
    assert set(ones) == {1}
    plain = make()
    np.testing.assert_array_equal(found, of_tiles(plain, outside, (120.0,)))
    np.testing.assert_array_equal(at_points, plain.at(plain.grid.centres(outside) + 1.5))


@pytest.mark.usefixtures("_two_cores")
def test_in_bulk_cancelling_and_failing_end_all_cores(make, colours, of_tiles):
    class Failing(colours):
        def encode(self, tiles, state):
            if failing:
                raise SlideError("gone")
            return super().encode(tiles, state)

    failing = False
    embeddings = make(Failing(), batch_size=4, in_bulk=True)
    embeddings.prepare()
    every, known = np.arange(embeddings.grid.size), len(embeddings.tissue)
    with pytest.raises(Cancelled):
        some = Progress(cancelled=lambda: embeddings._rows[1.0].has(every).sum() > known + 20)
        of_tiles(embeddings, every, progress=some)
    assert known + 20 < embeddings._rows[1.0].has(every).sum() < len(every)
    failing = True
    with pytest.raises(SlideError, match="gone"):
        of_tiles(embeddings, every)
    failing = False
    np.testing.assert_array_equal(of_tiles(embeddings, every), of_tiles(make(), every))
    assert not [t for t in threading.enumerate() if t.name.startswith("chrep-core")]
