"""The simple learners: what they answer, what they are chosen by, and that they survive being stored."""

import dataclasses

import numpy as np

from chrep_model.methods.chrep.simple_learners import RANKS, SimpleLearners, choose_rank
from chrep_model.methods.ridge import RidgeSolver


def fit(table, seed=0):
    return SimpleLearners.fit(table, penalty=10.0, rank=5, trees=8, seed=seed)


def test_the_linear_learner_is_a_ridge_on_the_first_scores(table, unseen):
    simple = fit(table)
    w, b = RidgeSolver(table.features, simple.components.scores(table.targets)[:, :5]).weights(10.0)
    np.testing.assert_allclose(simple.linear(unseen.features), unseen.features @ w + b, atol=1e-4)
    assert simple.genes(simple.linear(unseen.features)).shape == unseen.targets.shape


def test_both_predict_a_section_that_they_have_not_seen(table, unseen):
    simple = fit(table)
    for scores in (simple.linear(unseen.features), simple.forest.predict(unseen.features)):
        found = simple.genes(scores)
        r = [np.corrcoef(found[:, g], unseen.targets[:, g])[0, 1] for g in range(found.shape[1])]
        assert np.mean(r) > 0.2


def test_the_forest_heeds_deep_spots_more(table):
    """Spots of which next to nothing was counted hold noise here, and must not matter."""
    rng = np.random.default_rng(0)
    shallow = rng.random(len(table)) < 0.5
    targets = table.targets.copy()
    targets[shallow] += 5 * rng.standard_normal(targets[shallow].shape).astype(np.float32)
    noisy = dataclasses.replace(table, targets=targets)
    depth = np.where(shallow, 1.0, 1e4).astype(np.float32)
    clean = ~shallow
    errors = {
        name: np.mean((s.genes(s.forest.predict(t.features))[clean] - table.targets[clean]) ** 2)
        for name, t in {"told": dataclasses.replace(noisy, depth=depth), "untold": noisy}.items()
        if (s := fit(t))
    }
    assert errors["told"] < 0.9 * errors["untold"]


def test_noise_asks_for_fewer_components(make_table):
    table = make_table(sections=3, spots=60, dim=20, genes=60)
    noise = np.random.default_rng(3).standard_normal(table.targets.shape).astype(np.float32)
    noisy = dataclasses.replace(table, targets=table.targets + 4 * noise)
    assert choose_rank(noisy, 100.0) <= choose_rank(table, 100.0)
    assert choose_rank(table, 100.0) in RANKS
    assert choose_rank(make_table(sections=1), 1.0) in RANKS


def test_arrays_bring_it_back(table, unseen):
    simple = fit(table)
    again = SimpleLearners.from_arrays(simple.arrays())
    np.testing.assert_array_equal(again.linear(unseen.features), simple.linear(unseen.features))
    found = again.genes(again.forest.predict(unseen.features))
    np.testing.assert_array_equal(found, simple.genes(simple.forest.predict(unseen.features)))
