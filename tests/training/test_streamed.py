"""What is streamed from the disk is what would be in memory, and takes hardly any."""

from dataclasses import replace

import numpy as np
import pytest

from chrep_model.errors import SettingsError
from chrep_model.training import samples
from chrep_model.training.samples import NeighbourBatches
from chrep_model.training.streamed import Streamed, kept, stacked


@pytest.fixture
def mapped(tmp_path):
    """Put arrays on the disk: ``mapped(array)`` gives a map of it."""

    def put(array):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.npy"
        np.save(path, array)
        return np.load(path, mmap_mode="r")

    return put


@pytest.fixture
def parts():
    rng = np.random.default_rng(0)
    return [rng.standard_normal((n, 5)).astype(np.float32) for n in (7, 1, 20)]


def half(x):
    return x / 2


def test_rows_are_those_of_the_parts_together(parts, mapped):
    whole = np.concatenate(parts)
    streamed = Streamed([parts[0], *map(mapped, parts[1:])])
    mask = np.arange(28) % 3 == 0
    assert streamed.shape == (len(streamed), 5) == whole.shape
    for rows in (slice(None), slice(5, 9), np.array([27, 0, 7, 7, 3]), mask, np.array([], int)):
        np.testing.assert_array_equal(streamed[rows], whole[rows])
        np.testing.assert_array_equal(streamed.changed(half)[rows], whole[rows] / 2)
    np.testing.assert_array_equal(np.concatenate(list(streamed.pieces())), whole)


def test_chosen_rows_stay_on_the_disk(parts, mapped):
    whole, mask = np.concatenate(parts), np.arange(28) % 3 > 0
    chosen = kept(Streamed([mapped(p) for p in parts]).changed(half), mask)
    assert isinstance(chosen, Streamed)
    np.testing.assert_array_equal(chosen[:], whole[mask] / 2)
    np.testing.assert_array_equal(kept(chosen, np.arange(len(chosen)) > 4)[:], whole[mask][5:] / 2)


def test_mean_and_covariance_in_one_pass(parts, monkeypatch):
    monkeypatch.setattr("chrep_model.training.streamed.BLOCK", 4)
    mean, covariance = Streamed(parts).moments()
    np.testing.assert_allclose(mean, np.concatenate(parts).mean(0), atol=1e-6)
    np.testing.assert_allclose(covariance, np.cov(np.concatenate(parts).T, bias=True), atol=1e-6)


def test_how_many_rows_there_are_decides_and_not_where_they_are(parts, mapped, monkeypatch):
    assert isinstance(stacked([mapped(p) for p in parts]), np.ndarray)
    monkeypatch.setattr("chrep_model.training.streamed.LARGE", 27)
    assert isinstance(stacked(parts), Streamed)


def test_a_streamed_table_in_memory(table, monkeypatch):
    streamed = replace(table, features=Streamed([table.features]))
    assert table.in_memory() is table
    np.testing.assert_array_equal(streamed.in_memory().features, table.features)
    monkeypatch.setattr(samples, "_memory", lambda: 1000)
    with pytest.raises(SettingsError, match="147 spots"):
        streamed.in_memory()


def test_a_large_table_has_the_same_batches(table, monkeypatch):
    rows = np.arange(20, 60)
    before = NeighbourBatches(table).adjacency(rows)
    monkeypatch.setattr(samples, "LARGE", 10)
    large = NeighbourBatches(table)
    assert large.topology is None
    np.testing.assert_array_equal(large.adjacency(rows), before)
