"""The figures against numpy and by hand, and what happens to constants."""

import numpy as np
import pytest

from chrep_model.cohorts.cohort import open_cohort
from chrep_model.cohorts.gene_panel import GenePanel
from chrep_model.evaluation.metrics import (
    highly_expressed,
    interval_scores,
    mean_predictor_mse,
    relative_variance_distance,
    scores,
)
from chrep_model.statistics import gene_correlations

RNG = np.random.default_rng(0)


def figures(truth, predicted, sd=None):
    sd = np.ones(truth.shape[1], np.float32) if sd is None else sd
    return {(space, metric): value for space, metric, value in scores(truth, predicted, sd)}


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


def test_top50_are_the_50_with_the_highest_correlation():
    truth = RNG.standard_normal((60, 80)).astype(np.float32)
    predicted = (truth + RNG.standard_normal(truth.shape) * np.linspace(0.1, 5, 80)).astype(np.float32)
    truth[:, 0] = 1.0  # no correlation: neither among the best nor counted
    r = sorted((np.corrcoef(truth[:, g], predicted[:, g])[0, 1] for g in range(1, 80)), reverse=True)
    found = figures(truth, predicted)
    assert found["log10-spot", "pcc_top50"] == pytest.approx(np.mean(r[:50]), abs=1e-6)
    few = figures(truth[:, :5], predicted[:, :5])
    assert few["log10-spot", "pcc_top50"] == pytest.approx(few["log10-spot", "pcc_acg"])


def test_relative_variance_distance_by_hand():
    truth = np.array([[0.0, 0, 0, 5], [2, 2, 2, 5]])  # variance 1, 1, 1, 0
    predicted = np.array([[0.0, 7, 0, 0], [2, 7, 4, 1]])  # variance 1, 0, 4
    np.testing.assert_array_equal(relative_variance_distance(truth, predicted), [0, 1, 9, np.nan])
    found = figures(truth.astype(np.float32), predicted.astype(np.float32))
    assert found["log10-spot", "rvd"] == pytest.approx(10 / 3)


def test_what_needs_no_space_is_the_same_in_both():
    truth, predicted = RNG.standard_normal((2, 40, 6)).astype(np.float32)
    mean, sd = RNG.random(6).astype(np.float32), 0.5 + RNG.random(6).astype(np.float32)
    in_z = [((values - mean) / sd).astype(np.float32) for values in (truth, predicted)]
    for function in (gene_correlations, relative_variance_distance):
        np.testing.assert_allclose(function(truth, predicted), function(*in_z), atol=1e-4)


def test_coverage_and_width_by_hand():
    truth = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
    predicted = np.array([[1.5, 2.0], [3.0, 9.0]], np.float32)
    half = np.array([[0.4, 0.1], [0.5, 5.0]], np.float32)  # outside, inside, inside, on the edge
    coverage, width = interval_scores(truth, predicted, half)
    assert coverage == 0.75
    assert width == pytest.approx(2 * (0.4 + 0.1 + 0.5 + 5) / 4)


def test_the_mean_predictor_has_the_error_of_its_closed_form():
    truth = RNG.gamma(2, 0.5, (70, 12)).astype(np.float32)
    train_mean, sd = RNG.gamma(2, 0.5, (2, 12)).astype(np.float32)
    found = figures(truth, np.tile(train_mean, (70, 1)), sd)
    closed = mean_predictor_mse(truth, train_mean, sd)
    assert closed["log10-spot"] == pytest.approx(np.mean((truth - train_mean) ** 2.0), abs=1e-6)
    for space, value in closed.items():
        assert found[space, "mse"] == pytest.approx(value, rel=1e-6)
    assert found["log10-spot", "pcc_acg"] == 0
    assert found["log10-spot", "genes_without_prediction"] == 12


@pytest.mark.real
def test_the_mean_predictor_on_real_sections(shared_data):
    """Counts to figure: panel, standardisation and error, against moments of the counts' own values."""
    cohort = open_cohort(shared_data / "her2st")
    for test in cohort:
        panel = GenePanel.fit([s for s in cohort if s is not test], 785)
        truth = panel.expression(test)
        found = figures(truth, np.tile(panel.mean, (len(test), 1)), panel.sd)
        for space, value in mean_predictor_mse(truth, panel.mean, panel.sd).items():
            assert found[space, "mse"] == pytest.approx(value, abs=1e-6)
