"""Statistics of arrays, as models, their checks and their evaluation use them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CONSTANT = 1e-6
"""Values with a standard deviation of at most this do not vary."""


def gene_correlations(truth: NDArray[np.floating], predicted: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the Pearson correlation of each gene over spots.

    Parameters
    ----------
    truth, predicted : ndarray
        (n, genes), in the same unit.

    Returns
    -------
    ndarray
        (genes,) float32; NaN where the truth is constant, 0 where only the prediction is.
    """
    t, p = (x - x.mean(0, dtype=np.float64) for x in (truth, predicted))
    sd_t, sd_p = t.std(0), p.std(0)
    r = np.divide(
        (t * p).mean(0), sd_t * sd_p, out=np.zeros(t.shape[1]), where=np.minimum(sd_t, sd_p) > CONSTANT
    )
    return np.where(sd_t > CONSTANT, r, np.nan).astype(np.float32)


def mean_of_known(values: NDArray[np.floating]) -> float:
    """Return the mean of the values that are not NaN; NaN if there is none."""
    present = values[~np.isnan(values)]
    return float(present.mean(dtype=np.float64)) if len(present) else float("nan")


def divisors(sd: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return what standardising divides by: the standard deviation, or 1 for a column that does not vary."""
    return np.where(sd < CONSTANT, 1.0, sd).astype(np.float32)


def unit_rows(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return rows scaled to length one; a zero row stays zero (equally far from everything)."""
    return (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)).astype(np.float32)
