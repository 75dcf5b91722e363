"""Trust: intervals that hold what they promise on new sections, likeness to the training tissue, accuracy."""

import numpy as np
import pytest

from chrep_model.calibration.trust import FAR, LEVELS, Trust, conformal_quantiles
from chrep_model.errors import SettingsError

GENES = 6
ALL = slice(None)
A, B, C = 0.3, 0.5, 4.0  # of the true error variance: constant, spread^2, distance^2


def draw(spots, seed, genes=GENES):
    """Spots of sections of the given sizes whose errors are normal with a known variance."""
    rng = np.random.default_rng(seed)
    n = sum(spots)
    spread = rng.uniform(0.2, 2, (n, genes)).astype(np.float32)
    distance = rng.uniform(0.05, 0.6, n).astype(np.float32)
    sd = np.sqrt(A + B * spread**2 + C * distance[:, None] ** 2)
    predicted = rng.standard_normal((n, genes)).astype(np.float32)
    targets = (predicted + sd * rng.standard_normal((n, genes))).astype(np.float32)
    section = np.repeat(np.arange(len(spots)), spots)
    return predicted, targets, section, spread, distance


@pytest.fixture(scope="module")
def trust():
    return Trust.fit(*draw([300, 400, 500], seed=0))


# Quantiles


@pytest.mark.parametrize(
    ("n", "expected"), [(9, [5, 8, 9, 9]), (19, [10, 16, 18, 19]), (199, [100, 160, 180, 190])]
)
def test_quantiles_by_hand(n, expected):
    """The ceil((n + 1) * level)-th smallest, or the largest where there is none."""
    scores = np.random.default_rng(n).permutation(np.arange(1.0, n + 1))
    np.testing.assert_array_equal(conformal_quantiles(scores, np.full(n, 1 / n)), expected)


def test_quantiles_with_weights_by_hand():
    """One spot that is a whole section, three that share one: 1 reaches 3/6, 2 4/6, 3 5/6, 4 6/6.

    Wanted are 5/4 of 0.5, 0.8, ...: 0.625, 1, ...
    """
    scores, weights = np.array([4.0, 2.0, 1.0, 3.0]), np.array([1, 1, 3, 1]) / 6
    np.testing.assert_array_equal(conformal_quantiles(scores, weights), [2, 4, 4, 4])


def test_a_new_score_stays_below_as_often_as_promised():
    """The finite-sample correction: without it, seven of nine scores below 80 % would be too few."""
    rng = np.random.default_rng(0)
    below = [rng.random() <= conformal_quantiles(rng.random(9), np.full(9, 1 / 9))[1] for _ in range(4000)]
    assert np.mean(below) == pytest.approx(0.8, abs=0.02)


# Intervals


def test_the_error_s_variance_is_found(trust):
    np.testing.assert_allclose(trust.variance.mean(1), [A, B, C], rtol=0.25)
    one = np.abs(np.random.default_rng(0).standard_normal(100000))
    np.testing.assert_allclose(trust.quantiles.mean(1), np.quantile(one, LEVELS), rtol=0.05)


@pytest.mark.parametrize("level", LEVELS)
def test_coverage_on_a_new_section(trust, level):
    predicted, targets, _, spread, distance = draw([4000], seed=1)
    held = np.abs(targets - predicted) <= trust.half_width(spread, distance, ALL, level)
    assert held.mean() == pytest.approx(level, abs=0.02)
    np.testing.assert_allclose(held.mean(0), level, atol=0.05)
    for doubtful in (distance > 0.45, distance < 0.2):  # and not merely on average over all distances
        assert held[doubtful].mean() == pytest.approx(level, abs=0.04)


def test_skewed_genes_have_quantiles_of_their_own():
    """Nine in ten errors of the first gene are tiny: half of its values lie much closer than elsewhere."""
    predicted, targets, section, spread, distance = draw([300, 300], seed=2)
    rare = np.random.default_rng(3).random(len(section)) < 0.9
    targets[rare, 0] = predicted[rare, 0] + 0.05 * (targets - predicted)[rare, 0]
    found = Trust.fit(predicted, targets, section, spread, distance)
    ratio = found.quantiles[0] / found.quantiles[3]
    assert ratio[0] < 0.5 * ratio[1:].min()


