"""The benchmark: its files, and one protocol for all methods."""

import json

import numpy as np
import pandas as pd
import pytest

from chrep_model.cohorts.gene_panel import GenePanel
from chrep_model.errors import Cancelled, CohortError, GeneError, LeakError, SettingsError
from chrep_model.evaluation.benchmark import evaluate
from chrep_model.evaluation.tables import GENE_COLUMNS, INTERVAL_COLUMNS, MAP_COLUMNS, MAPPED
from chrep_model.progress import Progress

from .conftest import make_cohort, settings

COLUMNS = ["method", "variant", "split", "fold", "patient", "seed", "space", "metric", "value"]
LOG_FIGURES = (
    *("pcc_acg", "pcc_heg50", "pcc_top50", "pcc_ceiling", "variance_explained", "mse", "mae", "ssim", "rvd"),
    *("genes_not_measured", "genes_without_truth", "genes_without_prediction"),
)


@pytest.fixture(scope="module")
def summary(made, bench, tmp_path_factory):
    """Three sections in turn; mean, ridge, and CHRep under two seeds."""
    return bench(
        *made, tmp_path_factory.mktemp("out") / "e",
        methods=("mean", "ridge", "chrep"), seeds=2, test_sections=("A1", "A2", "B1"),
    )  # fmt: skip


def read(summary):
    return pd.read_csv(summary.folder / "scores.csv")


def test_scores_have_exactly_these_columns(summary):
    table = read(summary)
    assert list(table.columns) == COLUMNS
    assert not table.isna().any().any()
    assert not table.duplicated(COLUMNS[:-1]).any()
    pd.testing.assert_frame_equal(table, summary.scores, check_dtype=False)


def test_every_method_variant_fold_and_seed_has_every_figure(summary):
    table = read(summary)
    table = table[~table["metric"].isin(["coverage_90", "width_90"])]  # of methods that give intervals
    runs = {(m, v, 0) for m in ("mean", "ridge") for v in ("raw", "smoothed")}
    runs |= {("library_size_oracle", "raw", 0)}
    variants = ("raw", "estimate", "correction", "calibrated", "smoothed")
    runs |= {("chrep", v, s) for v in variants for s in (0, 1)}
    figures = {("log10-spot", m) for m in LOG_FIGURES} | {("z-train", "mse"), ("z-train", "mae")}
    assert len(table) == len(runs) * 3 * len(figures)
    for _, part in table.groupby("fold"):
        assert set(zip(part["method"], part["variant"], part["seed"], strict=True)) == runs
        assert set(zip(part["space"], part["metric"], strict=True)) == figures
    folds = {"A1": "P1", "A2": "P1", "B1": "P2"}
    assert dict(zip(table["fold"], table["patient"], strict=True)) == folds
    assert set(table["split"]) == {"section"}


def test_the_mean_predictors_errors_have_their_closed_form(summary, cohort):
    """From the counts alone: genes and means of the training sections, variance of the test section."""
    table = read(summary)
    for name in ("A1", "A2", "B1"):
        panel = GenePanel.fit([s for s in cohort if s.name != name], 12)
        truth = panel.expression(cohort[name]).astype(np.float64)
        closed = truth.var(0) + (truth.mean(0) - panel.mean) ** 2
        rows = table[(table["method"] == "mean") & (table["fold"] == name)]
        found = {(r.space, r.metric): r.value for r in rows.itertuples()}
        assert found["log10-spot", "mse"] == pytest.approx(closed.mean(), abs=1e-6)
        assert found["z-train", "mse"] == pytest.approx((closed / panel.sd**2).mean(), abs=1e-5)
        assert found["log10-spot", "pcc_acg"] == 0
        assert found["log10-spot", "rvd"] == pytest.approx(1)


def test_ridge_learns_and_seeds_matter_to_chrep_alone(summary):
    table = read(summary)
    mean = table[table["metric"] == "pcc_acg"].groupby(["method", "variant"])["value"].mean()
    assert mean["ridge", "raw"] > 0.3
    raw = table[(table["method"] == "chrep") & (table["metric"] == "mse") & (table["variant"] == "raw")]
    assert (raw.groupby(["fold", "space"])["value"].nunique() == 2).all()


