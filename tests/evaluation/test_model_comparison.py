"""A new way against the model in use: who is held out, whose score flatters, what the scores are."""

import numpy as np
import pytest

from chrep_model.bundle import save_bundle
from chrep_model.encoders.opening import open_encoder
from chrep_model.evaluation.model_comparison import ModelComparison, compare, held_out_groups, seen_by
from chrep_model.methods.method_settings import make_method
from chrep_model.methods.model import fit_model
from chrep_model.statistics import gene_correlations

from .conftest import make_cohort


@pytest.fixture
def save(tmp_path, features):
    """Make a real bundle of a cohort in memory: ``save(cohort, name, genes=12, method="ridge")``."""
    encoder = open_encoder("stainbank", weights=None, tile_um=100, mpp=2.0, device="cpu")

    def save(cohort, name, genes=12, method="ridge"):
        model = fit_model(make_method(method), cohort.sections, features, genes, seed=0)
        sections = [{"name": s.name, "patient": s.patient, "slide": s.slide_path.name} for s in cohort]
        return save_bundle(
            tmp_path / f"{name}.chrep", model, encoder, weights=None, context_um=(), cohort=cohort.name,
            sections=sections, seed=0, settings={},
        )  # fmt: skip

    return save


@pytest.fixture
def look(features):
    return lambda bundle, section: features[section.name]


def test_groups(save, cohort):
    card = save(cohort.only(["A1", "B1"]), "in_use").card
    assert [seen_by(card, cohort[name]) for name in cohort.names] == [
        "section", "patient", "section", "no", "no",
    ]  # fmt: skip
    # patients as a whole, the one who was never seen first
    assert held_out_groups(cohort, card) == [("C1", "C2"), ("A1", "A2"), ("B1",)]
    assert held_out_groups(cohort, card, 1) == [("C1", "C2")]
    # with one patient, or where too few would be left without one, section by section
    assert held_out_groups(cohort.only(["A1", "A2", "C1"]), card) == [("C1",), ("A1",), ("A2",)]
    assert held_out_groups(cohort.only(["A1", "B1"]), card) == []


def test_a_renamed_copy_of_the_slide_is_seen(save, cohort):
    card = save(cohort.only(["A1"]), "in_use").card
    copied = make_cohort({"A1": "P9"})[0].sections[0]
    assert seen_by(card, copied) == "section"
    object.__setattr__(copied, "name", "other")
    assert seen_by(card, copied) == "section"


def test_scores_are_of_models_without_the_section(save, cohort, features, look):
    """Every row against a fit and a score by hand; the model in use is scored as it is."""
    in_use = save(cohort.only(["A1", "A2"]), "in_use", genes=16, method="mean")
    asked = []

    def fit(part, held_out):
        asked.append((part.names, held_out))
        return save(part, "fold")

    found = compare(in_use, cohort, fit, look, folds=2)
    assert asked == [(("A1", "A2", "C1", "C2"), "B1"), (("A1", "A2", "B1"), "C1 and C2")]
    assert [row.section for row in found.rows] == ["B1", "C1", "C2"]
    row, test = found.rows[2], cohort["C2"]
    model = save(cohort.without(["C1", "C2"]), "again").model
    common = [gene for gene in model.panel.genes if gene in in_use.genes]
    columns = [model.panel.index(gene) for gene in common]
    predicted = model.read(model.respond(features["C2"]), "raw")[:, columns]
    truth = model.panel.expression(test)[:, columns]
    assert row.genes == len(common) and row.spots == len(test)
    assert row.new.pcc == pytest.approx(np.nanmean(gene_correlations(truth, predicted)), abs=1e-6)
    assert row.new.mse == pytest.approx(np.mean((truth - predicted) ** 2), rel=1e-5)
    assert row.in_use.pcc == 0 and row.new.pcc > 0.2  # the mean says nothing of the spots
    assert "2 of the cohort's 5 were not" in found.how and "flatters" not in found.how
    old, new = found.mean()
    assert new.pcc == pytest.approx(np.mean([row.new.pcc for row in found.rows]))
    assert old.mse == pytest.approx(np.mean([row.in_use.mse for row in found.rows]))
    assert ModelComparison.model_validate_json(found.model_dump_json()) == found


def test_a_score_that_flatters_is_marked(save, cohort, look):
    in_use = save(cohort.only(["A1", "B1"]), "in_use")
    found = compare(in_use, cohort.only(["A1", "B1", "C1"]), lambda part, _: save(part, "fold"), look)
    assert {row.section: row.seen for row in found.rows} == {"A1": "section", "B1": "section", "C1": "no"}
    assert "flatters" in found.how
    (c1,) = [row for row in found.rows if row.section == "C1"]
    assert found.mean(fair=True) == (c1.in_use, c1.new)


def test_what_cannot_be_compared(save, cohort, look, features):
    in_use = save(cohort.only(["A1", "B1"]), "in_use")
    never = pytest.fail
    two = compare(in_use, cohort.only(["A1", "B1"]), never, look)
    assert two.rows == () and "2 sections" in two.how and "Add sections" in two.how
    assert compare(in_use, cohort, never, look, folds=0).rows == ()
    assert two.mean() is None


def test_genes_of_another_kind(save, look):
    """The model in use then has no score, and the new one is scored on its own genes."""
    cohort, _ = make_cohort({"A1": "P1", "B1": "P2", "C1": "P3"})
    in_use = save(cohort, "in_use")
    for section in cohort:
        object.__setattr__(section, "genes", tuple(f"ENSG{i}" for i in range(len(section.genes))))
    found = compare(in_use, cohort, lambda part, _: save(part, "fold"), look, folds=1)
    assert found.rows[0].in_use is None and found.rows[0].genes == 12 and found.rows[0].new.pcc > 0
    assert "no gene in common" in found.how and found.mean() is None
