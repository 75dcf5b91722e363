"""The figures against numpy and by hand, and what happens to constants."""

import numpy as np
import pytest

from chrep_model.evaluation.metrics import gene_correlations, highly_expressed, scores

RNG = np.random.default_rng(0)


def figures(truth, predicted, sd=None):
    sd = np.ones(truth.shape[1], np.float32) if sd is None else sd
    return {(space, metric): value for space, metric, value in scores(truth, predicted, sd)}


def test_correlations_are_numpys():
    truth, predicted = RNG.standard_normal((2, 40, 7)).astype(np.float32)
    predicted += 0.7 * truth
    expected = [np.corrcoef(truth[:, g], predicted[:, g])[0, 1] for g in range(7)]
    np.testing.assert_allclose(gene_correlations(truth, predicted), expected, atol=1e-6)
    np.testing.assert_allclose(gene_correlations(truth, 3 - 2 * predicted), -np.array(expected), atol=1e-6)


def test_correlations_survive_a_large_offset_in_float32():
    truth = RNG.standard_normal((200, 3)).astype(np.float32) + 1000
    predicted = truth + RNG.standard_normal((200, 3)).astype(np.float32)
    expected = [np.corrcoef(truth[:, g].astype(float), predicted[:, g].astype(float))[0, 1] for g in range(3)]
    np.testing.assert_allclose(gene_correlations(truth, predicted), expected, atol=1e-6)


def test_constant_truth_is_left_out_and_constant_prediction_counts_as_zero():
    truth, predicted = RNG.standard_normal((2, 30, 4)).astype(np.float32)
    truth[:, 1] = 0.3
    predicted[:, 2] = -7.1
    truth[:, 3] = predicted[:, 3] = 0.0
    r = gene_correlations(truth, predicted)
    assert np.isnan(r[[1, 3]]).all()
    assert r[2] == 0
    found = figures(truth, predicted)
    assert found["log10-spot", "pcc_acg"] == pytest.approx(r[0] / 2)  # over genes 0 and 2
    assert found["log10-spot", "genes_without_truth"] == 2
    assert found["log10-spot", "genes_without_prediction"] == 1


def test_saying_nothing_is_not_rewarded():
    """Constant for every gene but one: the mean over what was said would be 1."""
    truth = RNG.standard_normal((50, 10)).astype(np.float32)
    predicted = np.zeros_like(truth)
    predicted[:, 4] = truth[:, 4]
    assert figures(truth, predicted)["log10-spot", "pcc_acg"] == pytest.approx(0.1, abs=1e-6)


def test_without_any_varying_gene_there_is_no_correlation():
    found = figures(np.ones((9, 3), np.float32), RNG.standard_normal((9, 3)).astype(np.float32))
    assert np.isnan(found["log10-spot", "pcc_acg"])
    assert np.isnan(found["log10-spot", "pcc_heg50"])
    assert np.isfinite(found["log10-spot", "mse"])


def test_errors_by_hand_in_both_spaces():
    truth = np.array([[0.0, 1.0], [2.0, 3.0]], np.float32)
    predicted = np.array([[1.0, 1.0], [2.0, 1.0]], np.float32)  # errors 1, 0, 0, -2
    found = figures(truth, predicted, np.array([0.5, 2.0], np.float32))  # in z: 2, 0, 0, -1
    assert found["log10-spot", "mse"] == pytest.approx(5 / 4)
    assert found["log10-spot", "mae"] == pytest.approx(3 / 4)
    assert found["z-train", "mse"] == pytest.approx(5 / 4)
    assert found["z-train", "mae"] == pytest.approx(3 / 4)


def test_heg50_are_the_50_with_the_highest_mean_truth():
    truth = RNG.standard_normal((60, 80)).astype(np.float32) + np.arange(80)[RNG.permutation(80)] / 10
    predicted = (truth + RNG.standard_normal(truth.shape) * np.linspace(0.1, 5, 80)).astype(np.float32)
    top = sorted(range(80), key=lambda g: -truth[:, g].mean())[:50]
    np.testing.assert_array_equal(np.sort(highly_expressed(truth)), np.sort(top))
    expected = np.mean([np.corrcoef(truth[:, g], predicted[:, g])[0, 1] for g in top])
    assert figures(truth, predicted)["log10-spot", "pcc_heg50"] == pytest.approx(expected, abs=1e-6)
    every = figures(truth, predicted)["log10-spot", "pcc_acg"]
    assert every != pytest.approx(expected, abs=1e-3)


def test_equal_means_go_to_the_earlier_gene_and_few_genes_are_all():
    np.testing.assert_array_equal(highly_expressed(np.tile([1.0, 2, 1, 2], (5, 1)), 3), [1, 3, 0])
    assert len(highly_expressed(np.ones((5, 4)))) == 4


def test_the_mean_predictor_has_the_error_of_its_closed_form():
    truth = RNG.gamma(2, 0.5, (70, 12)).astype(np.float32)
    train_mean = RNG.gamma(2, 0.5, 12).astype(np.float32)
    found = figures(truth, np.tile(train_mean, (70, 1)))
    exact = truth.astype(np.float64)
    closed = exact.var(0) + (exact.mean(0) - train_mean) ** 2
    assert found["log10-spot", "mse"] == pytest.approx(closed.mean(), abs=1e-6)
    assert found["log10-spot", "pcc_acg"] == 0
    assert found["log10-spot", "genes_without_prediction"] == 12
