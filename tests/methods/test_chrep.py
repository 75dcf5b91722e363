"""CHRep: its variants are what they are called, and nothing of a section trains its own answer."""

import dataclasses

import numpy as np
import pytest
import torch

from chrep_model.calibration.gallery import Neighbours, weighted_mean
from chrep_model.errors import SettingsError
from chrep_model.methods.chrep import LEARNERS, Chrep, ChrepSettings, combination, method, phase2, recalibrate

pytestmark = pytest.mark.usefixtures("few_trees")


@pytest.fixture(scope="module")
def fitted(table, small_settings):
    from chrep_model.methods import trees

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trees, "TREES", 8)
        return Chrep(small_settings).fit(table, seed=0)


def changed(settings, **values):
    """Settings with some replaced: ``phase1__con=0`` goes into the part."""
    out = settings.model_dump()
    for key, value in values.items():
        part, _, name = key.partition("__")
        if name:
            out[part][name] = value
        else:
            out[part] = value
    return ChrepSettings.model_validate(out)


def test_the_estimate_is_the_weighted_mean_of_the_neighbours(fitted, unseen):
    response = fitted.respond(unseen.features)
    z = fitted.compare(unseen.features).astype(np.float64)
    cosine = z @ fitted.gallery.z.T
    order = np.argsort(-cosine, axis=1)[:, : fitted.k]
    near = fitted.neighbours(response)
    np.testing.assert_allclose(near.similarity, np.take_along_axis(cosine, order, 1), atol=1e-5)
    w = np.exp(np.take_along_axis(cosine, order, 1) / fitted.temperature)
    expected = np.einsum("nk,nkg->ng", w / w.sum(1, keepdims=True), fitted.gallery.expression[order])
    np.testing.assert_allclose(fitted.read(response, "estimate"), expected, atol=1e-4)


def test_the_correction_is_the_estimate_plus_the_corrector(fitted, unseen):
    response = fitted.respond(unseen.features)
    with torch.inference_mode():
        residual = fitted.corrector(torch.from_numpy(fitted.compare(unseen.features))).numpy()
    expected = fitted.read(response, "estimate") + residual
    assert np.abs(residual).max() > 1e-4
    np.testing.assert_allclose(fitted.read(response, "correction"), expected, atol=1e-5)


def test_raw_is_the_head(fitted, unseen):
    response = fitted.respond(unseen.features)
    phase1 = fitted.phase1
    x = torch.from_numpy(phase1.inputs(unseen.features))
    with torch.inference_mode():
        expected = [head(a(x)).numpy() for a, head in zip(phase1.adapters, phase1.heads, strict=True)]
    np.testing.assert_allclose(fitted.read(response, "raw"), np.mean(expected, axis=0), atol=1e-5)


def test_members_are_averaged(table, unseen, small_settings):
    two = Chrep(changed(small_settings, phase1__members=2, calibration="literal")).fit(table, seed=0)
    phase1 = two.phase1
    x = torch.from_numpy(phase1.inputs(unseen.features))
    with torch.inference_mode():
        each = [head(a(x)).numpy() for a, head in zip(phase1.adapters, phase1.heads, strict=True)]
    assert len(each) == 2
    assert np.abs(each[0] - each[1]).max() > 1e-3
    np.testing.assert_allclose(two.predict(unseen.features, "raw"), np.mean(each, axis=0), atol=1e-5)


def test_calibrated_is_the_combination_of_all_learners(fitted, unseen):
    response = fitted.respond(unseen.features)
    linear, forest = (fitted.simple.genes(response[name], slice(None)) for name in ("linear", "forest"))
    parts = [fitted.read(response, v) for v in ("raw", "estimate", "correction")] + [linear, forest]
    weights = fitted.combination.weights
    assert weights.shape == (len(LEARNERS), 15)
    expected = sum(w * part for w, part in zip(weights, parts, strict=True))
    np.testing.assert_allclose(fitted.read(response, "calibrated"), expected, atol=1e-5)


def test_literal_calibration_is_the_papers(table, unseen, small_settings):
    fitted = Chrep(changed(small_settings, calibration="literal")).fit(table, seed=0)
    response = fitted.respond(unseen.features)
    np.testing.assert_array_equal(fitted.read(response, "calibrated"), fitted.read(response, "correction"))
    assert fitted.simple is None


def test_a_heavy_penalty_makes_the_correction_the_estimate(table, unseen, small_settings):
    settings = changed(small_settings, corrector__rho=1e6, corrector__epochs=100, calibration="literal")
    fitted = Chrep(settings).fit(table, seed=0)
    response = fitted.respond(unseen.features)
    found = fitted.read(response, "correction") - fitted.read(response, "estimate")
    assert np.abs(found).max() < 0.01


