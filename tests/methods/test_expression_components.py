"""Components: an encoding of expression that gives way to what can be predicted."""

import dataclasses

import numpy as np
import pytest

from chrep_model.methods.expression_components import Components, principal_components


def with_noise_genes(table, count=30, size=3.0):
    """The table with further genes that nothing predicts but that move together in each spot."""
    rng = np.random.default_rng(7)
    shared = rng.standard_normal((len(table), 1)) @ rng.standard_normal((1, count))
    noise = size * shared + 0.1 * rng.standard_normal((len(table), count))
    return dataclasses.replace(table, targets=np.hstack([table.targets, noise]).astype(np.float32))


def test_as_many_components_as_genes_give_the_expression_back(table):
    components = Components.predictable(table, 15, penalty=10.0)
    found = components.genes(components.scores(table.targets))
    np.testing.assert_allclose(found, table.targets, atol=1e-3)


def test_fewer_scores_use_the_first_components_alone(table):
    components = Components.predictable(table, 6, penalty=10.0)
    scores = components.scores(table.targets)
    expected = scores[:, :2] @ components.loadings[:2] + components.mean
    np.testing.assert_allclose(components.genes(scores[:, :2]), expected, atol=1e-6)
    columns = np.array([3, 0])
    np.testing.assert_allclose(components.genes(scores[:, :2], columns), expected[:, columns], atol=1e-6)


def test_loadings_are_the_regression_of_expression_on_the_scores(table):
    components = Components.predictable(table, 4, penalty=10.0)
    scores = components.scores(table.targets).astype(np.float64)
    expected, *_ = np.linalg.lstsq(scores, table.targets - components.mean, rcond=None)
    np.testing.assert_allclose(components.loadings, expected, atol=2e-3)


def test_genes_that_nothing_predicts_claim_no_component(table):
    noisy = with_noise_genes(table)
    plain = principal_components(noisy.targets, 1)[:, 0]
    ours = Components.predictable(noisy, 1, penalty=10.0).directions[:, 0]
    share = lambda d: (d[15:] ** 2).sum() / (d**2).sum()  # noqa: E731
    assert share(plain) > 0.9
    assert share(ours) < 0.1


def test_a_single_section_weighs_all_genes_the_same(make_table):
    table = make_table(sections=1)
    found = Components.predictable(table, 3, penalty=10.0).directions
    np.testing.assert_allclose(np.abs(found), np.abs(principal_components(table.targets, 3)), atol=1e-5)


def test_the_answer_of_a_section_does_not_decide_its_own_weight(make_table):
    """Genes count by what is predicted of sections left out: pure noise gets next to nothing."""
    table = make_table(sections=3, dim=12, genes=15)
    rng = np.random.default_rng(1)
    noise = dataclasses.replace(table, targets=rng.standard_normal(table.targets.shape).astype(np.float32))
    from chrep_model.methods.expression_components import _predictability

    assert _predictability(noise, 10.0).mean() < 0.1 < _predictability(table, 10.0).mean()


def test_components_are_those_of_the_covariance():
    rng = np.random.default_rng(0)
    targets = (rng.standard_normal((200, 12)) @ rng.standard_normal((12, 12)) + 5).astype(np.float32)
    found = principal_components(targets, 4)
    assert found.shape == (12, 4)
    np.testing.assert_allclose(found.T @ found, np.eye(4), atol=1e-5)
    values, vectors = np.linalg.eigh(np.cov(targets.T))
    for i in range(4):
        assert abs(found[:, i] @ vectors[:, -1 - i]) == pytest.approx(1, abs=1e-3)
    variance = ((targets - targets.mean(0)) @ found).var(0)
    np.testing.assert_allclose(variance, values[::-1][:4], rtol=0.02)
    assert principal_components(targets, 50).shape == (12, 12)  # no more than there are
