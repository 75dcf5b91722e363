"""The mean and the nearest neighbours."""

import numpy as np
import pytest

from chrep_model.calibration.trust import LEVELS
from chrep_model.methods import knn
from chrep_model.methods.base import held_out_trust
from chrep_model.methods.knn import Knn, choose_neighbourhood
from chrep_model.methods.mean import Mean
from chrep_model.statistics import unit_rows


def test_the_mean_says_the_same_everywhere(table, unseen):
    found = Mean().fit(table, seed=0).predict(unseen.features)
    np.testing.assert_allclose(found, np.tile(table.targets.mean(0), (len(unseen), 1)), atol=1e-6)


def test_the_mean_has_the_error_of_its_closed_form(table, unseen):
    """Mean squared error = variance of the truth + squared distance of the means, gene by gene."""
    found = Mean().fit(table, seed=0).predict(unseen.features).astype(np.float64)
    truth = unseen.targets.astype(np.float64)
    closed = truth.var(0) + (truth.mean(0) - table.targets.mean(0, dtype=np.float64)) ** 2
    assert np.mean((found - truth) ** 2) == pytest.approx(closed.mean(), abs=1e-6)


def test_the_mean_says_how_far_off_it_is(table, make_table):
    """Its errors are learned from the means of the other sections, and hold on new ones."""
    fitted = Mean().fit(table, seed=0)
    new = make_table(sections=1, spots=400, seed=8)
    response = fitted.respond(new.features)
    error = np.abs(fitted.read(response, "raw") - new.targets)
    for level in LEVELS:
        half = fitted.interval(response, "raw", level=level)
        assert (error <= half).mean() == pytest.approx(level, abs=0.04)
    some = np.array([3, 1])
    np.testing.assert_array_equal(
        fitted.interval(response, "raw", some), fitted.interval(response, "raw")[:, some]
    )
    np.testing.assert_allclose(fitted.trust.accuracy, 0)
    assert not fitted.trust.predictable.any()


def test_no_interval_where_nothing_was_learned(table, make_table):
    """Not for a variant that nobody checked, not for a method that does not say, not from one section."""
    mean, knn = Mean().fit(table, seed=0), Knn().fit(table, seed=0)
    assert mean.interval(mean.respond(table.features), "calibrated") is None
    assert knn.interval(knn.respond(table.features), "raw") is None
    assert Mean().fit(make_table(sections=1), seed=0).trust is None


def test_what_is_held_out_is_not_seen(table):
    seen = []

    def fit(part):
        seen.append(set(part.section))
        return Mean._mean(part)

    trust = held_out_trust(table, fit)
    assert seen == [{1, 2}, {0, 2}, {0, 1}]
    z = unit_rows(table.features)
    cosine = np.where(table.section[:, None] == table.section[None], -1, z @ z.T)
    np.testing.assert_allclose(trust.distances[[0, -1]], np.sort(1 - cosine.max(1))[[0, -1]], atol=1e-6)


def test_neighbours_by_hand(table, unseen):
    fitted = Knn().fit(table, seed=0)
    z, q = (unit_rows(t.features).astype(np.float64) for t in (table, unseen))
    for row in (0, 11):
        cosine = z @ q[row]
        nearest = np.argsort(-cosine)[: fitted.k]
        w = np.exp(cosine[nearest] / fitted.temperature)
        expected = (w / w.sum()) @ table.targets[nearest]
        np.testing.assert_allclose(fitted.predict(unseen.features[row : row + 1])[0], expected, atol=1e-4)


def test_the_neighbourhood_is_the_best_on_sections_left_out(table, monkeypatch):
    monkeypatch.setattr(knn, "NEIGHBOURS", (2, 10, 60))
    monkeypatch.setattr(knn, "TEMPERATURES", (0.05, 1.0))
    z = unit_rows(table.features)
    errors = {}
    for k in (2, 10, 60):
        for temperature in (0.05, 1.0):
            total = 0.0
            for s in range(3):
                train, test = table.section != s, table.section == s
                cosine = z[test].astype(np.float64) @ z[train].T
                order = np.argsort(-cosine, axis=1)[:, :k]
                w = np.exp(np.take_along_axis(cosine, order, 1) / temperature)
                answer = np.einsum("nk,nkg->ng", w / w.sum(1, keepdims=True), table.targets[train][order])
                total += np.mean((answer - table.targets[test]) ** 2)
            errors[k, temperature] = total
    assert choose_neighbourhood(table, z) == min(errors, key=errors.__getitem__)


def test_one_section_has_nothing_to_choose_on(make_table):
    table = make_table(sections=1)
    k, temperature = choose_neighbourhood(table, unit_rows(table.features))
    assert k in knn.NEIGHBOURS
    assert temperature in knn.TEMPERATURES
