"""Reliability of a prediction: intervals, similarity of a tile to training tissue, and accuracy per gene.

All three are fitted on predictions for held-out training sections. They are valid for slides that differ from
the training sections as much as these differ from each other; for others, the similarity is a warning.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.optimize
from numpy.typing import NDArray

from chrep_model.errors import SettingsError
from chrep_model.statistics import gene_correlations

Genes = NDArray[np.int64] | slice

LEVELS = (0.5, 0.8, 0.9, 0.95)
"""Coverages of the intervals: the share of measured values that lie inside."""

FAR = 0.95
"""A tile is unlike the training tissue if this share of held-out training spots is nearer to the gallery."""

UNLIKE_SHARE = 0.25
"""A slide with a larger share of unlike tiles is unlike the training slides.

By definition the share is 0.05 on average over held-out training sections. On real sections it was 0.00 to
0.19 for held-out sections of the same patient, 0.45 for another patient scanned at a coarser resolution
(where 90 % intervals held 68 % of the values), and 0.29 and 0.46 for sections of another organ.
"""

_FLOOR = 0.1
_SHRINK = 100.0
_STANDARD_ERRORS = 2.0
_LEAST_SPREAD, _LEAST_DISTANCE = 1e-2, 1e-6
_POINTS = 101


@dataclass(frozen=True)
class Trust:
    """Fitted intervals, gallery distances and accuracies, as arrays to store with the model.

    The intervals are split-conformal and locally weighted (Lei et al. 2018). The half width of gene g's
    interval at tile i is ``q_g(level) * sqrt(a_g + b_g * spread_ig^2 + c_g * distance_i^2)``: the root is the
    expected error, and q_g the quantile of the held-out errors in units of the expected ones.

    Attributes
    ----------
    variance : ndarray
        (3, genes) float32: a, b, c above, none negative.
    quantiles : ndarray
        (`LEVELS`, genes) float32.
    distances : ndarray
        (101,) float32: percentiles 0 to 100 of the held-out spots' distance to the gallery.
    correlations : ndarray
        (sections, genes) float32: Pearson correlation on each training section when held out; NaN if the gene
        does not vary there, or was not measured there or in no other section.
    counted : ndarray or None
        (genes,) float32: number of sections on which a gene could be tested; None if all on all.
    """

    variance: NDArray[np.float32]
    quantiles: NDArray[np.float32]
    distances: NDArray[np.float32]
    correlations: NDArray[np.float32]
    counted: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        genes = self.correlations.shape[-1]
        shapes = (self.variance.shape, self.quantiles.shape, self.distances.shape, self.correlations.ndim)
        if shapes != ((3, genes), (len(LEVELS), genes), (_POINTS,), 2):
            raise ValueError(f"the intervals' arrays have the shapes {shapes}")
        if self.counted is not None and self.counted.shape != (genes,):
            raise ValueError(f"the intervals count sections for {self.counted.shape} genes, not {genes}")

    @classmethod
    def fit(
        cls,
        predicted: NDArray[np.float32],
        targets: NDArray[np.float32],
        section: NDArray[np.int64],
        spread: NDArray[np.float32],
        distance: NDArray[np.float32],
        known: NDArray[np.bool_] | None = None,
    ) -> Trust:
        """Fit intervals, distances and accuracies to predictions of held-out sections.

        A new slide is exchangeable with sections, not with spots, so all sections have the same weight
        (pooling of distributions, Dunn et al. 2022). A guarantee without further assumptions would need nine
        sections for 90 %; with fewer, the coverage on new sections has to be measured. Each gene's quantile
        is averaged with that of all genes, which has the weight of `_SHRINK` spots.

        Parameters
        ----------
        predicted, targets : ndarray
            (n, genes) standardised expression.
        section : ndarray
            (n,) int, section of each spot; at least two sections.
        spread : ndarray
            (n, genes), see `gallery.neighbour_spread`; 0 for a predictor that uses no neighbours.
        distance : ndarray
            (n,) 1 - cosine to the nearest spot of a gallery without the spot's own section.
        known : ndarray, optional
            (sections, genes) bool, on which sections a gene can be tested, see `SpotTable.learnable`; all
            unless given. A gene that can be tested on none gets the interval of all genes, and no accuracy.
        """
        if known is not None:
            return cls._fit_known(predicted, targets, section, spread, distance, known)
        weights = _section_weights(section)
        residual = np.abs(predicted - targets)
        variance = _error_variance(residual**2, spread, distance, weights, weights)
        error = np.sqrt(_expected_square(variance, spread, distance))
        scores = residual / np.maximum(error, np.finfo(np.float32).tiny)
        n, genes = scores.shape
        own = np.stack([conformal_quantiles(scores[:, g], weights) for g in range(genes)], axis=1)
        common = conformal_quantiles(scores.ravel(), np.repeat(weights / genes, genes))
        rows = [section == s for s in np.unique(section)]
        return cls(
            variance=variance,
            quantiles=((n * own + _SHRINK * common[:, None]) / (n + _SHRINK)).astype(np.float32),
            distances=np.quantile(distance, np.linspace(0, 1, _POINTS)).astype(np.float32),
            correlations=np.stack([gene_correlations(targets[r], predicted[r]) for r in rows]),
        )

    @classmethod
    def _fit_known(
        cls,
        predicted: NDArray[np.float32],
        targets: NDArray[np.float32],
        section: NDArray[np.int64],
        spread: NDArray[np.float32],
        distance: NDArray[np.float32],
        known: NDArray[np.bool_],
    ) -> Trust:
        """Fit as `fit` does if some genes were not measured everywhere; a gene's sections weigh the same."""
        numbers, place = np.unique(section, return_inverse=True)
        known = known[numbers]
        counted, of_spot = known.sum(0), known[place]
        plain = _section_weights(section)
        weights = np.where(of_spot, plain[:, None] * len(numbers) / np.maximum(counted, 1), 0)
        weights = weights.astype(np.float32)
        residual = np.where(of_spot, np.abs(predicted - targets), 0)
        variance = _error_variance(residual**2, spread, distance, weights, plain)
        error = np.sqrt(_expected_square(variance, spread, distance))
        scores = residual / np.maximum(error, np.finfo(np.float32).tiny)
        n = of_spot.sum(0)
        common = conformal_quantiles(scores[of_spot], weights[of_spot] / max((n > 0).sum(), 1))
        own = np.repeat(common[:, None], len(n), axis=1)
        for g in np.flatnonzero(n):
            rows = of_spot[:, g]
            own[:, g] = conformal_quantiles(scores[rows, g], weights[rows, g])
        correlations = np.stack(
            [gene_correlations(targets[place == i], predicted[place == i]) for i in range(len(numbers))]
        )
        return cls(
            variance=variance,
            quantiles=((n * own + _SHRINK * common[:, None]) / (n + _SHRINK)).astype(np.float32),
            distances=np.quantile(distance, np.linspace(0, 1, _POINTS)).astype(np.float32),
            correlations=np.where(known, correlations, np.nan).astype(np.float32),
            counted=counted.astype(np.float32),
        )

    def half_width(
        self, spread: NDArray[np.float32], distance: NDArray[np.float32], genes: Genes, level: float = 0.9
    ) -> NDArray[np.float32]:
        """Return the half width of the intervals, (n, number of genes) float32, standardised.

        Parameters
        ----------
        spread : ndarray
            (n, number of genes), see `gallery.neighbour_spread`.
        distance : ndarray
            (n,), distance of each tile to the gallery.
        genes : ndarray of int, or slice
            Columns of the panel that `spread` holds.
        level : float
            Coverage of the interval, one of `LEVELS`.

        Raises
        ------
        SettingsError
            The level is none of `LEVELS`.
        """
        if level not in LEVELS:
            raise SettingsError(
                f"there are no intervals for {level:.0%} of the values",
                remedy=f"Choose from {', '.join(f'{known:g}' for known in LEVELS)}.",
            )
        expected = _expected_square(self.variance[:, genes], spread, distance)
        return self.quantiles[LEVELS.index(level), genes] * np.sqrt(expected)

    def unlike(self, distance: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return, for each tile, the share of held-out training spots nearer to the gallery, (n,)."""
        shares = np.interp(distance, self.distances, np.linspace(0, 1, _POINTS))
        return shares.astype(np.float32)

    def unlike_share(self, distance: NDArray[np.float32]) -> float:
        """Return the share of tiles beyond `FAR`; above `UNLIKE_SHARE` the slide is unlike the training."""
        return float(np.mean(self.unlike(distance) > FAR)) if len(distance) else 0.0

    @property
    def accuracy(self) -> NDArray[np.float32]:
        """Expected correlation on a new section, (genes,): mean over held-out sections, NaN if untested."""
        known = np.isfinite(self.correlations)
        total = np.where(known, self.correlations, 0).sum(0)
        mean = np.where(known.any(0), total / np.maximum(known.sum(0), 1), np.nan)
        return mean.astype(np.float32)

    @property
    def predictable(self) -> NDArray[np.bool_]:
        """Whether a gene's accuracy is above 0 by more than two standard errors, (genes,).

        The standard error of the mean over sections is estimated from all genes together, because three
        sections are too few for a single gene. With the measured sections rotated against the predictions, 0
        to 10 genes in 100 pass, unless the tissue itself is symmetric.
        """
        return self.accuracy > _STANDARD_ERRORS * self._standard_error()

    def _standard_error(self) -> NDArray[np.float64] | float:
        known = np.isfinite(self.correlations)
        scatter = np.where(known, self.correlations - self.accuracy, 0) ** 2
        freedom = np.maximum(known.sum(0) - 1, 0).sum()
        sections = len(known) if self.counted is None else np.maximum(self.counted, 1)
        error: NDArray[np.float64] | float = np.sqrt(scatter.sum() / max(freedom, 1) / sections)
        return error

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Return all arrays by name, to be stored."""
        return {name: values for name, values in vars(self).items() if values is not None}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[np.float32]]) -> Trust:
        """Build an instance from stored `arrays`; TypeError or ValueError if they do not fit."""
        return cls(**arrays)


