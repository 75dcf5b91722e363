"""Two tiles side by side."""

from __future__ import annotations

import numpy as np
import pytest

from chrep_model.analysis.tile_comparison import MOST, compare
from chrep_model.errors import GeneError, PredictionError


def test_the_genes_that_differ_most_in_units_of_their_intervals(prediction):
    first, second = (int(index) for index in prediction.indices[[3, 30]])
    gene = prediction.genes[7]
    found = compare((prediction, first), (prediction, second), gene)
    values = np.array([[prediction.gene(g)[row] for g in prediction.genes] for row in (3, 30)])
    half = np.array([[prediction.interval(g)[row] for g in prediction.genes] for row in (3, 30)])
    units = (values[1] - values[0]) / np.sqrt(half[0] ** 2 + half[1] ** 2)
    order = np.argsort(-np.abs(units))[:MOST]
    assert [d.gene for d in found.most] == [prediction.genes[i] for i in order]
    np.testing.assert_allclose([d.units for d in found.most], units[order], rtol=1e-3)
    assert (found.shown.gene, found.shown.first) == (gene, pytest.approx(values[0, 7], rel=1e-4))
    assert found.shown.half_widths == pytest.approx(tuple(half[:, 7]), rel=1e-4)
    k = prediction.bundle.model.fitted.k
    near = [set(prediction.response(tile)["neighbours"][0, :k].tolist()) for tile in (first, second)]
    assert found.shared == near[0] & near[1] and found.neighbours == (len(near[0]), len(near[1]))


def test_a_tile_against_itself_and_what_cannot_be_compared(prediction, trusting):
    tile = int(prediction.indices[0])
    same = compare((prediction, tile), (prediction, tile), prediction.genes[0])
    assert {d.units for d in same.most} == {0.0} and len(same.shared) == same.neighbours[0]
    with pytest.raises(GeneError):
        compare((prediction, tile), (prediction, tile), "NOSUCH")
    with pytest.raises(PredictionError, match="two models"):
        compare((prediction, tile), (trusting, int(trusting.indices[0])), prediction.genes[0])
    with pytest.raises(PredictionError, match="not predicted"):
        compare((prediction, 10**6), (prediction, tile), prediction.genes[0])
