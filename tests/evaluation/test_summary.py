"""Means, spreads and paired tests, on toy tables."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from chrep_model.evaluation.summary import HEADLINE, summarise, trusted_variants

COLUMNS = ["method", "variant", "split", "fold", "patient", "seed", "space", "metric", "value"]


def toy(**values):
    """Scores of all headline figures: ``toy(ridge=[...one value per fold...], ...)``; seeds if nested."""
    rows = []
    for name, folds in values.items():
        method, _, variant = name.partition("__")
        for fold, value in enumerate(folds):
            for seed, v in enumerate(value if isinstance(value, tuple) else (value,)):
                known = (method, variant or "raw", "section", f"F{fold}", f"P{fold}", seed, "log10-spot")
                rows += [(*known, metric, v) for metric in HEADLINE]
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
    assert (found["folds"], found["seeds"]) == (2, 2)


def test_the_spread_over_seeds_is_its_own():
    facts = summarise(toy(ridge=[0.1, 0.4], chrep=[(0.2, 0.4), (0.5, 0.5)]))
    found = entry_of(facts["scores"], method="chrep", metric="mse")
    assert found["sd_seeds"] == pytest.approx(np.sqrt(np.mean([0.02, 0.0])))  # variances of the folds
    assert entry_of(facts["scores"], method="ridge", metric="mse")["sd_seeds"] is None


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


def test_the_rival_is_the_best_of_the_published():
    facts = summarise(toy(bleep=[0.1, 0.2], heclip=[0.3, 0.2], trees=[0.9, 0.9], chrep=[0.5, 0.6]))
    found = entry_of(facts["differences"], method="chrep", metric="pcc_acg", against="rival")
    assert (found["reference"], found["mean"]) == ("heclip", pytest.approx(0.3))
    for metric in ("pcc_acg", "mse"):
        found = entry_of(facts["differences"], method="heclip", metric=metric, against="rival")
        assert found["reference"] == "bleep"


def test_a_method_is_compared_by_the_variant_to_trust():
    table = toy(ridge=[0.3, 0.3], chrep__raw=[0.9, 0.9], chrep__calibrated=[0.4, 0.4], chrep__smoothed=[1, 1])
    assert trusted_variants(table) == {"ridge": "raw", "chrep": "calibrated"}
    found = entry_of(summarise(table)["differences"], method="chrep", metric="pcc_acg", against="ridge")
    assert found["mean"] == pytest.approx(0.1)


def test_the_oracle_is_compared_with_nobody():
    facts = summarise(toy(library_size_oracle=[0.9, 0.9], ridge=[0.3, 0.3], chrep=[0.4, 0.5]))
    named = {d[k] for d in facts["differences"] for k in ("method", "reference")}
    assert named == {"ridge", "chrep"}
    assert entry_of(facts["scores"], method="library_size_oracle", metric="mse")["mean"] == 0.9


def test_one_fold_has_no_spread_and_one_method_no_rival():
    facts = summarise(toy(ridge=[0.3]))
    assert entry_of(facts["scores"], metric="mse")["sd"] is None
    assert facts["differences"] == []
    two = summarise(toy(ridge=[0.3], chrep=[0.4]))
    found = entry_of(two["differences"], method="chrep", metric="mse", against="ridge")
    assert (found["sd"], found["p"], found["p_t"]) == (None, None, None)


def test_p_values_are_scipys_and_by_hand():
    ridge = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    gain = np.array([0.01, 0.02, 0.03, 0.04, 0.05, 0.06, -0.07])
    facts = summarise(toy(ridge=ridge, chrep=list(ridge + gain)))
    found = entry_of(facts["differences"], method="chrep", metric="pcc_acg", against="ridge")
    # 7 of the ranks 1..7 are against: of 128 sign patterns, those with rank sums up to 7 are 19
    assert found["p"] == pytest.approx(2 * 19 / 128)
    assert found["p_t"] == pytest.approx(stats.ttest_rel(ridge + gain, ridge).pvalue)
    assert found["note"] == ""


def test_too_few_or_related_sections_are_noted():
    table = toy(ridge=[0.1, 0.2, 0.3, 0.4], chrep=[0.2, 0.4, 0.6, 0.8])
    found = entry_of(summarise(table)["differences"], method="chrep", metric="mse", against="ridge")
    assert found["p"] == pytest.approx(2 / 2**4)
    assert "4 section(s): no signed-rank p can be below 0.125" in found["note"]
    assert "patient" not in found["note"]
    related = table.assign(patient="P")
    found = entry_of(summarise(related)["differences"], method="chrep", metric="mse", against="ridge")
    assert "1 patient" in found["note"]


def test_equal_methods_have_no_p():
    facts = summarise(toy(ridge=[0.1, 0.2, 0.3], chrep=[0.1, 0.2, 0.3]))
    found = entry_of(facts["differences"], method="chrep", metric="mse", against="ridge")
    assert (found["mean"], found["p"], found["p_t"]) == (0, None, None)


def test_what_is_not_measured_in_a_fold_is_none_or_left_out():
    table = toy(ridge=[0.1, float("nan"), 0.3], chrep=[0.2, 0.3, 0.5])
    facts = summarise(table)
    assert entry_of(facts["scores"], method="ridge", metric="mse")["mean"] == pytest.approx(0.2)
    found = entry_of(facts["differences"], method="chrep", metric="pcc_acg", against="ridge")
    assert found["mean"] == pytest.approx(0.15)
    assert "2 section(s)" in found["note"]
    nothing = summarise(toy(ridge=[float("nan")] * 2))
    assert entry_of(nothing["scores"], metric="mse")["mean"] is None