def test_one_neighbour_gives_a_training_spot_its_own_value(table, small_settings):
    fitted = Chrep(changed(small_settings, k=1, calibration="literal")).fit(table, seed=0)
    np.testing.assert_allclose(fitted.predict(table.features, "estimate"), table.targets, atol=1e-5)


@pytest.mark.parametrize(
    ("exclude", "group"), [("section", "section"), ("patient", "patient"), ("self", None)]
)
def test_the_corrector_never_sees_what_is_excluded(exclude, group, make_table, small_settings, monkeypatch):
    """Its estimates come from neighbours of other sections (patients), as at test time."""
    table = make_table(sections=4, spots=30)
    seen = {}
    fit_corrector = phase2.fit_corrector

    def watched(z, estimate, targets, section, *args, **kwargs):
        seen.update(z=z, estimate=estimate)
        return fit_corrector(z, estimate, targets, section, *args, **kwargs)

    monkeypatch.setattr(phase2, "fit_corrector", watched)
    settings = changed(small_settings, exclude=exclude, calibration="literal")
    fitted = Chrep(settings).fit(table, seed=0)
    cosine = seen["z"].astype(np.float64) @ seen["z"].T
    own = np.eye(len(table), dtype=bool)
    if exclude != "self":
        labels = getattr(table, exclude)
        own = labels[:, None] == labels[None, :]
    cosine[own] = -np.inf
    order = np.argsort(-cosine, axis=1)[:, : fitted.k]
    found = Neighbours(order, np.take_along_axis(cosine, order, 1).astype(np.float32))
    np.testing.assert_allclose(
        seen["estimate"], weighted_mean(found, fitted.temperature, table.targets), atol=1e-4
    )


def test_the_combination_is_learned_from_sections_not_seen(make_table, small_settings, monkeypatch):
    """Its answers for a section do not move when that section's own expression is replaced."""
    table = make_table(sections=3, spots=30)
    lies = table.targets.copy()
    lies[table.section == 1] = np.random.default_rng(5).standard_normal((30, 15)).astype(np.float32)
    seen = []
    original = combination.fit_combination

    def watched(answers, targets, *args, **kwargs):
        seen.append(np.stack(answers))
        return original(answers, targets, *args, **kwargs)

    monkeypatch.setattr(combination, "fit_combination", watched)
    # The penalty of the linear learner is chosen once on all training sections: hold it still here.
    monkeypatch.setattr(method, "choose_penalty", lambda table: 100.0)
    for targets in (table.targets, lies):
        Chrep(small_settings).fit(dataclasses.replace(table, targets=targets), seed=0)
    own, others = table.section == 1, table.section != 1
    np.testing.assert_array_equal(seen[0][:, own], seen[1][:, own])
    assert np.abs(seen[0][:, others] - seen[1][:, others]).max() > 1e-3  # the others did hear of it


def test_phase_1_says_when_there_is_nothing_to_leave_out(make_table, small_settings):
    with pytest.raises(SettingsError, match="two"):
        Chrep(small_settings).fit(make_table(sections=1), seed=0)


def test_losses_can_be_switched_off_and_each_makes_a_difference(table, unseen, small_settings):
    base = changed(small_settings, calibration="literal", phase1__epochs=4)
    answers = [
        Chrep(changed(base, **off)).fit(table, seed=0).predict(unseen.features, "raw")
        for off in ({}, {"phase1__con": 0}, {"phase1__mae": 0}, {"phase1__pcc": 0})
    ]
    for answer in answers[1:]:
        assert np.abs(answer - answers[0]).max() > 1e-5
    assert all(np.isfinite(answer).all() for answer in answers)


def test_recalibration_keeps_the_heads_and_renews_the_rest(fitted, make_table, unseen, small_settings):
    site = make_table(sections=2, spots=40, seed=11)
    site = dataclasses.replace(site, targets=site.targets + 1.5)  # a site that measures more of everything
    renewed = recalibrate(fitted, site, small_settings, seed=0)
    for name, values in fitted.phase1.arrays().items():
        np.testing.assert_array_equal(renewed.phase1.arrays()[name], values)
    before, after = fitted.respond(unseen.features), renewed.respond(unseen.features)
    np.testing.assert_array_equal(fitted.read(before, "raw"), renewed.read(after, "raw"))
    np.testing.assert_array_equal(renewed.gallery.expression, site.targets)
    shift = renewed.read(after, "estimate").mean() - fitted.read(before, "estimate").mean()
    assert shift == pytest.approx(1.5, abs=0.3)
    # the old model is left as it was
    np.testing.assert_array_equal(fitted.respond(unseen.features)["neighbours"], before["neighbours"])


