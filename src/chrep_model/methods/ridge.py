"""Ridge regression with a penalty chosen on held-out training sections: a strong baseline."""

from __future__ import annotations

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from chrep_model.calibration.gallery import Gallery
from chrep_model.methods.base import (
    ALL,
    Arrays,
    FittedMethod,
    Genes,
    Method,
    Response,
    gallery_of,
    leave_section_out,
)
from chrep_model.methods.registry import register
from chrep_model.statistics import unit_rows
from chrep_model.training.run import SILENT_RUN, Run
from chrep_model.training.samples import SpotTable

PENALTIES = tuple(float(10.0**e) for e in np.arange(0.0, 6.51, 0.5))


class RidgeSolver:
    """Ridge regression for many penalties at once, through one eigendecomposition.

    Parameters
    ----------
    X : ndarray
        (n, d) features.
    Y : ndarray
        (n, genes) targets.
    """

    def __init__(self, X: NDArray[np.float32], Y: NDArray[np.float32]) -> None:
        self.x_mean, self.y_mean = X.mean(0, dtype=np.float64), Y.mean(0, dtype=np.float64)
        self.X, y = X - self.x_mean, Y - self.y_mean
        # The smaller of the two Gram matrices; both give the same weights.
        self.dual = len(X) <= X.shape[1]
        values, self.vectors = scipy.linalg.eigh(self.X @ self.X.T if self.dual else self.X.T @ self.X)
        self.values = np.maximum(values, 0.0)
        self.projected = self.vectors.T @ (y if self.dual else self.X.T @ y)

    def weights(self, penalty: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return W (d, genes) and b (genes,) of X @ W + b."""
        inner = self.vectors @ (self.projected / (self.values + penalty)[:, None])
        w = self.X.T @ inner if self.dual else inner
        return w.astype(np.float32), (self.y_mean - self.x_mean @ w).astype(np.float32)


class TableSolver:
    """Ridge regression of a table's targets, each gene on the sections that measured it.

    One `RidgeSolver` for each group of genes that the same sections measured; a gene that none of them
    measured gets weights of zero, which say the training mean.

    Parameters
    ----------
    table : SpotTable
        Training spots.
    """

    def __init__(self, table: SpotTable) -> None:
        self.shape = table.features.shape[1], table.targets.shape[1]
        self.solvers = [
            (genes, RidgeSolver(table.features[rows], table.targets[rows][:, genes]))
            for rows, genes in table.groups()
        ]

    def weights(self, penalty: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return W (d, genes) and b (genes,) of X @ W + b."""
        w, b = np.zeros(self.shape, np.float32), np.zeros(self.shape[1], np.float32)
        for genes, solver in self.solvers:
            w[:, genes], b[genes] = solver.weights(penalty)
        return w, b


def filled_in(table: SpotTable, penalty: float) -> NDArray[np.float32]:
    """Return targets with unmeasured values filled in by ridge regression.

    The regression of a gene is fitted on the sections that measured it. This is for what needs all genes of
    all spots at once, such as principal components: it is an estimate from the image, no measurement.

    Parameters
    ----------
    table : SpotTable
        Training spots.
    penalty : float
        Of the regression.

    Returns
    -------
    ndarray
        (n, genes) float32; the table's own targets where nothing is missing.
    """
    if table.measured is None:
        return table.targets
    w, b = TableSolver(table).weights(penalty)
    return np.where(table.measured[table.section], table.targets, table.features @ w + b)


def choose_penalty(table: SpotTable) -> float:
    """Return the penalty with the smallest mean squared error over the held-out training sections.

    A table of one section has nothing to hold out: the middle penalty serves.
    """
    if len(np.unique(table.section)) < 2:
        return PENALTIES[len(PENALTIES) // 2]
    errors = np.zeros(len(PENALTIES))
    for train, test in leave_section_out(table):
        solver, genes = TableSolver(table.rows(train)), table.testable(table.section[test][0])
        for i, penalty in enumerate(PENALTIES):
            w, b = solver.weights(penalty)
            errors[i] += np.mean((table.features[test] @ w + b - table.targets[test])[:, genes] ** 2)
    return PENALTIES[int(errors.argmin())]


class FittedRidge(FittedMethod):
    """A fitted `Ridge`."""

    def __init__(self, w: NDArray[np.float32], b: NDArray[np.float32], gallery: Gallery) -> None:
        self.w, self.b, self.gallery = w, b, gallery

    def _respond(self, features: NDArray[np.float32], z: NDArray[np.float32]) -> Response:
        return {"features": features}

    def read(self, response: Response, variant: str, genes: Genes = ALL) -> NDArray[np.float32]:
        """Return X @ W + b."""
        out: NDArray[np.float32] = response["features"] @ self.w[:, genes] + self.b[genes]
        return out

    def arrays(self) -> Arrays:
        """Return W and b."""
        return {"w": self.w, "b": self.b}

    @classmethod
    def from_arrays(cls, arrays: Arrays, gallery: Gallery) -> FittedRidge:
        """Build it from stored `arrays`."""
        return cls(arrays["w"], arrays["b"], gallery)


@register
class Ridge(Method):
    """Linear regression of all genes with one L2 penalty, each on the spots that measured it."""

    name = "ridge"
    title = "ridge"
    description = "Linear regression with an L2 penalty on the encoder's features."
    kind = "baseline"
    fitted_class = FittedRidge

    def fit(self, table: SpotTable, *, seed: int, run: Run = SILENT_RUN) -> FittedRidge:
        """Choose the penalty on held-out training sections, then fit on all; `seed` has no effect."""
        w, b = TableSolver(table).weights(choose_penalty(table))
        return FittedRidge(w, b, gallery_of(table, unit_rows(table.features)))
