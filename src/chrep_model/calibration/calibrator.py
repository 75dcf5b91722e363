"""The last step of a prediction: combine the learners with a weight each, per gene.

The published second phase throws the regression head away and keeps the estimate plus its correction. On real
sections the head knows things that the neighbours do not; so all of them are kept, and how to weigh them is
learned per gene from predictions on training sections that the learners had not seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.optimize
from numpy.typing import NDArray

Answers = list[NDArray[np.float32]]
"""Per learner, (n, genes) standardised expression."""

_JITTER = 1e-6


@dataclass(frozen=True)
class Combination:
    """Weights of the learners, per gene.

    Attributes
    ----------
    weights : ndarray
        (learners, genes) float32.
    offset : ndarray or None
        (genes,) float32, added for a site that is not the one where the learners were trained.
    """

    weights: NDArray[np.float32]
    offset: NDArray[np.float32] | None = None

    def __call__(self, answers: Answers, genes: NDArray[np.int64] | slice) -> NDArray[np.float32]:
        """Combine the learners' answers, each (n, number of genes) for columns `genes`."""
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
    """Fit the weights by least squares: one set for all genes, then per gene, shrunk towards it.

    Answers and targets are centred within each section: a section's offset is one number that a handful of
    sections cannot teach, and left in it would drown what tells the spots apart. The common weights are not
    negative, so that two learners who say nearly the same do not end up as a large difference of the two.

    Parameters
    ----------
    held_out : list of ndarray
        Predictions of spots of sections that the learners were not trained on.
    targets : ndarray
        (n, genes) standardised expression.
    section : ndarray
        (n,) int.
    shrink : float
        How many spots' worth of evidence the common weights have against a gene's own.
    known : ndarray, optional
        (sections, genes) bool, of which section's genes it can be learned, see `SpotTable.learnable`; all
        unless given. A gene of which it can be learned nowhere gets the common weights.
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
    """Combine each section's answers with weights fitted on the other sections, (n, genes) float32.

    What remains as error is then that of a section which neither the learners nor their weights have seen.
    Parameters as in `fit_combination`; it takes two sections.
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

    Learners that were trained elsewhere are wrong by much the same amount in all sections of a new site.
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
    """Return the mean of targets - predicted per gene over spots that measured it, (genes,); else 0.

    Parameters
    ----------
    predicted, targets : ndarray
        (n, genes).
    section : ndarray
        (n,) int.
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
