"""The forest as arrays says what scikit-learn's objects say."""

import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesRegressor, RandomForestRegressor

from chrep_model.methods import trees
from chrep_model.methods.expression_components import principal_components
from chrep_model.methods.trees import Forest, Trees, fit_forest

RNG = np.random.default_rng(0)
X = RNG.standard_normal((150, 9)).astype(np.float32)
Y = np.stack([np.sin(X[:, 0]), X[:, 1] * X[:, 2], X[:, 3]], axis=1)
NEW = np.concatenate([RNG.standard_normal((200, 9)), X[:20]]).astype(np.float32)

# Leaves are stored in half precision, which rounds values below 4 by up to 1e-3.
ROUNDING = 1e-3


@pytest.mark.parametrize("kind", [ExtraTreesRegressor, RandomForestRegressor])
@pytest.mark.parametrize("leaf", [1, 5])
def test_a_forest_is_scikit_learns(kind, leaf):
    ensemble = kind(12, min_samples_leaf=leaf, random_state=0).fit(X, Y)
    forest = Forest.from_sklearn(ensemble)
    found = forest.predict(NEW)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, ensemble.predict(NEW), atol=ROUNDING)
    np.testing.assert_array_equal(forest.predict(NEW[7:8]), found[7:8])


def test_a_value_on_the_threshold_goes_the_same_way():
    """Whole numbers and a forest that splits between them: float32 and float64 must agree."""
    whole = RNG.integers(0, 3, (100, 4)).astype(np.float32)
    ensemble = RandomForestRegressor(5, random_state=0).fit(whole, whole[:, :2] @ [[1, 2], [3, 4]])
    forest = Forest.from_sklearn(ensemble)
    np.testing.assert_allclose(forest.predict(whole), ensemble.predict(whole), atol=ROUNDING)
    at = forest.threshold[:40].astype(np.float32)[:, None].repeat(4, axis=1)
    np.testing.assert_allclose(forest.predict(at), ensemble.predict(at), atol=ROUNDING)


def test_thresholds_are_rounded_so_that_no_value_changes_sides():
    """Features with nothing between them and the next float32: a threshold can only be rounded down."""
    large = (2.0**23 + RNG.integers(0, 40, (120, 2))).astype(np.float32)
    ensemble = ExtraTreesRegressor(20, random_state=0).fit(large, large[:, 0] - 2.0**23)
    assert (np.concatenate([e.tree_.threshold for e in ensemble.estimators_]) % 1 > 0.5).any()
    found = Forest.from_sklearn(ensemble).predict(large)[:, 0]
    np.testing.assert_allclose(found, ensemble.predict(large), atol=20 * ROUNDING)


def test_trees_of_a_single_leaf():
    ensemble = ExtraTreesRegressor(3, min_samples_leaf=len(X), random_state=0).fit(X, Y)
    forest = Forest.from_sklearn(ensemble)
    np.testing.assert_allclose(forest.predict(NEW[:4]), np.tile(Y.mean(0), (4, 1)), atol=ROUNDING)
    assert forest.predict(NEW[:0]).shape == (0, 3)


@pytest.mark.usefixtures("few_trees")
def test_fit_forest_follows_its_settings_and_seed():
    one, same, other = (fit_forest(X, Y, seed, trees=trees.TREES) for seed in (1, 1, 2))
    assert len(one.roots) == 8
    for name, values in vars(one).items():
        np.testing.assert_array_equal(getattr(same, name), values)
    assert np.abs(one.predict(NEW) - other.predict(NEW)).max() > 1e-3
    expected = ExtraTreesRegressor(8, min_samples_leaf=5, max_features=1 / 3, random_state=1).fit(X, Y)
    np.testing.assert_allclose(one.predict(NEW), expected.predict(NEW), atol=ROUNDING)


@pytest.mark.usefixtures("few_trees")
def test_the_method_is_a_forest_on_principal_components(table, unseen, monkeypatch):
    monkeypatch.setattr(trees, "COMPONENTS", 6)
    fitted = Trees().fit(table, seed=3)
    directions = principal_components(table.targets, 6)
    mean = table.targets.mean(0)
    ensemble = ExtraTreesRegressor(8, min_samples_leaf=5, max_features=1 / 3, random_state=3)
    ensemble.fit(table.features, (table.targets - mean) @ directions)
    expected = ensemble.predict(unseen.features) @ directions.T + mean
    np.testing.assert_allclose(fitted.predict(unseen.features), expected, atol=5 * ROUNDING)
