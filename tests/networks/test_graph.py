"""Spot graphs on the arrays that exist, and their hops against scipy's shortest paths."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.csgraph import shortest_path

from chrep_model.networks.graph import HOPS, spot_graph, topology

RNG = np.random.default_rng(0)


def square(rows, cols, pitch=200.0):
    r, c = np.mgrid[:rows, :cols]
    return np.stack([c.ravel(), r.ravel()], axis=1) * pitch


def hexagonal(rows, cols, pitch=100.0):
    r, c = np.mgrid[:rows, :cols]
    return np.stack([(c + 0.5 * (r % 2)).ravel() * pitch, r.ravel() * pitch * np.sqrt(3) / 2], axis=1)


def degrees(graph, keep):
    return set(np.asarray(graph.sum(1)).ravel()[keep].astype(int))


def inner(rows, cols):
    mask = np.zeros((rows, cols), bool)
    mask[1:-1, 1:-1] = True
    return mask.ravel()


def test_a_square_array_has_eight_neighbours_and_a_hexagonal_one_six():
    jitter = RNG.normal(0, 2.0, (80, 2))
    assert degrees(spot_graph(square(8, 10) + jitter), inner(8, 10)) == {8}
    assert degrees(spot_graph(hexagonal(8, 10) + jitter / 2), inner(8, 10)) == {6}


def test_the_graph_is_symmetric_0_1_without_loops_and_without_a_unit():
    xy = hexagonal(9, 7) + RNG.normal(0, 8, (63, 2))
    graph = spot_graph(xy)
    assert (graph != graph.T).nnz == 0
    assert set(graph.data) == {1.0}
    assert not graph.diagonal().any()
    assert (graph != spot_graph(xy * 0.0137)).nnz == 0


def test_a_hole_in_the_tissue_is_not_bridged():
    left = square(5, 5)
    graph = spot_graph(np.concatenate([left, left + np.array([5 * 200 + 600, 0])]))
    assert graph[:25, 25:].nnz == 0
    assert sp.csgraph.connected_components(graph)[0] == 2


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_spots_have_no_edge(n):
    assert spot_graph(np.zeros((n, 2))).shape == (n, n)
    assert spot_graph(np.zeros((n, 2))).nnz == 0


def test_two_spots_are_neighbours():
    np.testing.assert_array_equal(spot_graph(np.array([[0, 0], [9, 9]])).toarray(), [[0, 1], [1, 0]])


def test_two_spots_at_one_place_are_no_loop():
    graph = spot_graph(np.concatenate([square(4, 4), square(4, 4)[:1]]))
    assert not graph.diagonal().any()
    assert (graph != graph.T).nnz == 0


@pytest.mark.parametrize("hops", [1, 2, 3, 5])
@pytest.mark.parametrize("xy", [square(6, 7), hexagonal(7, 6)], ids=["square", "hexagonal"])
def test_hops_are_shortest_paths(xy, hops):
    xy = xy[RNG.permutation(len(xy))][:34]  # with gaps
    graph = spot_graph(xy)
    distance = shortest_path(graph, unweighted=True)
    alpha = 2.0 ** -np.arange(hops)
    alpha /= alpha.sum()
    expected = sum(a * (distance == h) for h, a in enumerate(alpha, start=1))
    found = topology(graph, hops)
    np.testing.assert_allclose(found.toarray(), expected, atol=1e-7)
    assert (found.data > 0).all()  # nothing is stored for a pair out of reach


def test_the_weights_of_three_hops_are_4_2_and_1_sevenths():
    assert HOPS == 3
    line = spot_graph(np.stack([np.arange(6) * 10.0, np.zeros(6)], axis=1), neighbours=2)
    np.testing.assert_allclose(topology(line).toarray()[0], [0, 4 / 7, 2 / 7, 1 / 7, 0, 0], atol=1e-7)


def test_topology_of_a_graph_without_edges_is_empty():
    assert topology(sp.csr_matrix((4, 4), dtype=np.float32)).nnz == 0
