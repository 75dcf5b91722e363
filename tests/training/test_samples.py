"""Tables of spots, and batches that keep neighbours together."""

import numpy as np
import pytest

from chrep_model.training.samples import NeighbourBatches, SpotTable


def array_of(rows, cols, pitch=100.0):
    """A hexagonal array in µm."""
    r, c = np.mgrid[:rows, :cols]
    return np.stack([(c + 0.5 * (r % 2)).ravel() * pitch, r.ravel() * pitch * 0.866], axis=1)


def table_of(*positions, shuffle=None):
    """One section per array of positions, all at the same place of their slides."""
    n = sum(map(len, positions))
    rng = np.random.default_rng(0)
    table = SpotTable(
        features=rng.standard_normal((n, 4)).astype(np.float32),
        targets=rng.standard_normal((n, 3)).astype(np.float32),
        section=np.repeat(np.arange(len(positions)), [len(p) for p in positions]),
        patient=np.repeat(np.arange(len(positions)) // 2, [len(p) for p in positions]),
        position=np.concatenate(positions),
        section_names=tuple("ABCDEF"[: len(positions)]),
        depth=np.full(n, 1000.0, np.float32),
    )
    if shuffle is None:
        return table
    order = np.random.default_rng(shuffle).permutation(n)
    return SpotTable(
        table.features[order], table.targets[order], table.section[order], table.patient[order],
        table.position[order], table.section_names, table.depth[order],
    )  # fmt: skip


@pytest.fixture(scope="module")
def cohort():
    """Six sections of different size, rows in no order."""
    return table_of(*(array_of(12 + i, 15) for i in range(6)), shuffle=1)


def test_rows_keeps_what_belongs_together(cohort):
    keep = cohort.section == 2
    part = cohort.rows(keep)
    assert len(part) == keep.sum() == 14 * 15
    np.testing.assert_array_equal(part.features, cohort.features[keep])
    np.testing.assert_array_equal(part.position, cohort.position[keep])
    assert set(part.section) == {2}
    assert part.section_names == cohort.section_names  # numbers keep their meaning


def test_positions_are_scaled_per_section_and_axis(cohort):
    unit = cohort.unit_position()
    for s in range(6):
        rows = cohort.section == s
        np.testing.assert_allclose(unit[rows].min(0), 0, atol=1e-7)
        np.testing.assert_allclose(unit[rows].max(0), 1, atol=1e-7)
    assert np.isfinite(table_of(np.zeros((1, 2)), array_of(2, 2)).unit_position()).all()


def test_no_edge_between_sections_even_at_the_same_place(cohort):
    edges = cohort.graph().tocoo()
    assert edges.nnz > 5 * len(cohort)
    np.testing.assert_array_equal(cohort.section[edges.row], cohort.section[edges.col])
    far = np.linalg.norm(cohort.position[edges.row] - cohort.position[edges.col], axis=1)
    assert far.max() < 160


def test_batches_hold_patches_of_neighbours(cohort):
    batches = NeighbourBatches(cohort, sections=4, spots=64)
    rng = np.random.default_rng(0)
    edges, seen = [], set()
    for _ in range(8):
        for rows in batches.epoch(rng):
            assert len(rows) == len(set(rows)) == 4 * 64
            sections, counts = np.unique(cohort.section[rows], return_counts=True)
            assert len(sections) == 4
            assert set(counts) == {64}
            seen |= set(sections)
            edges.append(batches.graph[rows][:, rows].nnz / 2)
            across = cohort.section[rows][:, None] != cohort.section[rows][None, :]
            assert not batches.adjacency(rows)[across].any()
    assert np.mean(edges) > 4 * 64  # else the topology loss has nothing to say
    assert seen == set(range(6))
    at_random = rng.choice(len(cohort), 4 * 64, replace=False)
    assert np.mean(edges) > 3 * batches.graph[at_random][:, at_random].nnz / 2


def test_an_epoch_is_about_one_pass(cohort):
    batches = NeighbourBatches(cohort, sections=4, spots=64)
    assert batches.per_epoch == round(len(cohort) / 256)
    assert len(list(batches.epoch(np.random.default_rng(0)))) == batches.per_epoch


def test_adjacency_is_that_of_the_whole_section(cohort):
    """Two spots stay two hops apart though the one between them is not in the batch."""
    batches = NeighbourBatches(cohort)
    rows = next(batches.epoch(np.random.default_rng(0)))
    np.testing.assert_array_equal(batches.adjacency(rows), batches.topology.toarray()[np.ix_(rows, rows)])
    one_hop = batches.adjacency(rows) == np.float32(4 / 7)
    np.testing.assert_array_equal(one_hop, batches.graph[rows][:, rows].toarray() == 1)


def test_the_generator_decides_the_batches(cohort):
    batches = NeighbourBatches(cohort)
    one, same, other = (list(batches.epoch(np.random.default_rng(s))) for s in (5, 5, 6))
    assert all((a == b).all() for a, b in zip(one, same, strict=True))
    assert any((a != b).any() for a, b in zip(one, other, strict=True))


def test_small_sections_are_taken_whole_and_few_sections_suffice():
    table = table_of(array_of(4, 5), array_of(10, 10))
    batches = NeighbourBatches(table, sections=4, spots=64)
    rows = next(batches.epoch(np.random.default_rng(0)))
    assert sorted(np.bincount(table.section[rows])) == [20, 64]
    assert batches.per_epoch == 1


def test_an_island_smaller_than_a_batch_is_filled_up():
    islands = np.concatenate([array_of(4, 4) + np.array([x, 0]) for x in (0, 5000, 10000, 15000, 20000)])
    batches = NeighbourBatches(table_of(islands), sections=1, spots=40)
    for rows in (next(batches.epoch(np.random.default_rng(s))) for s in range(5)):
        assert len(set(rows)) == 40
        # the seed's own island is in whole
        assert max(np.bincount(rows // 16, minlength=5)) == 16
