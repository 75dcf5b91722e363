"""A gene that a test section did not measure takes part in no figure of it, and is counted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from chrep_model.cohorts.cohort import Cohort
from chrep_model.cohorts.gene_panel import GenePanel
from chrep_model.evaluation.ceiling import reliability
from chrep_model.evaluation.metrics import highly_expressed, interval_scores, mean_predictor_mse, scores
from chrep_model.evaluation.oracle import LibrarySizeOracle
from chrep_model.evaluation.report import write_report
from chrep_model.evaluation.scoring import MeasuredSection, score_prediction
from chrep_model.progress import Progress

from .conftest import GENES

DROPPED = ("G03", "G10", "G21")


def without(section, dropped=DROPPED):
    kept = [i for i, name in enumerate(section.genes) if name not in dropped]
    return replace(section, counts=section.counts[:, kept], genes=tuple(section.genes[i] for i in kept))


@pytest.fixture(scope="module")
def gaps(made):
    """The cohort of five sections, the first of which lacks three genes."""
    cohort, features = made
    sections = (without(cohort.sections[0]), *cohort.sections[1:])
    return Cohort(cohort.path, cohort.name, sections), features


@pytest.fixture(scope="module")
def said():
    return []


@pytest.fixture(scope="module")
def found(gaps, bench, said, tmp_path_factory):
    out = tmp_path_factory.mktemp("gaps")
    run = {"progress": Progress(warn=said.append)}
    return bench(*gaps, out / "out", genes=GENES, methods=("mean", "ridge", "trees"), run=run)


def figures(frame, fold, method="ridge", variant="raw"):
    rows = frame[(frame["fold"] == fold) & (frame["method"] == method) & (frame["variant"] == variant)]
    return rows.set_index(["space", "metric"])["value"]


def test_they_are_counted_and_left_out(found):
    for fold in ("A1", "A2"):
        for method in ("mean", "ridge", "trees", "library_size_oracle"):
            values = figures(found.scores, fold, method)
            assert values["log10-spot", "genes_not_measured"] == (len(DROPPED) if fold == "A1" else 0)
            assert np.isfinite(values["log10-spot", "mse"]) and np.isfinite(values["z-train", "mae"])
            assert values["log10-spot", "genes_without_truth"] == 0
    genes = found.per_gene
    missing = genes["gene"].isin(DROPPED) & (genes["fold"] == "A1")
    assert missing.sum() == len(DROPPED) * genes[genes["fold"] == "A1"].groupby(["method", "variant"]).ngroups
    assert genes.loc[missing, ["pcc", "mean", "ssim", "rvd", "ceiling"]].isna().all(axis=None)
    assert genes.loc[~missing, ["mean", "ceiling"]].notna().all(axis=None)
    assert found.intervals[["coverage", "width"]].notna().all(axis=None) and len(found.intervals)
    assert not set(found.maps.loc[found.maps["fold"] == "A1", "gene"]) & set(DROPPED)
    assert found.maps[["truth", "value"]].notna().all(axis=None)


def test_it_is_said_before_and_on_the_page(found, said, tmp_path):
    assert said == [
        "section A1 did not measure 3 of the 24 genes (G10, G03, G21): they are taken as missing there, "
        "not as zero"
    ]
    write_report(tmp_path / "page.html", found, found.table)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "take part in none of its figures: A1 3, A2 0, B1 0, C1 0, C2 0." in page


def test_a_test_section_is_scored_as_if_the_gene_was_not_in_the_panel(made):
    cohort, _ = made
    whole, train = cohort.sections[0], cohort.sections[1:]
    panel = GenePanel.fit(train, sorted({g for s in train for g in s.genes}))
    predicted = LibrarySizeOracle.fit(train, panel).predict(whole)
    measured = MeasuredSection.of(without(whole), panel)
    columns = ~np.isin(panel.genes, DROPPED)
    truth = measured.truth[:, columns]
    expected = scores(truth, predicted[:, columns], panel.sd[columns])
    got = scores(measured.truth, predicted, panel.sd)
    for (*name, value), (*other, by_hand) in zip(got, expected, strict=True):
        assert name == other
        assert value == (3.0 if name[1] == "genes_not_measured" else by_hand)
    half = np.full_like(predicted, 0.3)
    assert interval_scores(measured.truth, predicted, half) == interval_scores(
        truth, predicted[:, columns], half[:, columns]
    )
    assert mean_predictor_mse(measured.truth, panel.mean, panel.sd) == mean_predictor_mse(
        truth, panel.mean[columns], panel.sd[columns]
    )
    assert not set(np.array(panel.genes)[highly_expressed(measured.truth, 21)]) & set(DROPPED)
    outcome = score_prediction(predicted, measured, maps=True)
    assert list(outcome.genes["gene"]) == list(panel.genes)
    assert set(outcome.maps.columns) - {"variant", "x_um", "y_um"} == set(np.array(panel.genes)[columns])


def test_ceilings_of_what_was_measured(made):
    cohort, _ = made
    panel = GenePanel.fit(cohort.sections, 24)
    whole, lacking = (reliability(s, panel) for s in (cohort.sections[0], without(cohort.sections[0])))
    dropped = np.isin(panel.genes, DROPPED)
    assert np.isnan(lacking[dropped]).all()
    np.testing.assert_allclose(lacking[~dropped], whole[~dropped], atol=0.25)


def test_the_oracle_learns_a_gene_where_it_was_measured(made):
    cohort, _ = made
    first, *rest = cohort.sections
    panel = GenePanel.fit([without(first), *rest], 24)
    oracle, alone = (LibrarySizeOracle.fit(s, panel) for s in ([without(first), *rest], rest))
    dropped = panel.indices(DROPPED)
    np.testing.assert_allclose(oracle.slope[dropped], alone.slope[dropped], rtol=1e-9)
    np.testing.assert_allclose(oracle.offset[dropped], alone.offset[dropped], rtol=1e-9)
    assert np.isfinite(oracle.predict(without(first))).all()