def test_sections_count_the_same_whatever_their_size():
    """A section of 30 spots and one of 600, whose errors are a tenth: both halves of the errors."""
    rng = np.random.default_rng(0)
    section = np.repeat([0, 1], [30, 600])
    targets = np.where(section == 0, 10.0, 1.0)[:, None] * rng.choice([-1, 1], (630, GENES))
    nothing = np.zeros((630, GENES), np.float32)
    found = Trust.fit(nothing, targets.astype(np.float32), section, nothing, np.ones(630, np.float32))
    half = found.half_width(nothing[:1], np.ones(1, np.float32), ALL, 0.8)
    np.testing.assert_allclose(half, 10, rtol=1e-3)


def test_more_doubt_is_never_narrower():
    """Even where the training spots far from the gallery happened to be predicted better."""
    predicted, targets, section, spread, distance = draw([200, 200], seed=4)
    targets = predicted + (targets - predicted) * (0.7 - distance)[:, None]
    found = Trust.fit(predicted, targets, section, spread, distance)
    steps = np.linspace(0, 3, 20, dtype=np.float32)
    for level in LEVELS:
        by_distance = found.half_width(np.ones((20, GENES), np.float32), steps, ALL, level)
        by_spread = found.half_width(np.tile(steps[:, None], GENES), np.full(20, 0.3, np.float32), ALL, level)
        assert (np.diff(by_distance, axis=0) > 0).all()
        assert (np.diff(by_spread, axis=0) >= 0).all()
    assert (np.diff(found.quantiles, axis=0) >= 0).all()


def test_genes_by_column(trust):
    _, _, _, spread, distance = draw([20], seed=5)
    whole = trust.half_width(spread, distance, ALL)
    some = np.array([4, 1])
    np.testing.assert_array_equal(trust.half_width(spread[:, some], distance, some), whole[:, some])
    assert whole.dtype == np.float32


def test_a_level_that_was_not_learned(trust):
    with pytest.raises(SettingsError, match="99%") as caught:
        trust.half_width(np.ones((1, GENES), np.float32), np.ones(1, np.float32), ALL, 0.99)
    assert "0.9" in caught.value.remedy


def test_predictions_without_error_and_without_neighbours():
    section = np.repeat([0, 1], 20)
    targets = np.random.default_rng(0).standard_normal((40, 2)).astype(np.float32)
    nothing = np.zeros((40, 2), np.float32)
    found = Trust.fit(targets, targets, section, nothing, np.zeros(40, np.float32))
    half = found.half_width(nothing + 1, np.ones(40, np.float32), ALL)
    np.testing.assert_array_equal(half, 0)


# Likeness


def test_held_out_spots_are_spread_evenly_over_the_shares(trust):
    distance = draw([300, 400, 500], seed=0)[-1]
    share = trust.unlike(distance)
    np.testing.assert_allclose(np.sort(share), np.linspace(0, 1, len(share)), atol=0.01)
    assert trust.unlike_share(distance) == pytest.approx(1 - FAR, abs=0.005)


def test_likeness_is_a_share_and_follows_the_distance(trust):
    share = trust.unlike(np.linspace(-1, 3, 200, dtype=np.float32))
    assert share.min() == 0
    assert share.max() == 1
    assert (np.diff(share) >= 0).all()
    assert trust.unlike_share(np.array([0.3, 2.0, 2.0, 2.0], np.float32)) == 0.75
    assert trust.unlike_share(np.empty(0, np.float32)) == 0


# Accuracy


def test_accuracy_is_the_mean_over_held_out_sections():
    predicted, targets, section, spread, distance = draw([50, 70], seed=6)
    targets[section == 1, 2] = 0.5  # constant there: only the first section tells
    found = Trust.fit(predicted, targets, section, spread, distance)

    def r(s, gene):
        return np.corrcoef(predicted[section == s, gene], targets[section == s, gene])[0, 1]

    np.testing.assert_allclose(found.accuracy[0], (r(0, 0) + r(1, 0)) / 2, atol=1e-6)
    np.testing.assert_allclose(found.accuracy[2], r(0, 2), atol=1e-6)


