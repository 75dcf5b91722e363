"""Comparison of two tiles: the neighbours that they share, and the genes in which they differ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chrep_model.errors import PredictionError
from chrep_model.prediction.prediction import Prediction, within_unit

MOST = 10
"""Number of genes with the largest differences that are listed."""


@dataclass(frozen=True)
class Difference:
    """One gene's values on two tiles, and how clearly they differ.

    Attributes
    ----------
    gene : str
    first, second : float
        Values of the last variant, log10-spot.
    half_widths : (float, float) or None
        Half widths of the 90 % intervals around them; None if the model has no intervals.
    units : float
        ``(second - first) / sqrt(h_1^2 + h_2^2)`` with the half widths h: beyond ±1 the difference is larger
        than expected from two independent errors. Without intervals, the difference in sd of the gene over
        the training spots.
    """

    gene: str
    first: float
    second: float
    half_widths: tuple[float, float] | None
    units: float


@dataclass(frozen=True)
class TileComparison:
    """Result of comparing two tiles under one model.

    Attributes
    ----------
    shown : Difference
        Difference in the displayed gene.
    most : tuple of Difference
        The genes with the largest differences in `units`, the largest first.
    neighbours : (int, int)
        Number of gallery neighbours of each tile.
    shared : frozenset of int
        Rows of the gallery that are neighbours of both tiles.
    """

    shown: Difference
    most: tuple[Difference, ...]
    neighbours: tuple[int, int]
    shared: frozenset[int]


def compare(first: tuple[Prediction, int], second: tuple[Prediction, int], gene: str) -> TileComparison:
    """Compare two tiles over all genes; the encoder does not run.

    Parameters
    ----------
    first, second : (Prediction, int)
        A prediction and the flat index of one of its tiles; of the same model, but possibly of two slides.
    gene : str
        The displayed gene.

    Raises
    ------
    GeneError
        The model does not know the gene.
    PredictionError
        A tile is not predicted, or the predictions are of different models.
    """
    predictions, responses = [first[0], second[0]], [pair[0].response(pair[1]) for pair in (first, second)]
    model, panel = predictions[0].bundle.model, predictions[0].bundle.panel
    if predictions[1].bundle.hash != predictions[0].bundle.hash:
        raise PredictionError(
            "two models cannot be compared tile by tile", remedy="Pin a tile of this model."
        )
    variant, everything = model.fitted.variants[-1], np.arange(len(panel))
    a, b = (within_unit(model.read(response, variant, everything)[0]) for response in responses)
    halves = [model.interval(response, variant, everything) for response in responses]
    unit: NDArray[np.float32] = panel.sd
    pairs: list[tuple[float, float] | None] = [None] * len(panel)
    if halves[0] is not None and halves[1] is not None:
        unit = np.hypot(halves[0][0], halves[1][0])
        pairs = list(zip(halves[0][0].tolist(), halves[1][0].tolist(), strict=True))
    units = np.divide(b - a, unit, out=np.zeros_like(a), where=unit > 0)

    def difference(column: int) -> Difference:
        values = float(a[column]), float(b[column])
        return Difference(panel.genes[column], *values, pairs[column], float(units[column]))

    order = np.argsort(-np.abs(units), kind="stable")[:MOST]
    rows = [set(model.fitted.neighbours(response).index[0].tolist()) for response in responses]
    return TileComparison(
        shown=difference(panel.index(gene)),
        most=tuple(difference(int(column)) for column in order),
        neighbours=(len(rows[0]), len(rows[1])),
        shared=frozenset(rows[0] & rows[1]),
    )