def conformal_quantiles(scores: NDArray[np.floating], weights: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the quantiles of weighted scores at `LEVELS`, for conformal intervals.

    With n equal weights a quantile is the ceil((n + 1) * level)-th smallest score, which a new score does not
    exceed with probability `level` (Lei et al. 2018, algorithm 2), or the largest if n is too small for that.

    Parameters
    ----------
    scores, weights : ndarray
        (n,); the weights sum to one.
    """
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum(weights[order], dtype=np.float64)
    wanted = np.array(LEVELS) * (1 + 1 / len(scores))
    # 1e-9 allows for rounding errors.
    at = np.searchsorted(reached, wanted - 1e-9)
    return scores[order[np.minimum(at, len(scores) - 1)]]


def _section_weights(section: NDArray[np.int64]) -> NDArray[np.float32]:
    _, number, counts = np.unique(section, return_inverse=True, return_counts=True)
    weights: NDArray[np.float32] = (1 / (len(counts) * counts))[number].astype(np.float32)
    return weights


def _error_variance(
    square: NDArray[np.float32],
    spread: NDArray[np.float32],
    distance: NDArray[np.float32],
    weights: NDArray[np.float32],
    of_spot: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Regress the squared errors on a constant, the squared spread and the squared distance.

    Each gene's errors and regressors are scaled to mean one, so that three coefficients are fitted to all
    genes together. None is negative, so that no interval becomes narrower as spread or distance grows. The
    coefficients of constant and distance are at least `_FLOOR`, because too few training spots are far from
    all other sections to show how the error grows with distance.

    Parameters
    ----------
    square, spread : ndarray
        Squared errors and neighbour spreads, (n, genes).
    distance : ndarray
        (n,), distances to the gallery.
    weights : ndarray
        Weights of the spots, (n,), or (n, genes) if they differ by gene. A gene's weights sum to one, or are
        all 0 if it was not measured; it then gets the mean of the other genes.
    of_spot : ndarray
        (n,), weights of the spots for the distance; they sum to one.
    """
    mean = _weighted(weights, square)
    near = np.maximum(_weighted(weights, spread**2), _LEAST_SPREAD)
    far = max(float(of_spot @ distance**2), _LEAST_DISTANCE)
    ones = np.ones_like(square)
    X = np.stack([ones, spread**2 / near, (distance**2 / far)[:, None] * ones])
    y = square / np.maximum(mean, np.finfo(np.float32).tiny)
    by_gene = weights if weights.ndim == 2 else weights[:, None]
    rows = np.concatenate([X, y[None]]) * np.sqrt(by_gene / square.shape[1])
    # The R of a QR decomposition gives the same least squares problem with only four rows.
    R = np.asarray(np.linalg.qr(rows.reshape(4, -1).T.astype(np.float64), mode="r"))
    shares = scipy.optimize.lsq_linear(
        R[:, :3], R[:, 3], bounds=([_FLOOR, 0, _FLOOR], np.inf), method="bvls"
    ).x
    scale = np.stack([np.ones_like(near), 1 / near, np.full_like(near, 1 / far)])
    return (shares[:, None] * scale * mean).astype(np.float32)


def _weighted(weights: NDArray[np.float32], values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return weighted means over the spots, (genes,); see `_error_variance` for the weights."""
    if weights.ndim == 1:
        plain: NDArray[np.float32] = weights @ values
        return plain
    by_gene: NDArray[np.float32] = (weights * values).sum(0)
    known = weights.any(0)
    return np.where(known, by_gene, by_gene[known].mean())


def _expected_square(
    variance: NDArray[np.float32], spread: NDArray[np.float32], distance: NDArray[np.float32]
) -> NDArray[np.float32]:
    a, b, c = variance
    expected: NDArray[np.float32] = a + b * spread**2 + c * (distance**2)[:, None]
    return expected
