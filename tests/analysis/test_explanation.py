"""Why a tile has its value: it adds up to the heatmap, and names the spots that it comes from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from chrep_model.analysis.explanation import NEAREST, adjustable_settings, explain
from chrep_model.cohorts.cohort import open_cohort
from chrep_model.errors import GeneError, PredictionError, SettingsError
from chrep_model.methods import trees
from chrep_model.methods.bleep import BleepSettings
from chrep_model.methods.chrep import LEARNERS
from chrep_model.methods.hage_like import HageLikeSettings
from chrep_model.methods.heclip import HeclipSettings
from chrep_model.methods.mclstexp import MclstexpSettings
from chrep_model.methods.registry import BUILT_IN
from chrep_model.pipeline import TrainSettings, train
from chrep_model.prediction.predictor import Predictor
from chrep_model.slides.slide import open_slide


@pytest.fixture
def tiles(prediction):
    """Some tiles of the prediction, far apart in the order in which they came."""
    return [int(i) for i in prediction.indices[:: max(len(prediction) // 5, 1)]]


def test_the_numbers_add_up_to_the_heatmap(prediction, tiles):
    for gene in prediction.genes[::13]:
        shown = prediction.map(gene).ravel()
        for tile in tiles:
            found = explain(prediction, tile, gene)
            assert found.value == pytest.approx(shown[tile], abs=1e-5)
            assert max(0.0, found.total) == pytest.approx(shown[tile], abs=1e-5)
            assert tuple(term.name for term in found.terms) == LEARNERS
            for term in found.terms:
                by_hand = term.weight * (term.answer - found.mean)
                assert term.contribution == pytest.approx(by_hand, abs=1e-5)


def test_a_sum_below_zero_is_shown_as_zero(predict):
    """Ridge regression knows no bounds; no share of counts has a logarithm of 1 + x below 0."""
    prediction = predict("ridge")
    gene, column = prediction.genes[3], np.array([3])
    sums = np.concatenate(
        [prediction.bundle.model.read(p.response, "raw", column) for p in prediction._parts]
    )
    assert (sums < 0).any() and (sums > 0).any()
    np.testing.assert_array_equal(prediction.gene(gene), np.maximum(sums[:, 0], 0))
    why = explain(prediction, int(prediction.indices[sums[:, 0].argmin()]), gene)
    assert why.value == 0.0 and why.total == pytest.approx(float(sums.min()), abs=1e-5)
    wide = replace(why, half_width=0.4)
    assert wide.interval == (0.0, 0.4) and why.interval is None
    assert replace(wide, value=1.0).interval == (0.6, 1.4)


def test_the_learners_are_the_variants_of_those_names(prediction, tiles):
    gene = prediction.genes[4]
    for tile in tiles:
        answers = {term.name: term.answer for term in explain(prediction, tile, gene).terms}
        for name, variant in (("head", "raw"), ("estimate", "estimate"), ("correction", "correction")):
            shown = prediction.map(gene, variant).ravel()[tile]
            assert answers[name] == pytest.approx(shown, abs=1e-5)


def test_the_estimate_is_the_mean_of_the_neighbours_it_names(prediction, tiles):
    gene = prediction.genes[7]
    for tile in tiles:
        found = explain(prediction, tile, gene)
        weights = [n.weight for n in found.neighbours]
        assert sum(weights) == pytest.approx(1, abs=1e-5)
        assert weights == sorted(weights, reverse=True)
        estimate = sum(n.weight * n.measured for n in found.neighbours)
        assert estimate == pytest.approx(found.terms[1].answer, abs=1e-5)


def test_a_neighbour_says_where_it_was_measured(prediction, tiles):
    gallery = prediction.bundle.model.fitted.gallery
    patients = {s["name"]: s["patient"] for s in prediction.bundle.card.sections}
    found = explain(prediction, tiles[0], prediction.genes[0])
    for n in found.neighbours:
        assert n.section == gallery.section_names[gallery.section[n.row]]
        assert n.patient == patients[n.section]
        assert n.position_um == tuple(gallery.position[n.row])
        assert n.measured == pytest.approx(found.gallery[n.row])
        assert n.of_this_slide == (n.section == "SYNTHETIC_P1A")
    assert any(n.of_this_slide for n in found.neighbours)  # the slide is one of the training sections


def test_the_interval_is_the_prediction_s(prediction, tiles):
    gene = prediction.genes[2]
    half = dict(zip(prediction.indices.tolist(), prediction.interval(gene), strict=True))
    unlike = dict(zip(prediction.indices.tolist(), prediction.unlike(), strict=True))
    for tile in tiles:
        found = explain(prediction, tile, gene)
        assert found.half_width == pytest.approx(half[tile], rel=1e-4)
        assert found.unlike == pytest.approx(unlike[tile], abs=1e-4)


def test_another_k_and_temperature(prediction, tiles):
    """Worked by hand from the neighbours that the fitted model names; the head does not move."""
    gene, tile = prediction.genes[7], tiles[1]
    fitted = explain(prediction, tile, gene)
    nearest = sorted(fitted.neighbours, key=lambda n: -n.similarity)[:3]
    raw = np.exp((np.array([n.similarity for n in nearest]) - nearest[0].similarity) / 0.3)
    expected = float(raw / raw.sum() @ [n.measured for n in nearest])
    other = explain(prediction, tile, gene, k=3, temperature=0.3)
    assert (other.k, other.temperature, len(other.neighbours)) == (3, 0.3, 3)
    assert other.terms[1].answer == pytest.approx(expected, abs=1e-5)
    assert other.terms[0] == fitted.terms[0]
    assert other.value != fitted.value
    assert other.total == pytest.approx(other.value, abs=1e-5)
    own = adjustable_settings(prediction)
    assert explain(prediction, tile, gene, k=own.k, temperature=own.temperature) is not None
    assert explain(prediction, tile, gene, k=own.most).k == own.most


def test_what_cannot_be_explained(prediction, tiles):
    with pytest.raises(GeneError):
        explain(prediction, tiles[0], "NOSUCH")
    bare = prediction.grid.size
    with pytest.raises(PredictionError, match=f"tile {bare}"):
        explain(prediction, bare, prediction.genes[0])
    with pytest.raises(SettingsError):
        explain(prediction, tiles[0], prediction.genes[0], k=0)


FEW = {"epochs": 2, "batch": 40}
RIVALS = TrainSettings(
    tile_um=100, mpp=2.0, context_um=(), genes=5,
    bleep=BleepSettings(**FEW), heclip=HeclipSettings(**FEW), hage_like=HageLikeSettings(**FEW),
    mclstexp=MclstexpSettings(**FEW, k=30),
)  # fmt: skip


@pytest.fixture(scope="module")
def predict(tiny_cohort, tmp_path_factory):
    """Train a method on the tiny cohort and predict a section: ``predict("ridge")``."""
    folder = tmp_path_factory.mktemp("rivals")

    def predict(method):
        settings = RIVALS.model_copy(update={"method": method})
        out, cache = folder / f"{method}.chrep", folder / "cache"
        bundle = train(open_cohort(tiny_cohort), settings, out, device="cpu", cache=cache)
        slide = open_slide(tiny_cohort / "SYNTHETIC_P1A.jpg", mpp=0.7)
        return Predictor(bundle, device="cpu", cache_dir=cache).predict(slide)

    return predict


@pytest.mark.parametrize("method", [m for m in BUILT_IN if m != "chrep"])
def test_every_rival_has_an_answer(method, predict, monkeypatch):
    monkeypatch.setattr(trees, "TREES", 8)
    prediction = predict(method)
    gene, own = prediction.genes[3], prediction.bundle.model.fitted
    shown = prediction.map(gene).ravel()
    for tile in prediction.indices[::20]:
        why = explain(prediction, int(tile), gene)
        assert why.value == pytest.approx(shown[tile], abs=1e-5)
        assert max(0.0, why.total) == pytest.approx(why.value, abs=1e-5)
        if why.from_neighbours:
            assert why.k == own.k == len(why.neighbours)
            assert sum(n.weight * n.measured for n in why.neighbours) == pytest.approx(why.value, abs=1e-5)
        else:
            assert {n.weight for n in why.neighbours} == {None}
            similar = [n.similarity for n in why.neighbours]
            assert len(similar) == NEAREST
            assert similar == sorted(similar, reverse=True)
        assert (why.half_width is None) == (prediction.bundle.trust is None)
    assert why.from_neighbours == (method in ("knn", "bleep", "mclstexp", "heclip"))
    assert (adjustable_settings(prediction) is None) == (method != "knn")