def test_per_gene_agrees_with_the_scores(summary):
    genes = pd.read_parquet(summary.folder / "per_gene.parquet")
    assert list(genes.columns) == list(GENE_COLUMNS)
    runs = ["method", "variant", "fold", "seed"]
    assert (genes.groupby(runs).size() == 12).all()
    table = read(summary)
    for figure, metric in {"pcc": "pcc_acg", "ssim": "ssim", "rvd": "rvd", "ceiling": "pcc_ceiling"}.items():
        mean = genes.groupby(runs)[figure].mean()
        rows = table[table["metric"] == metric].set_index(runs)["value"]
        np.testing.assert_allclose(mean[rows.index], rows, atol=1e-9)


def test_the_ceiling_belongs_to_the_section_and_not_to_the_method(summary):
    genes = pd.read_parquet(summary.folder / "per_gene.parquet")
    assert (genes.groupby(["fold", "gene"])["ceiling"].nunique() == 1).all()
    assert genes["ceiling"].between(0, 1).all()


def test_maps_hold_the_best_genes_of_seed_0_spot_by_spot(summary, cohort):
    maps = pd.read_parquet(summary.folder / "maps.parquet")
    assert list(maps.columns) == list(MAP_COLUMNS)
    variants = ["raw", "estimate", "correction", "calibrated", "smoothed"]
    for fold, part in maps.groupby("fold"):
        spots = len(cohort[fold])
        assert part["gene"].nunique() == MAPPED
        assert set(part.groupby(["gene", "method", "variant"]).size()) == {spots}
        assert list(part[part["method"] == "chrep"]["variant"].drop_duplicates()) == variants
        genes = summary.per_gene
        genes = genes[(genes["fold"] == fold) & (genes["seed"] == 0)]
        of = genes[genes["method"].map(summary.table["trusted"]) == genes["variant"]]
        mean = of[of["method"] != "library_size_oracle"].groupby("gene")["pcc"].mean()
        assert set(part["gene"]) == set(mean.nlargest(MAPPED).index)
        panel = GenePanel.fit([s for s in cohort if s.name != fold], 12)
        one = part[(part["method"] == "ridge") & (part["variant"] == "raw")]
        one = one[one["gene"] == one["gene"].iloc[0]]
        truth = panel.expression(cohort[fold])[:, panel.index(one["gene"].iloc[0])]
        np.testing.assert_array_equal(one["truth"], truth)
        np.testing.assert_allclose(one[["x_um", "y_um"]], cohort[fold].xy * 0.5)
        pcc = of[(of["method"] == "ridge") & (of["gene"] == one["gene"].iloc[0])]["pcc"].item()
        assert np.corrcoef(one["truth"], one["value"])[0, 1] == pytest.approx(pcc, abs=1e-5)


def test_intervals_agree_with_the_scores(summary):
    intervals = pd.read_parquet(summary.folder / "intervals.parquet")
    assert list(intervals.columns) == list(INTERVAL_COLUMNS)
    mean = intervals[intervals["method"] == "mean"]
    assert set(mean["variant"]) == {"raw"}  # a smoothed prediction has none
    by_level = mean.groupby("level")[["coverage", "width"]].mean()
    assert by_level.index.is_monotonic_increasing and len(by_level) > 2
    assert by_level["width"].is_monotonic_increasing and by_level["coverage"].is_monotonic_increasing
    table = read(summary)
    for figure in ("coverage", "width"):
        rows = table[(table["method"] == "mean") & (table["metric"] == f"{figure}_90")]
        np.testing.assert_allclose(rows["value"], mean[mean["level"] == 0.9][figure])


def test_the_summary_is_that_of_the_scores(summary):
    facts = json.loads((summary.folder / "summary.json").read_text())
    table = read(summary)
    kind = {"method": "chrep", "variant": "calibrated", "space": "log10-spot", "metric": "mse"}
    (entry,) = [e for e in facts["scores"] if all(e[k] == v for k, v in kind.items())]
    rows = table[np.logical_and.reduce([table[column] == value for column, value in kind.items()])]
    per_fold = rows.groupby("fold")["value"].mean()
    assert (entry["mean"], entry["sd"]) == (pytest.approx(per_fold.mean()), pytest.approx(per_fold.std()))
    assert (entry["folds"], entry["seeds"]) == (3, 2)
    assert facts["trusted"]["chrep"] == "calibrated"
    assert facts["settings"]["genes"] == 12
    assert facts["settings"]["seeds"] == 2
    assert facts["encoder_id"]
    assert facts["cohort"] == "cohort"


