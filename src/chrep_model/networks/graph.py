"""Graph of neighbouring spots on the tissue, and its multi-hop adjacency."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

HOPS = 3
"""H, the number of hops of A_topo; the paper gives no value."""


def spot_graph(xy: NDArray[np.floating], neighbours: int = 8) -> sp.csr_matrix:
    """Connect every spot of one section to its nearest neighbours.

    Spots more than 1.6 median distances apart are not connected, since the tissue has a hole or an edge
    between them. On a hexagonal array 6 of the 8 candidates are connected, on a square array all.

    Parameters
    ----------
    xy : ndarray
        (n, 2) positions, in any unit.
    neighbours : int
        Number of candidates per spot.

    Returns
    -------
    csr_matrix
        (n, n) symmetric 0/1, without self loops.
    """
    n = len(xy)
    if n < 2:
        return sp.csr_matrix((n, n), dtype=np.float32)
    from scipy.spatial import cKDTree

    distance, index = cKDTree(xy).query(xy, k=min(neighbours + 1, n))
    near = distance[:, 1:] <= 1.6 * np.median(distance[:, 1])
    rows = np.repeat(np.arange(n), near.sum(1))
    graph = sp.csr_matrix((np.ones(len(rows), np.float32), (rows, index[:, 1:][near])), shape=(n, n))
    graph = graph.maximum(graph.T)
    graph.setdiag(0)
    graph.eliminate_zeros()
    return graph


def topology(graph: sp.csr_matrix, hops: int = HOPS, rows: NDArray[np.int64] | None = None) -> sp.csr_matrix:
    """Compute the multi-hop adjacency A_topo, in which closer spots of the graph have larger weights.

    A_topo is the sum over h of alpha_h A^(h), where A^(h)_ij = 1 iff the shortest path from i to j has h
    steps; alpha_h is proportional to 2^-(h-1) and sums to one.

    Parameters
    ----------
    graph : csr_matrix
        (n, n) symmetric 0/1 adjacency.
    hops : int
        H, the largest number of steps.
    rows : ndarray, optional
        (m,) nodes to compute; all n unless given.

    Returns
    -------
    csr_matrix
        (m, n) float32.
    """
    n = graph.shape[0]
    start = np.arange(n) if rows is None else rows
    alpha = 0.5 ** np.arange(hops)
    alpha /= alpha.sum()
    own = (np.ones(len(start), bool), (np.arange(len(start)), start))
    reached = sp.csr_matrix(own, shape=(len(start), n))
    frontier = reached
    total = sp.csr_matrix((len(start), n), dtype=np.float32)
    step = graph.astype(bool, copy=False)
    for weight in alpha:
        frontier = (frontier @ step).astype(bool)
        frontier = (frontier.astype(np.int8) - frontier.multiply(reached).astype(np.int8)).astype(bool)
        frontier.eliminate_zeros()
        reached = (reached + frontier).astype(bool)
        total = total + frontier.astype(np.float32) * np.float32(weight)
    return total.tocsr()
