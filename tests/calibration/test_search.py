"""Retrieval in blocks, in half precision and from the disk is retrieval in one piece, to the last tie."""

import numpy as np
import pytest
import torch
import zarr

from chrep_model.calibration import search
from chrep_model.calibration.search import nearest, similarities
from chrep_model.statistics import unit_rows

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    z = unit_rows(rng.standard_normal((500, 8)).astype(np.float32))
    z[rng.integers(0, 500, 120)] = z[7]  # many equal spots, as of empty tissue
    return z


@pytest.fixture
def queries(rows):
    others = unit_rows(np.random.default_rng(1).standard_normal((30, 8)).astype(np.float32))
    return np.concatenate([rows[5:9], others])


def looked_at_one_by_one(queries, rows, k):
    """What is to be found: every similarity, sorted as a whole."""
    s = np.stack([similarities(np.repeat(q[None], len(rows), 0), rows) for q in queries])
    index = np.argsort(-s, axis=1, kind="stable")[:, :k]
    return index, np.take_along_axis(s, index, axis=1)


def near_ties(dim, kind):
    """Give queries and rows whose order is lost in half precision, and in the order of a product's sums."""
    rng = np.random.default_rng(dim)
    centre = unit_rows(rng.standard_normal((1, dim)).astype(np.float32))
    size = {"neighbouring floats": 0, "below half precision": 1e-5, "about half precision": 1e-3}[kind]
    rows = np.repeat(centre, 3000, 0) + size * rng.standard_normal((3000, dim)).astype(np.float32)
    for i in rng.integers(0, 3000, 2000):  # the next float, in one place, up or down
        j = rng.integers(dim)
        rows[i, j] = np.nextafter(rows[i, j], np.float32(rng.choice([-2, 2])))
    return np.concatenate([centre, unit_rows(rows[:20])]), unit_rows(rows)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("block", [30, 99, 500])
@pytest.mark.parametrize("few", [0, 10_000])
@pytest.mark.parametrize("k", [1, 20, 300])
def test_blocks_and_precision_change_nothing(rows, queries, monkeypatch, block, few, k, half):
    monkeypatch.setattr(search, "BLOCK", block)
    monkeypatch.setattr(search, "CANDIDATES", few)
    monkeypatch.setattr(search, "SIMILARITIES", 200)
    monkeypatch.setattr(search, "PAIRS", 7)
    found = nearest(queries, rows, k, half=half)
    for one, expected in zip(found, looked_at_one_by_one(queries, rows, k), strict=True):
        np.testing.assert_array_equal(one, expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dim", [3, 64, 250])
@pytest.mark.parametrize("kind", ["neighbouring floats", "below half precision", "about half precision"])
def test_half_precision_finds_the_rows_of_single_precision_among_near_ties(dim, kind, device, monkeypatch):
    monkeypatch.setattr(search, "BLOCK", 1024)
    queries, rows = near_ties(dim, kind)
    expected = looked_at_one_by_one(queries, rows, 40)
    for half in (False, True):
        for one, other in zip(nearest(queries, rows, 40, device=device, half=half), expected, strict=True):
            np.testing.assert_array_equal(one, other)


def test_the_near_ties_are_some_that_half_precision_alone_gets_wrong():
    queries, rows = (torch.from_numpy(a) for a in near_ties(64, "about half precision"))
    alone = (queries.half() @ rows.half().T).topk(40, dim=1).indices.numpy()
    assert (alone != looked_at_one_by_one(queries.numpy(), rows.numpy(), 40)[0]).mean() > 0.5


def test_what_the_first_look_may_be_off_by_is_no_less_than_it_is():
    queries, rows = near_ties(64, "about half precision")
    part = search._Best.empty(np.arange(len(queries)), queries, 5, torch.device("cpu"), True)
    cast = search._Vectors.cast(torch.from_numpy(rows), True)
    off = (part.cast.x @ cast.x.T).float().numpy() - queries.astype(float) @ rows.T.astype(float)
    assert 0 < np.abs(off).max() < part._error(cast) < 2e-3


def test_the_similarity_of_a_pair_depends_on_nothing_else():
    rng = np.random.default_rng(0)
    for dim in (1, 7, 64, 250, 1536):
        a, b = rng.standard_normal((2, 40, dim), np.float32)
        alone = np.concatenate([similarities(a[i : i + 1], b[i : i + 1]) for i in range(40)])
        np.testing.assert_array_equal(similarities(a, b), alone)
        np.testing.assert_array_equal(similarities(a[::3], b[::3]), alone[::3])


@pytest.mark.parametrize("half", [False, True])
def test_what_is_barred_is_never_found(rows, queries, monkeypatch, half):
    monkeypatch.setattr(search, "BLOCK", 64)
    even = np.arange(500) % 2 == 0

    def barred(numbers, block):
        return torch.from_numpy(np.broadcast_to(even[block], (len(numbers), len(even[block]))).copy())

    index, similarity = nearest(queries, rows, 300, barred, half=half)
    assert (np.isfinite(similarity).sum(1) == 250).all()
    assert (index[np.isfinite(similarity)] % 2 == 1).all()


def test_a_gallery_on_disk_is_read_by_blocks(rows, queries, tmp_path, monkeypatch):
    monkeypatch.setattr(search, "BLOCK", 128)
    np.save(tmp_path / "z.npy", rows)
    stored = zarr.create_array(tmp_path / "z.zarr", data=rows, chunks=(100, 8))
    for on_disk in (np.load(tmp_path / "z.npy", mmap_mode="r"), stored):
        for found, expected in zip(nearest(queries, on_disk, 9), nearest(queries, rows, 9), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_without_queries_nothing_is_found(rows):
    index, similarity = nearest(np.empty((0, 8), np.float32), rows, 4)
    assert index.shape == similarity.shape == (0, 4)


@pytest.mark.slow
def test_a_gallery_larger_than_the_memory_is_searched_in_little_of_it(tmp_path, growth_mb):
    """A map of 256 MB; one block of it is 16 MB, and 64 queries' similarities of it are as much."""
    z = np.lib.format.open_memmap(tmp_path / "z.npy", mode="w+", dtype=np.float32, shape=(1_000_000, 64))
    rng = np.random.default_rng(0)
    for start in range(0, len(z), 100_000):
        z[start : start + 100_000] = unit_rows(rng.standard_normal((100_000, 64), np.float32))
    z.flush()
    setup = """
from chrep_model.calibration.search import nearest
z = np.load(sys.argv[1], mmap_mode="r")
queries = np.random.default_rng(1).standard_normal((64, 64), np.float32)
nearest(queries, np.zeros((70_000, 64), np.float32), 50)
"""
    assert growth_mb(setup, "nearest(queries, z, 50)", tmp_path / "z.npy") < 100
