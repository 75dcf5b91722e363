"""Ways in which an evaluation of this kind has gone wrong, and the test that would notice it here.

=========================================================  ===============================================
trap                                                       tested in
=========================================================  ===============================================
depth left in the truth: counts scaled per gene            test_oracle, cohorts/test_genes
errors in units that are not named, or the test section's  test_metrics; here
genes chosen, or sections corrected, in view of the test   test_honesty
expression of the test section read while fitting          test_honesty, test_guard
highly expressed genes used for more than the figure       test_metrics, test_honesty
near-replicates of the test section stay in training       test_splits, test_guard; here
validation on spots, not on sections                       methods (ridge, knn, chrep); here
a spot that retrieves itself                               calibration/test_gallery, methods/test_chrep
neighbours or penalties tuned on the test section          test_honesty
an answer that depends on the batch                        methods/test_registry, inference/test_predictor
rows sliced back to sections by their number               training/test_samples; here
spots without counts dropped on one side only              here
columns chosen after constant genes were dropped           here
an order that comes from a set                             cohorts/test_genes, test_honesty; here
augmentation left on, other order or range of colours      networks/test_encoder, test_embeddings
raw vectors in training, unit vectors when retrieving      calibration/test_gallery, methods/test_chrep
positions learned as pixels of one scanner                 training/test_samples; here
division by a distance of zero                             calibration/test_gallery
a penalty whose weight grows with the number of genes      calibration/test_corrector
correlations in half precision or over a few spots         networks/test_losses, calibration/test_trust
random batches without neighbours                          training/test_samples
training spots predicted better than new ones ever are     methods/test_chrep, calibration/test_trust
=========================================================  ===============================================
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from chrep_model.cohorts.cohort import Cohort
from chrep_model.cohorts.gene_panel import GenePanel
from chrep_model.evaluation.metrics import scores
from chrep_model.methods.knn import Knn
from chrep_model.methods.ridge import PENALTIES, choose_penalty
from chrep_model.training.samples import SpotTable

from .conftest import make_cohort


def figure_of(table: pd.DataFrame, metric: str, space: str = "log10-spot", **facts: str) -> float:
    wanted = {"metric": metric, "space": space, "variant": "raw", **facts}
    rows = table[np.logical_and.reduce([table[column] == value for column, value in wanted.items()])]
    return float(rows["value"].mean())


def with_sections(cohort: Cohort, sections) -> Cohort:
    return Cohort(cohort.path, cohort.name, tuple(sections))


def shuffled(cohort: Cohort, features):
    """The same sections in another order, and the spots of each in another order."""
    rng = np.random.default_rng(0)
    sections, moved = [], {}
    for section in reversed(cohort.sections):
        order = rng.permutation(len(section))
        ids = tuple(section.spot_ids[i] for i in order)
        sections.append(replace(section, counts=section.counts[order], xy=section.xy[order], spot_ids=ids))
        moved[section.name] = features[section.name][order]
    return with_sections(cohort, sections), moved


def test_errors_are_in_units_of_the_training_sections(made, bench, tmp_path):
    """Dividing by the test section's own sd would make errors of quiet sections large, of loud ones small."""
    cohort, _ = made
    summary = bench(*made, tmp_path / "e", methods=("mean",), test_sections=("B1",))
    train = [section for section in cohort.sections if section.name != "B1"]
    panel = GenePanel.fit(train, 12)
    truth = panel.expression(cohort["B1"])
    expected = np.mean(((truth - panel.mean) / panel.sd) ** 2)
    assert figure_of(summary.scores, "mse", "z-train", method="mean") == pytest.approx(expected, rel=1e-5)
    assert expected != pytest.approx(np.mean(((truth - panel.mean) / truth.std(0)) ** 2), rel=1e-2)


def test_near_replicates_flatter_and_leaving_out_the_patient_shows_it(bench, tmp_path):
    """Features that tell the place in the block, and nothing else: only a section of the same block helps."""
    cohort, features = make_cohort({"A1": "P1", "A2": "P1", "B1": "P2", "B2": "P2"})
    rng = np.random.default_rng(0)
    first = {section.patient: section for section in reversed(cohort.sections)}
    block = {patient: rng.standard_normal((36, 8)).astype(np.float32) for patient in first}
    sections = []
    for section in cohort.sections:
        counts = first[section.patient].counts.copy()
        counts.data = rng.poisson(counts.data).astype(np.float32)  # the same tissue, measured once more
        sections.append(replace(section, counts=counts))
        features[section.name] = block[section.patient]
    found = {
        split: bench(
            with_sections(cohort, sections), features, tmp_path / split, methods=("knn",), split=split
        ).scores
        for split in ("section", "patient")
    }
    known, new = (figure_of(found[split], "pcc_acg", method="knn") for split in ("section", "patient"))
    assert known > 0.5
    assert abs(new) < 0.15


