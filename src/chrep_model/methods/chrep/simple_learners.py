"""Two simple learners beside CHRep's own: a low-rank ridge regression and a forest.

With few sections a network fits the tumour that it saw; what is simple carries further.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from chrep_model.methods.base import ALL, Arrays, Genes, leave_section_out
from chrep_model.methods.expression_components import Components
from chrep_model.methods.ridge import RidgeSolver, filled_in
from chrep_model.methods.trees import COMPONENTS, Forest, fit_forest
from chrep_model.training.samples import SpotTable

RANKS = (5, 10, 15, 20, 30, 50, 80)

MIN_LEAF = 3
"""Less than the baseline's: predictable components carry less noise."""

_COUNT = max(*RANKS, COMPONENTS)


@dataclass(frozen=True)
class SimpleLearners:
    """Both simple learners; they predict scores of the same `Components`.

    Attributes
    ----------
    components : Components
        Of expression.
    w, b : ndarray
        (d, rank) and (rank,): the linear learner's scores are X @ w + b.
    forest : Forest
        The other one's, of the first `COMPONENTS` scores.
    """

    components: Components
    w: NDArray[np.float32]
    b: NDArray[np.float32]
    forest: Forest

    @classmethod
    def fit(cls, table: SpotTable, penalty: float, rank: int, trees: int, seed: int) -> SimpleLearners:
        """Fit both learners.

        The forest heeds a spot by its reliability; the linear learner, which averages over all spots anyhow,
        gains nothing from that.
        """
        table = replace(table, targets=filled_in(table, penalty))
        components = Components.predictable(table, _COUNT, penalty)
        scores = components.scores(table.targets)
        w, b = RidgeSolver(table.features, scores[:, :rank]).weights(penalty)
        forest = fit_forest(
            table.features, scores[:, :COMPONENTS], seed,
            trees=trees, min_leaf=MIN_LEAF, weight=table.reliability(),
        )  # fmt: skip
        return cls(components, w, b, forest)

    def linear(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return scores (n, rank) by the linear learner."""
        out: NDArray[np.float32] = features @ self.w + self.b
        return out

    def genes(self, scores: NDArray[np.float32], genes: Genes = ALL) -> NDArray[np.float32]:
        """Return expression (n, number of genes) from either learner's scores."""
        return self.components.genes(scores, genes)

    def arrays(self) -> Arrays:
        """Return all numbers, flat."""
        out: Arrays = {f"forest.{k}": v for k, v in vars(self.forest).items()}
        out |= {f"components.{k}": v for k, v in vars(self.components).items()}
        return {**out, "w": self.w, "b": self.b}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> SimpleLearners:
        """Build it from stored `arrays`."""

        def part(prefix: str) -> Arrays:
            return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}

        return cls(Components(**part("components.")), arrays["w"], arrays["b"], Forest(**part("forest.")))


def choose_rank(table: SpotTable, penalty: float) -> int:
    """Return the number of components with the smallest squared error over the held-out training sections.

    Parameters
    ----------
    table : SpotTable
        Training spots; with a single section there is nothing to hold out and the middle rank serves.
    penalty : float
        Of the ridge regression that predicts them.
    """
    if len(np.unique(table.section)) < 2:
        return RANKS[len(RANKS) // 2]
    errors = np.zeros(len(RANKS))
    for train, test in leave_section_out(table):
        rows, genes = table.rows(train), table.testable(table.section[test][0])
        rows = replace(rows, targets=filled_in(rows, penalty))
        components = Components.predictable(rows, max(RANKS), penalty)
        w, b = RidgeSolver(rows.features, components.scores(rows.targets)).weights(penalty)
        scores = table.features[test] @ w + b
        for i, rank in enumerate(RANKS):
            answer = components.genes(scores[:, :rank])
            errors[i] += np.mean((answer - table.targets[test])[:, genes] ** 2)
    return RANKS[int(errors.argmin())]
