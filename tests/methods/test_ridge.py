"""Ridge against scikit-learn, and its choices against what they would have to be."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge as SklearnRidge

from chrep_model.methods.ridge import (
    PENALTIES,
    Ridge,
    RidgeSolver,
    choose_penalty,
)


@pytest.mark.parametrize(("n", "dim"), [(80, 20), (30, 30), (30, 70)], ids=["primal", "square", "dual"])
@pytest.mark.parametrize("penalty", [1.0, 100.0, 1e5])
def test_weights_are_scikit_learns(n, dim, penalty):
    rng = np.random.default_rng(0)
    X = (rng.standard_normal((n, dim)) + 3).astype(np.float32)
    Y = (rng.standard_normal((n, 6)) - 1).astype(np.float32)
    solver = RidgeSolver(X, Y)
    assert solver.dual == (n <= dim)
    w, b = solver.weights(penalty)
    expected = SklearnRidge(alpha=penalty).fit(X.astype(np.float64), Y)
    np.testing.assert_allclose(w, expected.coef_.T, atol=1e-5)
    np.testing.assert_allclose(b, expected.intercept_, atol=1e-4)


def test_more_columns_than_rank_are_no_trouble():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((50, 8)).astype(np.float32)
    X = np.concatenate([X, X], axis=1)  # every feature twice
    w, _ = RidgeSolver(X, rng.standard_normal((50, 2)).astype(np.float32)).weights(1.0)
    np.testing.assert_allclose(w[:8], w[8:], atol=1e-5)


def test_the_penalty_is_the_best_on_sections_left_out(make_table):
    table = make_table(sections=3, spots=30, dim=40)
    errors = []
    for penalty in PENALTIES:
        total = 0.0
        for s in range(3):
            train, test = table.section != s, table.section == s
            model = SklearnRidge(alpha=penalty).fit(table.features[train], table.targets[train])
            total += np.mean((model.predict(table.features[test]) - table.targets[test]) ** 2)
        errors.append(total)
    best = int(np.argmin(errors))
    assert 0 < best < len(PENALTIES) - 1  # the table asks for a choice
    assert choose_penalty(table) == PENALTIES[best]


def test_the_fitted_ridge_is_scikit_learns_at_that_penalty(table, unseen):
    fitted = Ridge().fit(table, seed=0)
    expected = SklearnRidge(alpha=choose_penalty(table)).fit(table.features, table.targets)
    np.testing.assert_allclose(fitted.predict(unseen.features), expected.predict(unseen.features), atol=1e-4)


def test_noise_asks_for_a_heavier_penalty(make_table):
    table = make_table(sections=3, spots=60, dim=20, genes=60)
    noise = np.random.default_rng(3).standard_normal(table.targets.shape).astype(np.float32)
    noisy = type(table)(**{**vars(table), "targets": table.targets + 4 * noise})
    assert choose_penalty(noisy) > choose_penalty(table)


def test_one_section_has_nothing_to_choose_on(make_table):
    table = make_table(sections=1)
    assert choose_penalty(table) in PENALTIES
