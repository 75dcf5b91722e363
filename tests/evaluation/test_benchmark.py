"""The benchmark: its files, its sums, and one protocol for all methods."""

import json

import numpy as np
import pandas as pd
import pytest

from chrep_model.calibration.corrector import CorrectorSettings
from chrep_model.cohorts.cohort import open_cohort
from chrep_model.cohorts.genes import GenePanel
from chrep_model.errors import Cancelled, CohortError, SettingsError
from chrep_model.evaluation.benchmark import HEADLINE, EvaluateSettings, evaluate, summarise
from chrep_model.methods import trees
from chrep_model.methods.chrep import ChrepSettings
from chrep_model.methods.phase1 import Phase1Settings

COLUMNS = ["method", "variant", "split", "fold", "patient", "seed", "space", "metric", "value"]
SMALL = ChrepSettings(
    phase1=Phase1Settings(members=1, epochs=2, inputs=8, dim=8, hidden=8),
    corrector=CorrectorSettings(epochs=2, hidden=8),
    k=10,
)


@pytest.fixture(scope="module")
def cohort(tiny_cohort):
    return open_cohort(tiny_cohort)


def settings(**changes):
    facts = {"tile_um": 100, "mpp": 2.0, "context_um": (200.0,), "genes": 20, "chrep": SMALL}
    return EvaluateSettings.model_validate(facts | changes)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def summary(cohort, cache, tmp_path_factory):
    """All sections in turn; mean, ridge, and CHRep under two seeds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trees, "TREES", 5)
        chosen = settings(methods=("mean", "ridge", "chrep"), seeds=2)
        return evaluate(cohort, chosen, tmp_path_factory.mktemp("out") / "e", device="cpu", cache=cache)


def read(summary):
    return pd.read_csv(summary.folder / "scores.csv")


def test_scores_have_exactly_these_columns(summary):
    table = read(summary)
    assert list(table.columns) == COLUMNS
    assert not table.isna().any().any()
    assert not table.duplicated(COLUMNS[:-1]).any()
    pd.testing.assert_frame_equal(table, summary.scores, check_dtype=False)


def test_every_method_variant_fold_and_seed_has_every_figure(summary, cohort):
    table = read(summary)
    runs = {("mean", "raw", 0), ("ridge", "raw", 0)}
    runs |= {("chrep", v, s) for v in ("raw", "estimate", "correction", "calibrated") for s in (0, 1)}
    figures = {("log10-spot", m) for m in (*HEADLINE, "genes_without_truth", "genes_without_prediction")}
    figures |= {("z-train", "mse"), ("z-train", "mae")}
    assert len(table) == len(runs) * len(cohort) * len(figures)
    for _, part in table.groupby("fold"):
        assert set(zip(part["method"], part["variant"], part["seed"], strict=True)) == runs
        assert set(zip(part["space"], part["metric"], strict=True)) == figures
    assert set(table["fold"]) == set(cohort.names)
    assert dict(zip(table["fold"], table["patient"], strict=True)) == {s.name: s.patient for s in cohort}
    assert set(table["split"]) == {"section"}


def test_the_mean_predictors_errors_have_their_closed_form(summary, cohort):
    """From the counts alone: genes and means of the training sections, variance of the test section."""
    table = read(summary)
    for test in cohort:
        panel = GenePanel.fit([s for s in cohort if s.name != test.name], 20)
        truth = panel.expression(test).astype(np.float64)
        closed = truth.var(0) + (truth.mean(0) - panel.mean) ** 2
        rows = table[(table["method"] == "mean") & (table["fold"] == test.name)]
        found = {(r.space, r.metric): r.value for r in rows.itertuples()}
        assert found["log10-spot", "mse"] == pytest.approx(closed.mean(), abs=1e-6)
        assert found["z-train", "mse"] == pytest.approx((closed / panel.sd**2).mean(), abs=1e-5)
        assert found["log10-spot", "pcc_acg"] == 0


def test_ridge_learns_and_seeds_matter_to_chrep_alone(summary):
    table = read(summary)
    mean = table[table["metric"] == "pcc_acg"].groupby(["method", "variant"])["value"].mean()
    assert mean["ridge", "raw"] > 0.1
    raw = table[(table["method"] == "chrep") & (table["metric"] == "mse") & (table["variant"] == "raw")]
    assert (raw.groupby(["fold", "space"])["value"].nunique() == 2).all()


def test_per_gene_agrees_with_the_scores(summary):
    genes = pd.read_parquet(summary.folder / "per_gene.parquet")
    assert (genes.groupby(["method", "variant", "fold", "seed"]).size() == 20).all()
    mean = genes.groupby(["method", "variant", "fold", "seed"])["pcc"].mean()
    table = read(summary)
    for row in table[table["metric"] == "pcc_acg"].itertuples():
        assert mean[row.method, row.variant, row.fold, row.seed] == pytest.approx(row.value, abs=1e-9)


def test_the_summary_is_that_of_the_scores(summary):
    facts = json.loads((summary.folder / "summary.json").read_text())
    table = read(summary)
    kind = {"method": "chrep", "variant": "calibrated", "space": "log10-spot", "metric": "mse"}
    entry = entry_of(facts["scores"], **kind)
    rows = table[np.logical_and.reduce([table[column] == value for column, value in kind.items()])]
    per_fold = rows.groupby("fold")["value"].mean()
    assert (entry["mean"], entry["sd"]) == (pytest.approx(per_fold.mean()), pytest.approx(per_fold.std()))
    assert entry["folds"] == 3
    assert facts["settings"]["genes"] == 20
    assert facts["settings"]["seeds"] == 2
    assert facts["encoder_id"]
    assert facts["cohort"] == "tiny"


def test_the_report_stands_alone_and_names_every_method(summary):
    page = (summary.folder / "report.html").read_text(encoding="utf-8")
    for word in ("mean", "ridge", "chrep", "calibrated", *set(summary.scores["fold"])):
        assert word in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    assert "src='data:image" in page
    assert sorted(p.name for p in summary.folder.iterdir()) == [
        "per_gene.parquet", "report.html", "scores.csv", "summary.json",
    ]  # fmt: skip


def test_the_same_again_gives_the_same_scores(summary, cohort, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(trees, "TREES", 5)
    chosen = settings(methods=("ridge", "chrep"), test_sections=cohort.names[-1:])
    again = evaluate(cohort, chosen, tmp_path / "e", device="cpu", cache=cache).scores
    first = read(summary)
    first = first[
        (first["fold"] == cohort.names[-1]) & (first["seed"] == 0) & (first["method"] != "mean")
    ].reset_index(drop=True)
    pd.testing.assert_frame_equal(again, first, check_dtype=False, rtol=1e-6)


def test_leaving_patients_out(cohort, cache, tmp_path):
    chosen = settings(methods=("mean",), split="patient")
    with pytest.raises(CohortError, match="left to train on"):  # the other patient has a single section
        evaluate(cohort, chosen, tmp_path / "e", device="cpu", cache=cache)
    chosen = chosen.model_copy(update={"test_sections": ("SYNTHETIC_P2A",)})
    table = evaluate(cohort, chosen, tmp_path / "e", device="cpu", cache=cache).scores
    assert set(table["fold"]) == {"SYNTHETIC_P2A"}
    assert set(table["split"]) == {"patient"}


def test_listed_genes(cohort, cache, tmp_path):
    genes = cohort.sections[0].genes[:6]
    (tmp_path / "genes.txt").write_text("\n".join(genes))
    chosen = settings(methods=("ridge",), genes=tmp_path / "genes.txt", test_sections=cohort.names[:1])
    found = evaluate(cohort, chosen, tmp_path / "e", device="cpu", cache=cache)
    assert list(found.per_gene["gene"]) == list(genes)
    assert found.table["settings"]["genes"] == list(genes)
    assert str(tmp_path) not in (tmp_path / "e" / "summary.json").read_text()


@pytest.mark.parametrize("change", [{"methods": ("nonsense",)}, {"seeds": 0}])
def test_settings_that_cannot_be(cohort, change, tmp_path):
    with pytest.raises(SettingsError):
        evaluate(cohort, settings(**change), tmp_path / "e", device="cpu")
    assert not (tmp_path / "e").exists()


def test_cancelling_writes_nothing(cohort, cache, tmp_path):
    with pytest.raises(Cancelled):
        evaluate(
            cohort, settings(methods=("mean",)), tmp_path / "e", device="cpu", cache=cache,
            cancelled=lambda: True,
        )  # fmt: skip
    assert not (tmp_path / "e").exists()


# The sums on a toy table


def toy(**values):
    """Scores of all headline figures: ``toy(ridge=[...one value per fold...], ...)``; two seeds if nested."""
    rows = []
    for name, folds in values.items():
        method, _, variant = name.partition("__")
        for fold, value in enumerate(folds):
            for seed, v in enumerate(value if isinstance(value, tuple) else (value,)):
                rows += [
                    (method, variant or "raw", "section", f"F{fold}", "P", seed, "log10-spot", metric, v)
                    for metric in HEADLINE
                ]
    return pd.DataFrame(rows, columns=COLUMNS)


def entry_of(entries, **facts):
    (found,) = [e for e in entries if all(e[k] == v for k, v in facts.items())]
    return found


def test_seeds_are_averaged_before_folds():
    facts = summarise(toy(ridge=[0.1, 0.4], chrep=[(0.2, 0.4), (0.5, 0.7)]))
    found = entry_of(facts["scores"], method="chrep", metric="pcc_acg")
    assert found["mean"] == pytest.approx(0.45)
    assert found["sd"] == pytest.approx(np.std([0.3, 0.6], ddof=1))
    assert found["median"] == pytest.approx(0.45)
    assert found["folds"] == 2


def test_differences_are_paired_over_folds():
    facts = summarise(toy(ridge=[0.1, 0.5, 0.3], trees=[0.2, 0.2, 0.8], chrep=[0.3, 0.6, 0.2]))
    to_ridge = entry_of(facts["differences"], method="chrep", metric="pcc_acg", against="ridge")
    assert to_ridge["mean"] == pytest.approx(np.mean([0.2, 0.1, -0.1]))
    assert to_ridge["sd"] == pytest.approx(np.std([0.2, 0.1, -0.1], ddof=1))
    assert to_ridge["folds_better"] == 2
    assert to_ridge["ratio"] == pytest.approx(1.1 / 0.9)
    best = entry_of(facts["differences"], method="chrep", metric="pcc_acg", against="best")
    assert (best["reference"], best["mean"]) == ("trees", pytest.approx(-0.1 / 3))
    of_trees = entry_of(facts["differences"], method="trees", metric="pcc_acg", against="best")
    assert of_trees["reference"] == "chrep"  # never itself


def test_for_errors_less_is_better():
    facts = summarise(toy(ridge=[0.5, 0.5], trees=[0.2, 0.3], chrep=[0.1, 0.4]))
    found = entry_of(facts["differences"], method="chrep", metric="mse", against="best")
    assert found["reference"] == "trees"
    assert found["folds_better"] == 1
    assert entry_of(facts["differences"], method="chrep", metric="mae", against="ridge")["folds_better"] == 2


def test_a_method_is_compared_by_the_variant_to_trust():
    facts = summarise(toy(ridge=[0.3, 0.3], chrep__raw=[0.9, 0.9], chrep__calibrated=[0.4, 0.4]))
    found = entry_of(facts["differences"], method="chrep", metric="pcc_acg", against="ridge")
    assert found["mean"] == pytest.approx(0.1)


def test_one_fold_has_no_spread_and_one_method_no_rival():
    facts = summarise(toy(ridge=[0.3]))
    assert entry_of(facts["scores"], metric="mse")["sd"] is None
    assert facts["differences"] == []
    two = summarise(toy(ridge=[0.3], chrep=[0.4]))
    assert entry_of(two["differences"], method="chrep", metric="mse", against="ridge")["sd"] is None
