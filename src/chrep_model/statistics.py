"""Statistics of arrays that models, checks and evaluation share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CONSTANT = 1e-6
"""Largest standard deviation of values that count as constant."""


def gene_correlations(truth: NDArray[np.floating], predicted: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the Pearson correlation of each gene over spots.

    Parameters
    ----------
    truth, predicted : ndarray
        (n, genes), in the same unit.

    Returns
    -------
    ndarray
        (genes,) float32; NaN if the truth is constant, 0 if only the prediction is.
    """
    t, p = (x - x.mean(0, dtype=np.float64) for x in (truth, predicted))
    sd_t, sd_p = t.std(0), p.std(0)
    r = np.divide(
        (t * p).mean(0), sd_t * sd_p, out=np.zeros(t.shape[1]), where=np.minimum(sd_t, sd_p) > CONSTANT
    )
    return np.where(sd_t > CONSTANT, r, np.nan).astype(np.float32)


def mean_of_known(values: NDArray[np.floating]) -> float:
    """Return the mean of the values that are not NaN; NaN if all are."""
    present = values[~np.isnan(values)]
    return float(present.mean(dtype=np.float64)) if len(present) else float("nan")


def divisors(sd: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return divisors for standardisation: the standard deviations, or 1 for constant columns."""
    return np.where(sd < CONSTANT, 1.0, sd).astype(np.float32)


def unit_rows(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return rows scaled to length one; a zero row stays zero (equally far from everything)."""
    return (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)).astype(np.float32)
