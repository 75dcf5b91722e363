"""The last step of a prediction: a weighted sum of several learners, with weights per gene.

The published method discards the regression head after the first phase, and predicts the gallery's estimate
plus its correction. On real sections the head adds information, so here all learners are combined. Their
weights are fitted per gene on predictions for held-out training sections.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.optimize
from numpy.typing import NDArray

Answers = list[NDArray[np.float32]]
"""Predictions of each learner, (n, genes) standardised expression."""

_JITTER = 1e-6


@dataclass(frozen=True)
class Combination:
    """Weights of the learners, per gene.

    Attributes
    ----------
    weights : ndarray
        (learners, genes) float32.
    offset : ndarray or None
        (genes,) float32, added to predictions for a site other than that of the training data.
    """

    weights: NDArray[np.float32]
    offset: NDArray[np.float32] | None = None

    def __call__(self, answers: Answers, genes: NDArray[np.int64] | slice) -> NDArray[np.float32]:
        """Combine the learners' predictions of the columns `genes`, each (n, number of genes)."""
        total = np.zeros(answers[0].shape, np.float32)
        for weight, answer in zip(self.weights, answers, strict=True):
            total += weight[genes] * answer
        return total if self.offset is None else total + self.offset[genes]


def fit_combination(
    held_out: Answers,
    targets: NDArray[np.float32],
    section: NDArray[np.int64],
    *,
    shrink: float,
    known: NDArray[np.bool_] | None = None,
) -> Combination:
    """Fit weights by least squares: common weights for all genes, then each gene's own, shrunk towards these.

    Predictions and targets are centred within each section, because a few sections are too few to learn
    section offsets, which would dominate the differences between spots. The common weights are not negative,
    so that two similar learners do not get large weights of opposite sign.

    Parameters
    ----------
    held_out : list of ndarray
        Each learner's predictions for sections that it was not trained on.
    targets : ndarray
        (n, genes) standardised expression.
    section : ndarray
        (n,) int, section of each spot.
    shrink : float
        Weight of the common weights against a gene's own, in spots.
    known : ndarray, optional
        (sections, genes) bool, which genes of each section can be used, see `SpotTable.learnable`; all unless
        given. A gene that no section can be used for gets the common weights.
    """
    X = np.stack([_centred(answer, section) for answer in held_out])  # (learners, n, genes)
    y = _centred(targets, section)
    scale = np.mean(X**2)
    if known is not None:
        of_spot = known[section]
        X, y = X * of_spot, y * of_spot
        scale = np.sum(X**2) / max(len(X) * int(of_spot.sum()), 1)
    gram = np.einsum("ang,bng->gab", X, X, optimize=True)
    right = np.einsum("ang,ng->ga", X, y, optimize=True)
    common = _non_negative(gram.sum(0), right.sum(0))
    prior = shrink * scale * np.eye(len(X))
    prior += (_JITTER * np.trace(gram.mean(0)) + np.finfo(float).tiny) * np.eye(len(X))  # constant learners
    own = np.linalg.solve(gram + prior, (right + prior @ common)[:, :, None])[:, :, 0]
    return Combination(np.ascontiguousarray(own.T.astype(np.float32)))


def cross_combined(
    held_out: Answers,
    targets: NDArray[np.float32],
    section: NDArray[np.int64],
    *,
    shrink: float,
    known: NDArray[np.bool_] | None = None,
) -> NDArray[np.float32]:
    """Return combined predictions (n, genes), each section's with weights fitted on the other sections.

    The errors of the result are then those for a section that neither the learners nor their weights have
    seen. The parameters are those of `fit_combination`, for at least two sections.
    """
    out = np.empty_like(targets)
    for s in np.unique(section):
        own = section == s
        combination = fit_combination(
            [a[~own] for a in held_out], targets[~own], section[~own], shrink=shrink, known=known
        )
        out[own] = combination([a[own] for a in held_out], slice(None))
    return out


def cross_offset(
    predicted: NDArray[np.float32],
    targets: NDArray[np.float32],
    section: NDArray[np.int64],
    measured: NDArray[np.bool_] | None = None,
) -> NDArray[np.float32]:
    """Shift each section's predictions by the other sections' mean error per gene, (n, genes) float32.

    Learners trained at another site have about the same mean error in all sections of a new site.
    """
    out = predicted.copy()
    for s in np.unique(section):
        own = section == s
        out[own] += mean_error(predicted[~own], targets[~own], section[~own], measured)
    return out


def mean_error(
    predicted: NDArray[np.float32],
    targets: NDArray[np.float32],
    section: NDArray[np.int64],
    measured: NDArray[np.bool_] | None = None,
) -> NDArray[np.float32]:
    """Return each gene's mean of targets - predicted over spots that measured it, (genes,); 0 if none did.

    Parameters
    ----------
    predicted, targets : ndarray
        (n, genes).
    section : ndarray
        (n,) int, section of each spot.
    measured : ndarray, optional
        (sections, genes) bool, which section measured which gene; all unless given.
    """
    error = targets - predicted
    if measured is None:
        return error.mean(0)
    of_spot = measured[section]
    mean: NDArray[np.float32] = (error * of_spot).sum(0) / np.maximum(of_spot.sum(0), 1)
    return mean.astype(np.float32)


def _centred(values: NDArray[np.float32], section: NDArray[np.int64]) -> NDArray[np.float64]:
    out = values.astype(np.float64)
    for s in np.unique(section):
        out[section == s] -= out[section == s].mean(0)
    return out


def _non_negative(gram: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Minimise w' gram w - 2 right' w over w >= 0, as a least-squares problem by Cholesky."""
    jitter = (_JITTER * np.trace(gram) + np.finfo(float).tiny) * np.eye(len(gram))
    factor = np.linalg.cholesky(gram + jitter)
    target = scipy.linalg.solve_triangular(factor, right, lower=True)
    weights: NDArray[np.float64] = scipy.optimize.nnls(factor.T, target)[0]
    return weights
