"""Describe expression by a few components: joint variation is signal, a single gene's mostly noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from chrep_model.methods.base import ALL, Genes, leave_section_out
from chrep_model.methods.ridge import TableSolver
from chrep_model.statistics import gene_correlations
from chrep_model.training.samples import SpotTable, groups

_LEAST_WEIGHT = 0.02


@dataclass(frozen=True)
class Components:
    """Maps standardised expression to component scores, and back.

    Attributes
    ----------
    directions : ndarray
        (genes, count) float32: scores are (expression - mean) @ directions.
    loadings : ndarray
        (count, genes) float32: expression is scores @ loadings + mean.
    mean : ndarray
        (genes,) float32.
    """

    directions: NDArray[np.float32]
    loadings: NDArray[np.float32]
    mean: NDArray[np.float32]

    @classmethod
    def predictable(cls, table: SpotTable, count: int, penalty: float) -> Components:
        """Return principal components with each gene weighted by how well it can be predicted.

        Standardised genes all have the same variance, but of most it is counting noise; left alone, noise
        would claim components of its own. A gene's weight is its correlation with what a ridge regression
        says of training sections that the regression had not seen.

        Parameters
        ----------
        table : SpotTable
            Training spots, `ridge.filled_in` where a section did not measure a gene; with a single section
            all genes weigh the same.
        count : int
            How many; fewer where there are fewer spots.
        penalty : float
            Of the ridge regression.
        """
        weight = _predictability(table, penalty)
        mean = table.targets.mean(0)
        centred = table.targets - mean
        directions = principal_components(centred * weight, count) * weight[:, None]
        scores = centred @ directions
        # Scores of principal components do not correlate: a gene's loadings are as many simple regressions.
        size = np.maximum((scores**2).sum(0), np.finfo(np.float32).tiny)
        loadings = (scores.T @ centred) / size[:, None]
        return cls(directions, loadings.astype(np.float32), mean)

    def scores(self, targets: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return scores (n, count) of standardised expression (n, genes)."""
        return ((targets - self.mean) @ self.directions).astype(np.float32, copy=False)

    def genes(self, scores: NDArray[np.float32], genes: Genes = ALL) -> NDArray[np.float32]:
        """Return expression (n, number of genes) from scores of the first components, (n, up to count)."""
        out: NDArray[np.float32] = scores @ self.loadings[: scores.shape[1], genes] + self.mean[genes]
        return out


def principal_components(targets: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Return the directions (genes, count) of largest variance of standardised expression."""
    centred = (targets - targets.mean(0)).astype(np.float64)
    n, genes = centred.shape
    dual = n < genes  # the smaller of the two Gram matrices
    size = min(n, genes)
    wanted = (size - min(count, size), size - 1)
    gram = centred @ centred.T if dual else centred.T @ centred
    _, vectors = scipy.linalg.eigh(gram, subset_by_index=wanted)
    directions = (centred.T @ vectors if dual else vectors)[:, ::-1]
    directions /= np.maximum(np.linalg.norm(directions, axis=0), 1e-12)
    return np.ascontiguousarray(directions.astype(np.float32))


def _predictability(table: SpotTable, penalty: float) -> NDArray[np.float32]:
    if len(np.unique(table.section)) < 2:
        return np.ones(table.targets.shape[1], np.float32)
    answer = np.empty_like(table.targets)
    for train, test in leave_section_out(table):
        w, b = TableSolver(table.rows(train)).weights(penalty)
        answer[test] = table.features[test] @ w + b
    known = np.zeros(table.targets.shape[1], np.float32)
    for rows, genes in groups(table.learnable(), table.section):
        known[genes] = gene_correlations(table.targets[rows][:, genes], answer[rows][:, genes])
    return np.maximum(np.nan_to_num(known), _LEAST_WEIGHT).astype(np.float32)
