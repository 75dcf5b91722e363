"""Summary of the scores: means, spreads and paired comparisons of methods over the test sections."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from chrep_model.evaluation.metrics import LOG10_SPOT
from chrep_model.evaluation.oracle import ORACLE
from chrep_model.evaluation.scoring import SMOOTHED
from chrep_model.methods.registry import rivals

HEADLINE = ("pcc_acg", "pcc_heg50", "mse", "mae")

_ERRORS = ("mse", "mae")
FEWEST_PAIRS = 6
"""Fewest pairs with which a signed-rank test can reach p < 0.05: its smallest two-sided p is 2 / 2^n."""


def trusted_variants(table: pd.DataFrame) -> dict[str, str]:
    """Return each method's final variant: the last one in the table without smoothing."""
    keys = dict.fromkeys(zip(table["method"], table["variant"], strict=True))
    return {method: variant for method, variant in keys if variant != SMOOTHED}


def summarise(table: pd.DataFrame) -> dict[str, Any]:
    """Compute means and spreads over folds, and paired differences between methods.

    Seeds are averaged first, since methods are compared over folds. The spread over seeds is separate: the
    root mean square over the folds of each fold's sd over seeds.

    Parameters
    ----------
    table : DataFrame
        The scores, columns `benchmark.SCORE_COLUMNS`.

    Returns
    -------
    dict
        ``scores``, a list with ``method, variant, space, metric, mean, sd, sd_seeds, median, q25, q75, folds,
        seeds``; ``differences``, see `differences`. Values that cannot be computed are None.
    """
    keys = ["method", "variant", "space", "metric"]
    by_fold = table.groupby([*keys, "fold"], sort=False)["value"]
    folds = pd.DataFrame({"mean": by_fold.mean(), "var": by_fold.var(ddof=1), "seeds": by_fold.size()})
    entries = []
    for key, part in folds.groupby(keys, sort=False):
        values = part["mean"].dropna()
        entries.append(
            {
                **dict(zip(keys, key, strict=True)),
                "mean": _number(values.mean()), "sd": _number(values.std(ddof=1)),
                "sd_seeds": _number(float(part["var"].mean()) ** 0.5),
                "median": _number(values.median()),
                "q25": _number(values.quantile(0.25)), "q75": _number(values.quantile(0.75)),
                "folds": len(part), "seeds": int(part["seeds"].max()),
            }
        )  # fmt: skip
    return {"scores": entries, "differences": differences(table)}


def differences(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Compare the final variants of methods by their differences, paired over folds.

    Each method is compared with ``ridge``, ``trees``, the best of the `rivals` (``rival``) and the best of
    all other methods (``best``), if they were run, in the `HEADLINE` metrics. The oracle is not included.

    Returns
    -------
    list of dict
        ``method, metric, against, reference, mean, sd, ratio, folds_better, folds``; ``p``, two-sided, of
        Wilcoxon's signed-rank test and ``p_t`` of the paired t test, not corrected for multiple tests;
        ``note``, their limitations.
    """
    trusted = {m: v for m, v in trusted_variants(table).items() if m != ORACLE}
    patients = dict(zip(table["fold"], table["patient"], strict=True))
    values = (
        table[table["space"] == LOG10_SPOT].groupby(["method", "variant", "metric", "fold"])["value"].mean()
    )
    out = []
    for metric in HEADLINE:
        better = -1.0 if metric in _ERRORS else 1.0
        by_method = {m: values[m, v, metric] for m, v in trusted.items()}
        for method, own in by_method.items():
            others = {m: better * float(v.mean()) for m, v in by_method.items() if m != method}
            for name, reference in _references(others).items():
                other = by_method[reference]
                out.append(
                    {
                        "method": method, "metric": metric, "against": name, "reference": reference,
                        **_paired(own, other, better), **_tests(own, other, patients),
                    }
                )  # fmt: skip
    return out


def _references(others: dict[str, float]) -> dict[str, str]:
    """Choose the methods to compare with: name of the comparison -> method."""
    published = {m: others[m] for m in rivals() if m in others}
    found: dict[str, str] = {name: name for name in ("ridge", "trees") if name in others}
    if published:
        found["rival"] = max(published, key=lambda m: published[m])
    if others:
        found["best"] = max(others, key=lambda m: others[m])
    return found


def _paired(own: pd.Series, other: pd.Series, better: float) -> dict[str, Any]:
    difference, mean = own - other, float(other.mean())
    return {
        "mean": _number(difference.mean()),
        "sd": _number(difference.std(ddof=1)),
        "ratio": _number(own.mean() / mean) if abs(mean) > 1e-9 else None,
        "folds_better": int((better * difference > 0).sum()),
        "folds": len(difference),
    }


def _tests(own: pd.Series, other: pd.Series, patients: dict[str, str]) -> dict[str, Any]:
    difference = (own - other).dropna()
    n, people = len(difference), len({patients[fold] for fold in difference.index})
    notes = []
    if n < FEWEST_PAIRS:
        notes.append(f"{n} section(s): no signed-rank p can be below {min(1.0, 2.0 / 2**n):.3g}")
    if people < n:
        notes.append(f"sections of {people} patient(s) are no independent samples")
    p, p_t = _p_values(difference.to_numpy(float))
    return {"p": p, "p_t": p_t, "note": "; ".join(notes)}


def _p_values(difference: NDArray[np.float64]) -> tuple[float | None, float | None]:
    """Two-sided p of Wilcoxon's signed-rank test and of the paired t test; None where there is no test."""
    from scipy import stats

    if len(difference) < 2 or not difference.any():
        return None, None
    spread = difference.std(ddof=1) > 1e-12
    return (
        _number(stats.wilcoxon(difference).pvalue),
        _number(stats.ttest_1samp(difference, 0.0).pvalue) if spread else None,
    )


def _number(value: float | np.floating[Any]) -> float | None:
    return float(value) if np.isfinite(value) else None
