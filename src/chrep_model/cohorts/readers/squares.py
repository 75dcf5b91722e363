"""Sum the counts of cells or bins into squares."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy import sparse


def sum_rows(counts: sparse.csr_matrix, squares: np.ndarray) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Sum the rows that lie in the same square.

    Parameters
    ----------
    counts : scipy.sparse.csr_matrix
        (n, G), whole numbers as float32.
    squares : ndarray
        (n, 2) int64, (row, col) of the square of each row.

    Returns
    -------
    counts : scipy.sparse.csr_matrix
        (m, G) float32.
    squares : ndarray
        (m, 2) int64, unique, sorted by row and column.
    """
    from scipy import sparse

    unique, of = np.unique(squares, axis=0, return_inverse=True)
    ones = np.ones(len(squares), np.float32)
    onto = sparse.csr_matrix((ones, (of.ravel(), np.arange(len(squares)))), (len(unique), len(squares)))
    summed = sparse.csr_matrix(onto @ counts)
    summed.sum_duplicates()
    return summed, unique
