"""Statistics of arrays: by hand, and against numpy's."""

import numpy as np

from chrep_model.statistics import divisors, gene_correlations, mean_of_known, unit_rows


def test_correlations_by_hand():
    truth = np.array([[0.0, 1, 2], [1, 1, 1], [2, 1, 0]])
    np.testing.assert_allclose(gene_correlations(truth, truth[:, [0, 0, 0]]), [1, np.nan, -1])
    np.testing.assert_array_equal(gene_correlations(truth, np.ones((3, 3))), [0, np.nan, 0])


def test_correlations_are_numpys():
    truth, predicted = np.random.default_rng(0).standard_normal((2, 40, 7)).astype(np.float32)
    predicted += 0.7 * truth
    expected = [np.corrcoef(truth[:, g], predicted[:, g])[0, 1] for g in range(7)]
    np.testing.assert_allclose(gene_correlations(truth, predicted), expected, atol=1e-6)
    np.testing.assert_allclose(gene_correlations(truth, 3 - 2 * predicted), -np.array(expected), atol=1e-6)


def test_correlations_survive_a_large_offset_in_float32():
    truth, noise = np.random.default_rng(0).standard_normal((2, 200, 3)).astype(np.float32)
    truth += 1000
    predicted = truth + noise
    expected = [np.corrcoef(truth[:, g].astype(float), predicted[:, g].astype(float))[0, 1] for g in range(3)]
    np.testing.assert_allclose(gene_correlations(truth, predicted), expected, atol=1e-6)


def test_a_mean_leaves_out_what_is_not_known():
    assert mean_of_known(np.array([1, np.nan, 4], np.float32)) == 2.5
    assert np.isnan(mean_of_known(np.array([np.nan])))


def test_a_column_that_does_not_vary_is_divided_by_one():
    found = divisors(np.array([2.0, 0.0, 1e-7]))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [2, 1, 1])


def test_unit_rows():
    x = np.random.default_rng(2).standard_normal((9, 4)).astype(np.float32) * 1e3
    np.testing.assert_allclose(np.linalg.norm(unit_rows(x), axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(unit_rows(x) * np.linalg.norm(x, axis=1, keepdims=True), x, rtol=1e-4)
