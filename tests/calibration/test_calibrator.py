"""The combination: known weights are recovered, evidence decides, section offsets do not."""

import numpy as np
import pytest

from chrep_model.calibration.calibrator import (
    Combination,
    cross_combined,
    cross_offset,
    fit_combination,
)


def answers(seed=0, n=240, genes=4, learners=3, sections=4, offset=0.0):
    """Answers of learners (each (n, genes)), and the sections of the spots."""
    rng = np.random.default_rng(seed)
    section = np.repeat(np.arange(sections), n // sections)
    shift = offset * rng.standard_normal((learners, sections, genes))
    parts = rng.standard_normal((learners, n, genes)) + shift[:, section]
    return [part.astype(np.float32) for part in parts], section


WEIGHTS = np.array([[0.7, 0.1, 0.5, 0.0], [0.2, 0.6, 0.0, 0.3], [0.1, 0.3, 0.4, 0.6]])


def mix(parts, weights=WEIGHTS):
    return sum(w * part for w, part in zip(weights, parts, strict=True)).astype(np.float32)


def test_it_combines_gene_by_gene():
    combination = Combination(WEIGHTS.astype(np.float32))
    parts, _ = answers()
    np.testing.assert_allclose(combination(parts, slice(None)), mix(parts), atol=1e-5)
    genes = np.array([3, 0])
    np.testing.assert_allclose(
        combination([p[:, genes] for p in parts], genes), mix(parts)[:, genes], atol=1e-5
    )


def test_an_offset_is_added_gene_by_gene():
    offset = np.array([1.0, -2.0, 0.0, 0.5], np.float32)
    parts, _ = answers()
    plain, moved = Combination(WEIGHTS.astype(np.float32)), Combination(WEIGHTS.astype(np.float32), offset)
    genes = np.array([3, 0])
    columns = [p[:, genes] for p in parts]
    np.testing.assert_allclose(moved(columns, genes), plain(columns, genes) + offset[genes], atol=1e-6)


def test_a_section_is_moved_by_what_the_others_are_off_by():
    predicted, section = np.zeros((6, 1), np.float32), np.array([0, 0, 1, 1, 2, 2])
    targets = np.array([[1.0], [3], [4], [6], [9], [9]], np.float32)  # means 2, 5, 9
    expected = [7, 7, 5.5, 5.5, 3.5, 3.5]
    np.testing.assert_allclose(cross_offset(predicted, targets, section)[:, 0], expected)
    assert not predicted.any()


def test_known_weights_are_recovered():
    parts, section = answers()
    found = fit_combination(parts, mix(parts), section, shrink=0.0)
    np.testing.assert_allclose(found.weights, WEIGHTS, atol=1e-4)


def test_noise_and_shrinkage_move_them_little_where_there_is_evidence():
    parts, section = answers(n=4000)
    noisy = mix(parts) + np.random.default_rng(9).standard_normal((4000, 4)).astype(np.float32)
    found = fit_combination(parts, noisy, section, shrink=20.0)
    np.testing.assert_allclose(found.weights, WEIGHTS, atol=0.06)


def test_without_shrinkage_it_is_least_squares_of_each_gene():
    parts, section = answers()
    targets = np.random.default_rng(5).standard_normal((240, 4)).astype(np.float32)

    def centred(x):
        return np.concatenate([x[section == s] - x[section == s].mean(0) for s in range(4)])

    found = fit_combination(parts, targets, section, shrink=0.0)
    for gene in range(4):
        X = np.stack([centred(p)[:, gene] for p in parts], axis=1)
        expected = np.linalg.lstsq(X, centred(targets)[:, gene], rcond=None)[0]
        np.testing.assert_allclose(found.weights[:, gene], expected, atol=1e-4)


def test_little_evidence_leaves_the_common_weights():
    common = np.array([0.5, 0.3, 0.2])
    parts, section = answers(genes=60)
    targets = mix(parts, np.repeat(common[:, None], 60, axis=1))
    targets += np.random.default_rng(3).standard_normal(targets.shape).astype(np.float32)
    spread = [
        fit_combination(parts, targets, section, shrink=s).weights.std(1).max() for s in (0, 300, 3e4, 1e9)
    ]
    assert spread == sorted(spread, reverse=True)
    assert spread[-1] < 1e-4
    shrunk = fit_combination(parts, targets, section, shrink=1e9).weights
    np.testing.assert_allclose(shrunk[:, 0], common, atol=0.04)  # what all genes say together
    own, all_shrunk = (fit_combination(parts, targets, section, shrink=s).weights for s in (0, 1000))
    assert np.abs(all_shrunk - common[:, None]).mean() < np.abs(own - common[:, None]).mean()


def test_shrinkage_counts_in_spots():
    """A prior worth as many spots as there are weighs as much as they do."""
    parts, section = answers(n=2000, genes=2, learners=1, sections=1)
    weights = np.array([[1.0, 0.0]])
    found = fit_combination(parts, mix(parts, weights), section, shrink=2000.0).weights
    np.testing.assert_allclose(found, [[0.75, 0.25]], atol=0.03)  # half-way to the common 0.5


def test_offsets_of_sections_teach_nothing():
    parts, section = answers()
    targets = mix(parts)
    expected = fit_combination(parts, targets, section, shrink=100.0).weights
    shift = 5 * np.random.default_rng(2).standard_normal((4, 4, 4)).astype(np.float32)
    moved = [part + shift[i][section] for i, part in enumerate(parts)]
    found = fit_combination(moved, targets + shift[3][section], section, shrink=100.0).weights
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_common_weights_are_not_negative():
    """Two learners who say nearly the same do not end up as a large difference of the two."""
    parts, section = answers(learners=2, genes=30)
    parts[1] = parts[0] + 0.02 * parts[1]
    rng = np.random.default_rng(4)
    targets = (0.5 * parts[0] + rng.standard_normal(parts[0].shape)).astype(np.float32)
    targets -= 0.3 * (parts[1] - parts[0]) / 0.02  # what tells them apart points the other way
    common = fit_combination(parts, targets, section, shrink=1e9).weights
    assert (common >= -1e-6).all()
    assert common.sum(0).max() < 2


@pytest.mark.parametrize("shrink", [10.0, 3000.0])
def test_twins_and_silent_learners_are_no_trouble(shrink):
    parts, section = answers()
    parts.append(parts[0].copy())
    parts.append(np.zeros_like(parts[0]))
    found = fit_combination(parts, mix(parts[:3]), section, shrink=shrink)
    assert np.isfinite(found.weights).all()
    assert np.abs(found.weights).max() < 2
    error = np.mean((found(parts, slice(None)) - mix(parts[:3])) ** 2)
    assert error < np.mean((parts[0] - mix(parts[:3])) ** 2)


def test_a_section_is_combined_by_weights_of_the_others():
    rng = np.random.default_rng(0)
    section = np.repeat([0, 1, 2], 40)
    targets = rng.standard_normal((120, 3)).astype(np.float32)
    answers = [(targets + rng.standard_normal((120, 3))).astype(np.float32) for _ in range(2)]
    found = cross_combined(answers, targets, section, shrink=100.0)
    rest, own = section != 1, section == 1
    combination = fit_combination([a[rest] for a in answers], targets[rest], section[rest], shrink=100.0)
    np.testing.assert_allclose(found[own], combination([a[own] for a in answers], slice(None)), atol=1e-6)
    changed = targets.copy()
    changed[own] += 10 * rng.standard_normal((40, 3)).astype(np.float32)
    np.testing.assert_array_equal(cross_combined(answers, changed, section, shrink=100.0)[own], found[own])


def test_what_a_section_did_not_measure_has_no_say_in_the_weights():
    rng = np.random.default_rng(0)
    section = np.repeat([0, 1, 2], 60)
    answers = [rng.standard_normal((180, 5)).astype(np.float32) for _ in range(3)]
    targets = (0.7 * answers[0] + 0.3 * answers[1] + 0.3 * rng.standard_normal((180, 5))).astype(np.float32)
    known = np.ones((3, 5), bool)
    known[2, 1] = False
    known[:, 4] = False
    odd = np.where(known[section], targets, 0).astype(np.float32)
    found = fit_combination(answers, odd, section, shrink=10.0, known=known)
    np.testing.assert_allclose(
        found.weights[:, 1], [0.7, 0.3, 0], atol=0.1
    )  # a third less, if 0 were a value
    plain = fit_combination(answers, targets, section, shrink=10.0)
    everything = fit_combination(answers, targets, section, shrink=10.0, known=np.ones((3, 5), bool))
    np.testing.assert_allclose(everything.weights, plain.weights, rtol=1e-6)
    untested = fit_combination(answers, odd, section, shrink=1e9, known=known).weights
    np.testing.assert_allclose(found.weights[:, 4], untested[:, 0], atol=0.02)  # the common weights
    combined = cross_combined(answers, odd, section, shrink=10.0, known=known)
    assert np.isfinite(combined).all()
    moved = cross_offset(combined, odd + 1, section, known)
    off = (odd + 1 - combined)[section < 2, 1].mean()
    assert (moved - combined)[section == 2, 1] == pytest.approx(off, abs=1e-4)
