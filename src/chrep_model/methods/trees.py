"""Extremely randomised trees on the principal components of expression: our strongest simple learner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chrep_model.calibration.gallery import Gallery
from chrep_model.methods.base import ALL, Arrays, FittedMethod, Genes, Method, Response, gallery_of
from chrep_model.methods.expression_components import principal_components
from chrep_model.methods.registry import register
from chrep_model.methods.ridge import choose_penalty, filled_in
from chrep_model.statistics import unit_rows
from chrep_model.training.run import SILENT_RUN, Run
from chrep_model.training.samples import SpotTable

TREES = 300
MIN_LEAF = 5
FEATURE_SHARE = 1 / 3
COMPONENTS = 30

_CHUNK = 64
"""Tiles that go through the forest together."""


@dataclass(frozen=True)
class Forest:
    """A fitted forest as plain arrays, which can be stored and read without running code.

    Attributes
    ----------
    roots : ndarray
        (trees,) int64, first node of each tree.
    children : ndarray
        (nodes, 2) int32, next node where the feature is below or above; -1 and the row of `value` at a leaf.
    feature : ndarray
        (nodes,) uint16.
    threshold : ndarray
        (nodes,) float32.
    value : ndarray
        (leaves, outputs) float16: most of a bundle's size, and rounded far below what trees differ by.
    """

    roots: NDArray[np.int64]
    children: NDArray[np.int32]
    feature: NDArray[np.uint16]
    threshold: NDArray[np.float32]
    value: NDArray[np.float16]

    @classmethod
    def from_sklearn(cls, ensemble: Any) -> Forest:
        """Copy the trees of a fitted scikit-learn regressor."""
        trees = [estimator.tree_ for estimator in ensemble.estimators_]
        counts = np.array([tree.node_count for tree in trees])
        roots = np.concatenate([[0], np.cumsum(counts)[:-1]])
        children = np.concatenate(
            [
                np.stack([tree.children_left, tree.children_right], axis=1) + root
                for tree, root in zip(trees, roots, strict=True)
            ]
        )
        leaf = np.concatenate([tree.children_left for tree in trees]) < 0
        children[leaf] = np.stack([np.full(leaf.sum(), -1), np.arange(leaf.sum())], axis=1)
        return cls(
            roots.astype(np.int64),
            children.astype(np.int32),
            np.concatenate([np.maximum(tree.feature, 0) for tree in trees]).astype(np.uint16),
            _rounded_down(np.concatenate([tree.threshold for tree in trees])),
            np.concatenate([tree.value[:, :, 0] for tree in trees])[leaf].astype(np.float16),
        )

    def predict(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the mean over the trees, (n, outputs) float32."""
        return np.concatenate(
            [np.empty((0, self.value.shape[1]), np.float32)]
            + [self._predict(X[start : start + _CHUNK]) for start in range(0, len(X), _CHUNK)]
        )

    def _predict(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        # All trees go down one level at a time: a few large array operations instead of many small ones.
        rows = np.arange(len(X))[None, :]
        node = np.broadcast_to(self.roots[:, None], (len(self.roots), len(X)))
        while True:
            below, above = self.children[node, 0], self.children[node, 1]
            leaf = below < 0
            if leaf.all():
                break
            step = np.where(X[rows, self.feature[node]] <= self.threshold[node], below, above)
            node = np.where(leaf, node, step)
        mean: NDArray[np.float32] = self.value[above].mean(0, dtype=np.float32)
        return mean


def _rounded_down(thresholds: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the largest float32 not above each threshold, so that no float32 feature changes sides."""
    nearest = thresholds.astype(np.float32)
    return np.where(nearest > thresholds, np.nextafter(nearest, np.float32(-np.inf)), nearest)


def fit_forest(
    X: NDArray[np.float32],
    scores: NDArray[np.float32],
    seed: int,
    *,
    trees: int,
    min_leaf: int = MIN_LEAF,
    weight: NDArray[np.float32] | None = None,
) -> Forest:
    """Fit a forest of `trees` trees to component scores (n, count), the spots weighted by `weight` (n,)."""
    from sklearn.ensemble import ExtraTreesRegressor

    ensemble = ExtraTreesRegressor(
        trees, min_samples_leaf=min_leaf, max_features=FEATURE_SHARE, n_jobs=-1, random_state=seed
    )
    return Forest.from_sklearn(ensemble.fit(X, scores, sample_weight=weight))


class FittedTrees(FittedMethod):
    """A fitted `Trees`."""

    def __init__(
        self, forest: Forest, directions: NDArray[np.float32], mean: NDArray[np.float32], gallery: Gallery
    ) -> None:
        self.forest, self.directions, self.mean, self.gallery = forest, directions, mean, gallery

    def _respond(self, features: NDArray[np.float32], z: NDArray[np.float32]) -> Response:
        return {"scores": self.forest.predict(features)}

    def read(self, response: Response, variant: str, genes: Genes = ALL) -> NDArray[np.float32]:
        """Return scores times directions, plus the mean."""
        out: NDArray[np.float32] = response["scores"] @ self.directions[genes].T + self.mean[genes]
        return out

    def arrays(self) -> Arrays:
        """Return forest, directions and mean."""
        return {**vars(self.forest), "directions": self.directions, "mean": self.mean}

    @classmethod
    def from_arrays(cls, arrays: Arrays, gallery: Gallery) -> FittedTrees:
        """Build it from stored `arrays`."""
        forest = Forest(**{name: arrays[name] for name in Forest.__dataclass_fields__})
        return cls(forest, arrays["directions"], arrays["mean"], gallery)


@register
class Trees(Method):
    """300 extremely randomised trees that predict the first 30 principal components.

    Components need all genes of all spots: see `ridge.filled_in` for those that a section did not measure.
    """

    name = "trees"
    title = "trees"
    description = "Forest of randomised trees on the encoder's features."
    kind = "baseline"
    fitted_class = FittedTrees
    random = True

    def fit(self, table: SpotTable, *, seed: int, run: Run = SILENT_RUN) -> FittedTrees:
        """Fit the forest with `seed`."""
        targets = table.targets if table.measured is None else filled_in(table, choose_penalty(table))
        mean = targets.mean(0)
        directions = principal_components(targets, COMPONENTS)
        forest = fit_forest(table.features, (targets - mean) @ directions, seed, trees=TREES)
        return FittedTrees(forest, directions, mean, gallery_of(table, unit_rows(table.features)))