def copied(spots: int = 25) -> SpotTable:
    """Pure noise in which every spot occurs twice within its section, as spots that overlap nearly do."""
    rng = np.random.default_rng(0)
    once = SpotTable(
        features=rng.standard_normal((3 * spots, 60)).astype(np.float32),
        targets=rng.standard_normal((3 * spots, 5)).astype(np.float32),
        section=np.repeat(np.arange(3), spots), patient=np.repeat(np.arange(3), spots),
        position=rng.random((3 * spots, 2)) * 1000, section_names=("S0", "S1", "S2"),
        depth=np.full(3 * spots, 1000.0, np.float32),
    )  # fmt: skip
    return once.rows(np.tile(np.arange(3 * spots), 2))


def test_copies_of_spots_do_not_make_validation_easy():
    """Held out spot by spot, a spot's copy stays in training, and knowing by heart looks best."""
    table = copied()
    by_spot = replace(table, section=np.repeat([0, 1], len(table) // 2))
    assert choose_penalty(by_spot) == min(PENALTIES)
    assert choose_penalty(table) >= 1000 * min(PENALTIES)
    narrow, wide = (Knn().fit(t, seed=0).arrays() for t in (by_spot, table))
    assert narrow["temperature"] < wide["temperature"]
    assert narrow["k"] < wide["k"]


def test_the_order_of_sections_and_spots_changes_no_score(made, bench, tmp_path):
    """Rows are told by section and spot; slices by running number would pair them with others."""
    methods = {"methods": ("mean", "knn", "ridge"), "test_sections": ("A1", "B1")}
    one = bench(*made, tmp_path / "one", **methods).scores
    other = bench(*shuffled(*made), tmp_path / "other", **methods).scores
    keys = [column for column in one if column != "value"]
    both = one.merge(other, on=keys, validate="one_to_one")
    drawn = both["metric"].isin(["pcc_ceiling", "variance_explained"])  # by splitting counts at random
    assert len(both) == len(one) == len(other)
    np.testing.assert_allclose(both["value_x"][~drawn], both["value_y"][~drawn], atol=1e-4)


def test_a_spot_without_counts_shifts_nothing(made, bench, tmp_path):
    """It is scored as it is; dropped from the truth alone, every later spot would be held against another."""
    cohort, features = made
    counts = cohort["B1"].counts.tolil()
    counts[5] = 0
    emptied = [replace(s, counts=counts.tocsr()) if s.name == "B1" else s for s in cohort.sections]
    maps = [
        bench(c, features, tmp_path / name, methods=("ridge",), test_sections=("B1",)).maps
        for name, c in (("as-it-is", cohort), ("emptied", with_sections(cohort, emptied)))
    ]
    before, after = (m[(m["variant"] == "raw") & (m["method"] == "ridge")] for m in maps)
    after = after[after["gene"].isin(before["gene"])]
    both = before.merge(after, on=["gene", "x_um", "y_um"], suffixes=("", "_emptied"))
    assert len(both) and len(both) % len(cohort["B1"]) == 0
    np.testing.assert_array_equal(both["value"], both["value_emptied"])
    x, y = cohort["B1"].xy[5] * cohort["B1"].mpp
    empty = (both["x_um"] == x) & (both["y_um"] == y)
    assert (both.loc[empty, "truth_emptied"] == 0).all() and empty.any()
    np.testing.assert_array_equal(both.loc[~empty, "truth"], both.loc[~empty, "truth_emptied"])


def test_constant_genes_do_not_shift_the_highly_expressed_ones():
    """Dropping them first and then taking the columns of the full matrix would average other genes."""
    rng = np.random.default_rng(0)
    truth = (rng.standard_normal((40, 70)) + np.linspace(9, 2, 70)).astype(np.float32)
    truth[:, :4] = 20.0  # the most abundant of all, and they do not vary
    predicted = truth + (rng.standard_normal(truth.shape) * np.linspace(0.1, 4, 70)).astype(np.float32)
    by_mean = np.argsort(-truth.mean(0), kind="stable")[:50]
    expected = [np.corrcoef(truth[:, g], predicted[:, g])[0, 1] for g in by_mean if g >= 4]
    found = {(space, name): value for space, name, value in scores(truth, predicted, np.ones(70, np.float32))}
    assert found["log10-spot", "pcc_heg50"] == pytest.approx(np.mean(expected), abs=1e-6)
    assert found["log10-spot", "genes_without_truth"] == 4


def test_where_a_section_lies_on_its_scan_changes_no_score(made, bench, tmp_path):
    """A model that learned pixel numbers of the training scans would be lost on another one."""
    cohort, features = made
    moved = [replace(s, xy=s.xy + 70_000.0) if s.name == "A1" else s for s in cohort.sections]
    here, there = (
        bench(c, features, tmp_path / name, methods=("ridge", "chrep"), test_sections=("A1",)).scores
        for name, c in (("here", cohort), ("there", with_sections(cohort, moved)))
    )
    np.testing.assert_allclose(here["value"], there["value"], atol=1e-6)
