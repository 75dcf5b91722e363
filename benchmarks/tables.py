"""Print the results of ``chrep evaluate`` as the tables of docs/benchmark.md.

    python benchmarks/tables.py SCORES...

SCORES are folders that ``chrep evaluate`` wrote.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import typer

from chrep_model.evaluation.oracle import ORACLE
from chrep_model.methods.registry import rivals

COLUMNS = {
    "pcc_acg": "PCC(ACG)", "pcc_heg50": "PCC(HEG50)", "pcc_top50": "PCC(top 50)", "mse": "MSE", "mae": "MAE",
    "ssim": "SSIM", "rvd": "RVD", "coverage_90": "coverage 90 %", "width_90": "width 90 %",
}  # fmt: skip

Entry = dict[str, Any]


def scores(found: Entry) -> Iterator[str]:
    """Yield the lines of the table of scores: mean and sd over test sections, and sd over seeds."""
    yield "| method | variant | " + " | ".join(COLUMNS.values()) + " | sd over seeds |"
    yield "|---" * (len(COLUMNS) + 3) + "|"
    entries = [e for e in found["scores"] if e["space"] == "log10-spot" and e["variant"] != "smoothed"]
    for method, variant in dict.fromkeys((e["method"], e["variant"]) for e in entries):
        row = {e["metric"]: e for e in entries if (e["method"], e["variant"]) == (method, variant)}
        cells = [_cell(row.get(metric)) for metric in COLUMNS]
        seeds = row["pcc_acg"]["sd_seeds"]
        yield f"| {method} | {variant} | {' | '.join(cells)} | {'' if seeds is None else f'{seeds:.4f}'} |"


def _cell(entry: Entry | None) -> str:
    if entry is None or entry["mean"] is None:
        return ""
    sd = "" if entry["sd"] is None else f" ± {entry['sd']:.3f}"
    return f"{entry['mean']:.4f}{sd}"


def lead(found: Entry, method: str = "chrep") -> Iterator[str]:
    """Yield the lines of the table that compares one method with ridge, trees and the best rival."""
    yield "| figure | against | ratio | difference | better in | p (paired t) |"
    yield "|---|---|---|---|---|---|"
    for e in found["differences"]:
        if e["method"] == method and e["against"] != "best":
            against = e["against"] if e["against"] == e["reference"] else f"{e['against']}: {e['reference']}"
            p = "" if e["p_t"] is None else "< .001" if e["p_t"] < 0.001 else f"{e['p_t']:.3f}"
            where = f"{e['folds_better']} of {e['folds']}"
            figure = COLUMNS[e["metric"]]
            yield f"| {figure} | {against} | {e['ratio']:.3f} | {e['mean']:+.4f} | {where} | {p} |"


def seeds(found: Entry) -> Iterator[str]:
    """Yield the pairs of methods whose difference is smaller than the spread over seeds of one of them."""
    entries = {
        e["method"]: e
        for e in found["scores"]
        if (e["space"], e["metric"]) == ("log10-spot", "pcc_acg")
        and e["method"] != ORACLE
        and e["variant"] == found["trusted"].get(e["method"])
    }
    near = []
    for (a, one), (b, other) in combinations(entries.items(), 2):
        spread = max(one["sd_seeds"] or 0.0, other["sd_seeds"] or 0.0)
        if abs(one["mean"] - other["mean"]) < spread:
            near.append(f"{a} and {b}")
    yield "Pairs that differ in PCC(ACG) by less than the seeds of one of them:"
    yield (", ".join(near) if near else "none") + "."


def main(folders: list[Path]) -> None:
    """Print the tables of every folder."""
    for folder in folders:
        found = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        print(f"\n### {found['settings']['encoder']}\n")
        for part in (scores, lead, seeds):
            print("\n".join(part(found)) + "\n")
        print(f"Published rivals are {', '.join(rivals())}.")


if __name__ == "__main__":
    typer.run(main)