def test_these_files_are_written(summary):
    assert sorted(p.name for p in summary.folder.iterdir()) == [
        "intervals.parquet", "jobs", "maps.parquet", "per_gene.parquet",
        "report.html", "scores.csv", "summary.json",
    ]  # fmt: skip


def test_the_same_again_gives_the_same_scores(summary, made, bench, tmp_path):
    again = bench(*made, tmp_path / "e", methods=("ridge", "chrep"), test_sections=("B1",)).scores
    first = summary.scores
    first = first[(first["fold"] == "B1") & (first["seed"] == 0) & (first["method"] != "mean")]
    pd.testing.assert_frame_equal(again, first.reset_index(drop=True), check_exact=True)


def test_leaving_patients_out(made, bench, tmp_path):
    found = bench(*made, tmp_path / "e", methods=("mean", "knn"), split="patient")
    assert set(found.scores["fold"]) == set(made[0].names)
    assert set(found.scores["split"]) == set(found.per_gene["split"]) == {"patient"}
    cohort = made[0]
    for test in cohort:
        panel = GenePanel.fit([s for s in cohort if s.patient != test.patient], 12)
        genes = found.per_gene[found.per_gene["fold"] == test.name]
        assert list(genes["gene"][:12]) == list(panel.genes)
        truth = panel.expression(test).astype(np.float64)
        closed = (truth.var(0) + (truth.mean(0) - panel.mean) ** 2).mean()
        rows = found.scores[(found.scores["fold"] == test.name) & (found.scores["method"] == "mean")]
        mse = rows[(rows["metric"] == "mse") & (rows["space"] == "log10-spot")]["value"]
        np.testing.assert_allclose(mse, closed, atol=1e-6)


def test_too_few_patients(bench, tmp_path):
    made = make_cohort({"A1": "P1", "A2": "P1", "B1": "P2"})
    with pytest.raises(CohortError, match="left to train on"):
        bench(*made, tmp_path / "e", split="patient")
    found = bench(*made, tmp_path / "e", split="patient", test_sections=("B1",))
    assert set(found.scores["fold"]) == {"B1"}


def test_listed_genes(made, bench, tmp_path):
    genes = ("G05", "G01", "G09")
    (tmp_path / "genes.txt").write_text("\n".join(genes))
    found = bench(*made, tmp_path / "e", genes=tmp_path / "genes.txt", test_sections=("A1",))
    assert list(found.per_gene["gene"][:3]) == list(genes)
    assert found.table["settings"]["genes"] == list(genes)
    assert str(tmp_path) not in (tmp_path / "e" / "summary.json").read_text()


def test_an_unknown_gene_is_told_before_any_job(made, bench, tmp_path):
    (tmp_path / "genes.txt").write_text("NADA\nNONE")
    with pytest.raises(GeneError, match=r"^none of the 2 listed genes"):
        bench(*made, tmp_path / "e", genes=tmp_path / "genes.txt")
    assert not (tmp_path / "e").exists()


@pytest.mark.parametrize("change", [{"methods": ("nonsense",)}, {"methods": ()}, {"seeds": 0}])
def test_settings_that_cannot_be(cohort, change, tmp_path):
    with pytest.raises(SettingsError):
        evaluate(cohort, settings(**change), tmp_path / "e", device="cpu")
    assert not (tmp_path / "e").exists()


def test_no_process(cohort, tmp_path):
    with pytest.raises(SettingsError, match="--jobs"):
        evaluate(cohort, settings(), tmp_path / "e", device="cpu", processes=0)


def test_a_section_under_two_names_is_refused(made, bench, tmp_path):
    from dataclasses import replace

    cohort, features = made
    copy = replace(cohort["A1"], name="A9", patient="P9")
    twice = type(cohort)(cohort.path, cohort.name, (*cohort.sections, copy))
    with pytest.raises(LeakError, match="A1 and A9 have the same counts"):
        bench(twice, features | {"A9": features["A1"]}, tmp_path / "e")


def test_cancelling_at_once_writes_nothing(made, bench, tmp_path):
    with pytest.raises(Cancelled):
        bench(*made, tmp_path / "e", run={"progress": Progress(cancelled=lambda: True)})
    assert not (tmp_path / "e").exists()
