"""How good a prediction is, per gene and over genes.

A gene that does not vary in the test section has no correlation and is left out; a gene that varies but is
predicted as constant counts as zero, because leaving it out would reward saying nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TOP = 50
"""Genes in PCC(HEG50)."""

_CONSTANT = 1e-6


def gene_correlations(truth: NDArray[np.floating], predicted: NDArray[np.floating]) -> NDArray[np.float64]:
    """Pearson correlation of every gene over the spots of one section.

    Parameters
    ----------
    truth, predicted : ndarray
        (n, genes), in the same unit.

    Returns
    -------
    ndarray
        (genes,) float64; NaN where the truth is constant, 0 where only the prediction is.
    """
    t = np.asarray(truth, np.float64) - truth.mean(0, dtype=np.float64)
    p = np.asarray(predicted, np.float64) - predicted.mean(0, dtype=np.float64)
    sd_t, sd_p = np.sqrt((t**2).mean(0)), np.sqrt((p**2).mean(0))
    r = np.zeros(t.shape[1])
    moving = (sd_t > _CONSTANT) & (sd_p > _CONSTANT)
    r[moving] = (t * p).mean(0)[moving] / (sd_t * sd_p)[moving]
    r[sd_t <= _CONSTANT] = np.nan
    return r


def highly_expressed(truth: NDArray[np.floating], count: int = TOP) -> NDArray[np.int64]:
    """Columns of the genes with the highest mean in log space; ties go to the earlier gene."""
    return np.argsort(-truth.mean(0), kind="stable")[:count].astype(np.int64)


def scores(
    truth: NDArray[np.float32], predicted: NDArray[np.float32], sd: NDArray[np.float32]
) -> list[tuple[str, str, float]]:
    """All figures of one test section.

    Parameters
    ----------
    truth, predicted : ndarray
        (n, genes) log10-spot values.
    sd : ndarray
        (genes,) by which training standardised; errors in the space ``z-train`` are divided by it.

    Returns
    -------
    list of (space, metric, value)
        ``pcc_acg`` over all genes, ``pcc_heg50`` over the 50 with the highest mean truth, ``mse``, ``mae``,
        and how many genes were left out (``genes_without_truth``) or counted as zero
        (``genes_without_prediction``).
    """
    r = gene_correlations(truth, predicted)
    top = r[highly_expressed(truth)]
    error = predicted.astype(np.float64) - truth
    z = error / sd
    flat = np.asarray(predicted, np.float64).std(0) <= _CONSTANT
    return [
        ("log10-spot", "pcc_acg", float(np.nanmean(r)) if np.isfinite(r).any() else float("nan")),
        ("log10-spot", "pcc_heg50", float(np.nanmean(top)) if np.isfinite(top).any() else float("nan")),
        ("log10-spot", "mse", float((error**2).mean())),
        ("log10-spot", "mae", float(np.abs(error).mean())),
        ("z-train", "mse", float((z**2).mean())),
        ("z-train", "mae", float(np.abs(z).mean())),
        ("log10-spot", "genes_without_truth", float(np.isnan(r).sum())),
        ("log10-spot", "genes_without_prediction", float((flat & ~np.isnan(r)).sum())),
    ]