def test_at_a_site_that_measures_more_the_offset_is_learned_kept_and_explained(
    fitted, make_table, unseen, small_settings
):
    site = make_table(sections=3, spots=40, seed=11)
    more = dataclasses.replace(site, targets=site.targets + 1.5)
    renewed = recalibrate(fitted, more, small_settings, seed=0)
    response = renewed.respond(unseen.features)
    answer = renewed.read(response, "calibrated")
    assert np.mean(answer - unseen.targets) == pytest.approx(1.5, abs=0.25)
    total = sum(term.weight * term.answer for term in renewed.terms(response))
    np.testing.assert_allclose(total, answer, atol=1e-5)
    again = type(renewed).from_arrays(renewed.arrays(), renewed.gallery)
    np.testing.assert_array_equal(again.read(response, "calibrated"), answer)
    assert fitted.combination.offset is None  # where it was trained there is none


def test_settings_out_of_range_and_unknown():
    for wrong in ({"k": 0}, {"temperature": 0}, {"exclude": "nobody"}, {"phase2": {}}, {"shrink": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ChrepSettings.model_validate(wrong)


def test_what_it_says_of_its_trust_was_learned_on_sections_left_out(fitted, table, unseen):
    """Held-out accuracy is below what the fitted model reaches on spots that it was trained on."""
    assert fitted.trust.correlations.shape == (3, 15)
    answer = fitted.predict(table.features)
    seen = [np.corrcoef(answer[:, g], table.targets[:, g])[0, 1] for g in range(15)]
    assert 0.1 < np.nanmean(fitted.trust.accuracy) < np.mean(seen) - 0.05
    response = fitted.respond(unseen.features)
    half = fitted.interval(response, "calibrated")
    held = np.abs(fitted.read(response, "calibrated") - unseen.targets) <= half
    assert 0.8 < held.mean() <= 1
    assert fitted.interval(response, "raw") is None


def test_spread_is_that_of_the_neighbours(fitted, unseen):
    response = fitted.respond(unseen.features)
    found = fitted.neighbours(response)
    closer = found.similarity - found.similarity[:, :1]
    w = np.exp(closer.astype(np.float64) / fitted.temperature)
    w /= w.sum(1, keepdims=True)
    near = fitted.gallery.expression[found.index]
    mean = np.einsum("nk,nkg->ng", w, near)
    expected = np.sqrt(np.einsum("nk,nkg->ng", w, (near - mean[:, None]) ** 2))
    np.testing.assert_allclose(fitted.spread(response), expected, atol=1e-4)
    np.testing.assert_allclose(fitted.spread(response, np.array([4])), expected[:, [4]], atol=1e-4)


def test_the_terms_are_the_learners_and_add_up(fitted, unseen):
    response = fitted.respond(unseen.features)
    for genes in (slice(None), np.array([3, 11])):
        terms = fitted.terms(response, genes)
        assert [t.name for t in terms] == list(LEARNERS)
        np.testing.assert_array_equal(terms[1].answer, fitted.read(response, "estimate", genes))
        np.testing.assert_array_equal(terms[3].weight, fitted.combination.weights[3, genes])
        total = sum(t.weight * t.answer for t in terms)
        np.testing.assert_allclose(total, fitted.read(response, "calibrated", genes), atol=1e-5)


def test_the_paper_s_answer_is_the_correction_alone(table, small_settings, unseen):
    literal = Chrep(changed(small_settings, calibration="literal")).fit(table, seed=0)
    response = literal.respond(unseen.features)
    terms = literal.terms(response)
    assert [(t.name, *np.unique(t.weight)) for t in terms] == [
        ("head", 0),
        ("estimate", 0),
        ("correction", 1),
    ]
    np.testing.assert_array_equal(terms[2].answer, literal.read(response, "calibrated"))


def test_another_k_and_temperature_need_no_new_response(fitted, unseen):
    response = fitted.respond(unseen.features)
    other = fitted.reweighted(40, 0.3)
    assert (fitted.k, fitted.temperature) == (10, 0.1)
    np.testing.assert_array_equal(other.read(response, "raw"), fitted.read(response, "raw"))
    found = fitted.gallery.search(fitted.compare(unseen.features), 40)
    expected = weighted_mean(found, 0.3, fitted.gallery.expression)
    np.testing.assert_allclose(other.read(response, "estimate"), expected, atol=1e-6)
    np.testing.assert_allclose(other.weights(response), found.weights(0.3), atol=1e-6)
    moved = other.read(response, "correction") - fitted.read(response, "correction")
    np.testing.assert_allclose(moved, expected - fitted.read(response, "estimate"), atol=1e-5)
    for k, temperature in ((0, 0.1), (5, 0.0)):
        with pytest.raises(SettingsError, match="above zero"):
            fitted.reweighted(k, temperature)