def test_genes_without_signal_are_found():
    rng = np.random.default_rng(0)
    section = np.repeat([0, 1, 2], 150)
    predicted = rng.standard_normal((450, 400)).astype(np.float32)
    signal = np.where(np.arange(400) < 200, 0.5, 0.0)
    targets = (signal * predicted + rng.standard_normal((450, 400))).astype(np.float32)
    found = Trust.fit(predicted, targets, section, np.zeros_like(predicted), np.ones(450, np.float32))
    assert found.predictable[:200].mean() > 0.98
    assert found.predictable[200:].mean() < 0.06


def test_a_gene_without_correlation_is_not_predictable():
    _, targets, section, spread, distance = draw([50, 50], seed=7)
    targets[:, 0] = 0
    found = Trust.fit(np.zeros_like(targets), targets, section, spread, distance)
    assert np.isnan(found.accuracy[0])
    np.testing.assert_array_equal(found.accuracy[1:], 0)
    assert not found.predictable.any()


# Storage


def test_arrays_and_back(trust):
    again = Trust.from_arrays({name: values.copy() for name, values in trust.arrays().items()})
    _, _, _, spread, distance = draw([20], seed=8)
    np.testing.assert_array_equal(
        again.half_width(spread, distance, ALL, 0.5), trust.half_width(spread, distance, ALL, 0.5)
    )
    np.testing.assert_array_equal(again.unlike(distance), trust.unlike(distance))
    np.testing.assert_array_equal(again.accuracy, trust.accuracy)
    assert {values.dtype for values in trust.arrays().values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("name", ["variance", "quantiles", "distances", "correlations"])
def test_arrays_that_do_not_fit(trust, name):
    with pytest.raises(ValueError, match="shapes"):
        Trust.from_arrays(trust.arrays() | {name: trust.arrays()[name][..., :-1]})
    with pytest.raises(TypeError):
        Trust.from_arrays({key: values for key, values in trust.arrays().items() if key != name})


# Genes that a section did not measure


def test_knowing_everything_is_the_plain_fit(trust):
    known = np.ones((3, GENES), bool)
    same = Trust.fit(*draw([300, 400, 500], seed=0), known)
    for name, values in trust.arrays().items():
        np.testing.assert_allclose(same.arrays()[name], values, rtol=1e-4)
    np.testing.assert_array_equal(same.counted, np.full(GENES, 3))
    np.testing.assert_array_equal(same.predictable, trust.predictable)


def test_what_was_not_measured_has_no_say():
    predicted, targets, section, spread, distance = draw([300, 400, 500], seed=0)
    known = np.ones((3, GENES), bool)
    known[0, 2] = False
    known[:, 5] = False
    odd = np.where(known[section], targets, 50).astype(np.float32)
    one, other = (Trust.fit(predicted, t, section, spread, distance, known) for t in (targets, odd))
    for name, values in one.arrays().items():
        np.testing.assert_array_equal(other.arrays()[name], values)
    rows = section > 0
    alone = Trust.fit(predicted[rows], targets[rows], section[rows], spread[rows], distance[rows])
    np.testing.assert_allclose(one.quantiles[:, 2], alone.quantiles[:, 2], rtol=0.1)
    np.testing.assert_array_equal(one.correlations[1:, 2], alone.correlations[:, 2])
    assert np.isnan(one.correlations[0, 2]) and np.isnan(one.accuracy[5])
    np.testing.assert_array_equal(one.counted, [3, 3, 2, 3, 3, 0])
    half = one.half_width(spread, distance, ALL)
    assert half[:, 5].mean() == pytest.approx(half[:, :5].mean(), rel=0.3)  # as of all genes together


def test_an_accuracy_of_fewer_sections_is_less_certain():
    """The same correlations on one section and on three: the mean of one has a larger standard error."""
    rng = np.random.default_rng(0)
    predicted, _, section, spread, distance = draw([300, 400, 500], seed=1, genes=40)
    targets = (0.06 * predicted + rng.standard_normal(predicted.shape)).astype(np.float32)
    known = np.ones((3, 40), bool)
    known[1:, :20] = False
    found = Trust.fit(predicted, targets, section, spread, distance, known)
    error = found._standard_error()
    np.testing.assert_allclose(error[:20], error[20:] * np.sqrt(3), rtol=1e-6)
