"""Parts of a prediction: the same values wherever they are kept."""

import numpy as np
import pytest

from chrep_model import mapped_arrays
from chrep_model.prediction import parts as module
from chrep_model.prediction.parts import Parts, PredictionPart
from chrep_model.prediction.prediction import Prediction


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 30)


def batches(n, size=7):
    rng = np.random.default_rng(0)
    values = rng.random((n, 5), np.float32), rng.integers(0, 99, (n, 3)), rng.random(n, np.float32)
    for i in range(0, n, size):
        response = dict(zip(("wide", "names", "single"), (v[i : i + size] for v in values), strict=True))
        yield PredictionPart(np.arange(i, min(i + size, n)), response)


@pytest.mark.usefixtures("small_blocks")
def test_many_lie_on_the_disk_in_their_order():
    parts, seen = Parts(), list(batches(97))
    for part in seen:
        parts.add(part)
    assert [len(part.indices) for part in parts] == [35, 35, 7, 7, 7, 6]
    first, *_, last = parts
    assert isinstance(first.response["wide"], np.memmap)
    assert first.response["names"].dtype == seen[0].response["names"].dtype
    assert not isinstance(first.response["single"], np.memmap)
    assert not isinstance(last.response["wide"], np.memmap)
    np.testing.assert_array_equal(parts.indices(), np.arange(97))
    for name in ("wide", "names", "single"):
        np.testing.assert_array_equal(parts.column(name), np.concatenate([p.response[name] for p in seen]))


@pytest.mark.usefixtures("small_blocks")
def test_who_reads_keeps_what_it_sees_while_others_add():
    parts, seen = Parts(), list(batches(60))
    for part in seen[:3]:
        parts.add(part)
    reading = iter(parts)
    assert next(reading) is seen[0]
    for part in seen[3:]:
        parts.add(part)
    assert [part.indices[0] for part in reading] == [7, 14]
    assert sum(len(part.indices) for part in parts) == 60


@pytest.mark.usefixtures("small_blocks")
def test_without_room_on_the_disk_they_stay_in_memory(monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mapped_arrays, "map_file", full)
    parts = Parts()
    for part in batches(70):
        parts.add(part)
    first, *_ = parts
    assert len(first.indices) == 35
    assert not isinstance(first.response["wide"], np.memmap)
    np.testing.assert_array_equal(parts.indices(), np.arange(70))


def test_a_large_prediction_says_what_a_small_one_does(trusting, monkeypatch):
    whole = trusting
    monkeypatch.setattr(module, "BLOCK", 20)
    large = Prediction(whole.bundle, whole.grid, whole.slide)
    for part in whole._parts:
        large.add(part)
    assert any(isinstance(v, np.memmap) for part in large._parts for v in part.response.values())
    assert len(large) == len(whole)
    np.testing.assert_array_equal(large.indices, whole.indices)
    columns, some = np.arange(len(whole.genes)), slice(5, len(whole) - 3)
    for variant in whole.variants:
        found, expected = (p.values(columns, variant) for p in (large, whole))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    found, expected = (p.intervals(columns, tiles=some) for p in (large, whole))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(large.distance(), whole.distance())
    index = int(whole.indices[3])
    for name, values in whole.response(index).items():
        np.testing.assert_array_equal(large.response(index)[name], values)
    np.testing.assert_array_equal(large.only(whole.indices[::2]).indices, whole.indices[::2])
