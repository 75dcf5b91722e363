"""Retrieval in blocks is retrieval in one piece, to the last tie."""

import numpy as np
import pytest
import torch

from chrep_model.calibration import search
from chrep_model.calibration.gallery import unit_rows
from chrep_model.calibration.search import nearest, top


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    z = unit_rows(rng.standard_normal((500, 8)).astype(np.float32))
    z[rng.integers(0, 500, 120)] = z[7]  # many equal spots, as of empty tissue
    return z


@pytest.fixture
def queries(rows):
    return np.concatenate([rows[5:9], unit_rows(np.random.default_rng(1).standard_normal((30, 8)))]).astype(
        "f4"
    )


@pytest.mark.parametrize("block", [30, 99, 500])
@pytest.mark.parametrize("sorted_", [4, 10_000])
@pytest.mark.parametrize("k", [1, 20, 300])
def test_blocks_and_partial_sorts_change_nothing(rows, queries, monkeypatch, block, sorted_, k):
    whole = torch.from_numpy(queries @ rows.T).sort(dim=1, descending=True, stable=True)
    monkeypatch.setattr(search, "BLOCK", block)
    monkeypatch.setattr(search, "SORTED", sorted_)
    monkeypatch.setattr(search, "SIMILARITIES", 200)
    index, similarity = nearest(queries, rows, k)
    np.testing.assert_allclose(similarity, whole.values[:, :k], atol=1e-6)
    s = np.take_along_axis(queries @ rows.T, index, axis=1)
    equal = np.isclose(np.diff(s, axis=1), 0, atol=0)
    assert (np.diff(index, axis=1)[equal] > 0).all()  # ties by row
    assert all(len(set(row)) == k for row in index.tolist())


def test_of_equal_numbers_the_first_columns_are_taken(monkeypatch):
    monkeypatch.setattr(search, "SORTED", 0)
    s = torch.tensor(
        [[1.0, 3.0, 2.0, 2.0, 2.0, 0.0], [5.0, 5.0, 5.0, 5.0, 5.0, 5.0], [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]]
    )
    values, columns = top(s, 3)
    assert columns.tolist() == [[1, 2, 3], [0, 1, 2], [5, 4, 3]]
    assert values.tolist() == [[3, 2, 2], [5, 5, 5], [5, 4, 3]]


def test_what_is_barred_is_never_found(rows, queries, monkeypatch):
    monkeypatch.setattr(search, "BLOCK", 64)
    even = np.arange(500) % 2 == 0

    def barred(numbers, block):
        return torch.from_numpy(np.broadcast_to(even[block], (len(numbers), len(even[block]))).copy())

    index, similarity = nearest(queries, rows, 300, barred)
    assert (np.isfinite(similarity).sum(1) == 250).all()
    assert (index[np.isfinite(similarity)] % 2 == 1).all()


def test_a_gallery_on_disk_is_read_by_blocks(rows, queries, tmp_path, monkeypatch):
    monkeypatch.setattr(search, "BLOCK", 128)
    np.save(tmp_path / "z.npy", rows)
    on_disk = np.load(tmp_path / "z.npy", mmap_mode="r")
    for found, expected in zip(nearest(queries, on_disk, 9), nearest(queries, rows, 9), strict=True):
        np.testing.assert_array_equal(found, expected)
