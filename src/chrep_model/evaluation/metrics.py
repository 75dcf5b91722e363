"""Metrics of a prediction, per gene and over genes.

A gene that does not vary in the test section has no correlation and is not included. A gene that varies but
is predicted as constant has correlation 0, so that predicting constants is not rewarded. A gene that the test
section did not measure (NaN in the truth) is not included in any metric; such genes are counted.

Correlations, `relative_variance_distance` and the similarity of maps do not change if truth and prediction of
a gene are shifted and scaled together. So they are the same in both spaces, and listed under ``log10-spot``.
Errors are computed in both.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from chrep_model.statistics import CONSTANT, gene_correlations, mean_of_known

LOG10_SPOT, Z_TRAIN = "log10-spot", "z-train"
"""Spaces of the metrics: the panel's unit, and that divided by the gene's sd over the training spots."""

TOP = 50
"""Number of genes in PCC(HEG50) and PCC(top 50)."""

Figure = tuple[str, str, float]
"""A metric's space, name and value."""


def relative_variance_distance(
    truth: NDArray[np.floating], predicted: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return the relative difference between predicted and true variance over spots (over-smoothing).

    (var(predicted) - var(truth))^2 / var(truth)^2 per gene, the "relative variation distance" (RVD) of Stem
    (Zhu et al., arXiv 2501.15598) and later work: 0 for the truth, 1 for a constant prediction.

    Parameters
    ----------
    truth, predicted : ndarray
        (n, genes), in the same unit.

    Returns
    -------
    ndarray
        (genes,) float64; NaN if the truth is constant.
    """
    of_truth = np.asarray(truth, np.float64).var(0)
    of_truth[np.sqrt(of_truth) <= CONSTANT] = np.nan
    return (np.asarray(predicted, np.float64).var(0) / of_truth - 1) ** 2


def measured_columns(truth: NDArray[np.floating]) -> NDArray[np.int64] | slice:
    """Return the columns of the measured genes; a full slice (which avoids a copy) if all were measured."""
    missing = np.isnan(truth).any(0)
    return np.flatnonzero(~missing) if missing.any() else slice(None)


def highly_expressed(truth: NDArray[np.floating], count: int = TOP) -> NDArray[np.int64]:
    """Return the columns of the genes with the highest mean in log space; ties go to the earlier gene.

    By the metric's definition the truth of the test section decides, so nothing may be tuned by this metric.
    """
    return np.argsort(-truth.mean(0), kind="stable")[:count].astype(np.int64)


def scores(
    truth: NDArray[np.float32], predicted: NDArray[np.float32], sd: NDArray[np.float32]
) -> list[Figure]:
    """Compute the metrics of one test section that need only truth and prediction.

    Parameters
    ----------
    truth, predicted : ndarray
        (n, genes) log10-spot values.
    sd : ndarray
        (genes,) sd over the training spots, by which errors in the space ``z-train`` are divided.

    Returns
    -------
    list of (space, metric, value)
        ``pcc_acg`` over all genes, ``pcc_heg50`` over the 50 with the highest mean truth, ``pcc_top50`` over
        the 50 that are predicted best, ``mse``, ``mae``, ``rvd``, and the numbers of genes that do not vary
        (``genes_without_truth``), were not measured (``genes_not_measured``), or are predicted as constant
        (``genes_without_prediction``).
    """
    given, columns = len(sd), measured_columns(truth)
    truth, predicted, sd = truth[:, columns], predicted[:, columns], sd[columns]
    r = gene_correlations(truth, predicted)
    best = np.sort(r[~np.isnan(r)])[::-1][:TOP]
    error = predicted.astype(np.float64) - truth
    z = error / sd
    flat = np.asarray(predicted, np.float64).std(0) <= CONSTANT
    return [
        # choose columns before NaN are removed, which would shift all later columns
        (LOG10_SPOT, "pcc_acg", mean_of_known(r)),
        (LOG10_SPOT, "pcc_heg50", mean_of_known(r[highly_expressed(truth)])),
        (LOG10_SPOT, "pcc_top50", mean_of_known(best)),
        (LOG10_SPOT, "mse", float((error**2).mean())),
        (LOG10_SPOT, "mae", float(np.abs(error).mean())),
        (Z_TRAIN, "mse", float((z**2).mean())),
        (Z_TRAIN, "mae", float(np.abs(z).mean())),
        (LOG10_SPOT, "rvd", mean_of_known(relative_variance_distance(truth, predicted))),
        (LOG10_SPOT, "genes_not_measured", float(given - len(sd))),
        (LOG10_SPOT, "genes_without_truth", float(np.isnan(r).sum())),
        (LOG10_SPOT, "genes_without_prediction", float((flat & ~np.isnan(r)).sum())),
    ]


def interval_scores(
    truth: NDArray[np.float32], predicted: NDArray[np.float32], half_width: NDArray[np.float32]
) -> tuple[float, float]:
    """Return the share of measured values inside the intervals, and the intervals' mean width.

    Parameters
    ----------
    truth, predicted : ndarray
        (n, genes) log10-spot values.
    half_width : ndarray
        (n, genes), the interval is predicted +- half_width.

    Returns
    -------
    coverage, width : float
        Over all spots and measured genes; the full width in log10-spot units.
    """
    columns = measured_columns(truth)
    half_width = half_width[:, columns]
    inside = np.abs(truth - predicted)[:, columns] <= half_width
    return float(inside.mean()), float(2 * half_width.mean(dtype=np.float64))


def mean_predictor_mse(
    truth: NDArray[np.floating], mean: NDArray[np.floating], sd: NDArray[np.floating]
) -> dict[str, float]:
    """Return the squared error of predicting the training mean: variance + squared bias.

    Parameters
    ----------
    truth : ndarray
        (n, genes) log10-spot values of a test section.
    mean, sd : ndarray
        (genes,), of the training spots.

    Returns
    -------
    dict
        Space -> mean over measured genes of ``var(truth) + (mean(truth) - mean)^2``, divided by sd^2 for
        ``z-train``.
    """
    columns = measured_columns(truth)
    exact = np.asarray(truth, np.float64)[:, columns]
    per_gene = exact.var(0) + (exact.mean(0) - mean[columns]) ** 2
    spread = np.asarray(sd, np.float64)[columns]
    return {LOG10_SPOT: float(per_gene.mean()), Z_TRAIN: float((per_gene / spread**2).mean())}
