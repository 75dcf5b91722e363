"""The last step: per gene, how much of each learner's answer to take.

The published second phase throws the regression head away and keeps the estimate plus its correction. On real
sections the head knows things that the neighbours do not; so all of them are kept, and how to weigh them is
learned per gene from predictions on training sections that the learners had not seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Combination:
    """Weights of the learners and an offset, per gene.

    Attributes
    ----------
    weights : ndarray
        (learners, genes) float32.
    offset : ndarray
        (genes,) float32.
    """

    weights: NDArray[np.float32]
    offset: NDArray[np.float32]

    def __call__(
        self, parts: list[NDArray[np.float32]], genes: NDArray[np.int64] | slice
    ) -> NDArray[np.float32]:
        """Combine answers, each (n, number of genes) for columns `genes`."""
        total = np.broadcast_to(self.offset[genes], parts[0].shape).copy()
        for weight, part in zip(self.weights, parts, strict=True):
            total += weight[genes] * part
        return total


def fit_combination(
    held_out: list[NDArray[np.float32]], targets: NDArray[np.float32], *, shrink: float
) -> Combination:
    """Least squares per gene, shrunk towards weights common to all genes, these towards equal ones.

    Parameters
    ----------
    held_out : list of ndarray
        Per learner, (n, genes) predictions of spots of sections that it was not trained on.
    targets : ndarray
        (n, genes) standardised expression.
    shrink : float
        Strength, in spots: how many spots' worth of evidence the common weights have against a gene's own.
    """
    X = np.stack(held_out).astype(np.float64)  # (learners, n, genes)
    y = targets.astype(np.float64)
    count, n, _ = X.shape
    equal = np.full(count, 1 / count)
    # Variance of the answers sets the unit: a prior worth `shrink` spots of typical answers.
    unit = np.mean(X**2)
    gram = np.einsum("ang,bng->gab", X, X)
    right = np.einsum("ang,ng->ga", X, y)
    ridge = shrink * unit * np.eye(count)
    common = np.linalg.solve(gram.mean(0) + ridge, right.mean(0) + ridge @ equal)
    own = np.linalg.solve(gram + ridge, (right + ridge @ common)[:, :, None])[:, :, 0]
    offset = (y - np.einsum("ang,ga->ng", X, own)).mean(0) * (n / (n + shrink))
    return Combination(own.T.astype(np.float32), offset.astype(np.float32))
