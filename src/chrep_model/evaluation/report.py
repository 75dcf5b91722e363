"""One page that says how the methods compare; opens without a network."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:62rem;padding:0 1rem;color:#1d2733}
table{border-collapse:collapse;margin:1rem 0;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .8rem;text-align:right;border-bottom:1px solid #d8dee6}
th:first-child,td:first-child,th:nth-child(2),td:nth-child(2){text-align:left}
th{background:#f3f5f8} tr.best td{font-weight:600} .dim{color:#66758a} img{max-width:100%}
"""

_TITLES = {"pcc_acg": "PCC (all genes)", "pcc_heg50": "PCC (HEG50)", "mse": "MSE", "mae": "MAE"}


def write_report(path: Path, table: pd.DataFrame, per_gene: pd.DataFrame, summary: dict[str, Any]) -> None:
    """Write the page.

    Parameters
    ----------
    path : Path
        HTML file.
    table, per_gene, summary : DataFrame, DataFrame, dict
        As in `benchmark.Summary`.
    """
    settings = summary["settings"]
    genes = settings["genes"] if isinstance(settings["genes"], int) else f"{len(settings['genes'])} listed"
    facts = (
        f"Cohort <b>{_text(summary['cohort'])}</b>, leave one {settings['split']} out, encoder "
        f"<b>{_text(settings['encoder'])}</b>, context {_text(settings['context_um'])} µm, {genes} genes, "
        f"{settings['seeds']} seed(s). Genes, standardisation, gallery and every choice of a setting were "
        "made on the training sections of each fold. Errors are in log10-spot units."
    )
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>Evaluation</title>",
        f"<style>{_STYLE}</style>",
        f"<h1>How well expression is predicted</h1><p>{facts}</p>",
        "<h2>Mean over test sections</h2>", _overview(summary),
        "<h2>Per test section: PCC over all genes</h2>", _per_fold(table),
        "<h2>Gene by gene</h2>", _picture(per_gene),
        "<h2>Paired differences</h2>", _differences(summary), _excluded(table),
    ]  # fmt: skip
    path.write_text("\n".join(parts), encoding="utf-8")


def _overview(summary: dict[str, Any]) -> str:
    frame = pd.DataFrame(summary["scores"])
    frame = frame[(frame["space"] == "log10-spot") & frame["metric"].isin(list(_TITLES))]
    best = {
        m: (g["mean"].min() if m in ("mse", "mae") else g["mean"].max()) for m, g in frame.groupby("metric")
    }
    rows = []
    for (method, variant), group in frame.groupby(["method", "variant"], sort=False):
        cells = ""
        for metric in _TITLES:
            row = group[group["metric"] == metric].iloc[0]
            spread = (
                ""
                if row["sd"] is None or np.isnan(row["sd"])
                else f" <span class='dim'>± {row['sd']:.3f}</span>"
            )
            value = f"{row['mean']:.4f}"
            cells += f"<td>{'<b>' + value + '</b>' if row['mean'] == best[metric] else value}{spread}</td>"
        rows.append(f"<tr><td>{_text(method)}</td><td>{_text(variant)}</td>{cells}</tr>")
    heads = "".join(f"<th>{title}</th>" for title in _TITLES.values())
    return f"<table><tr><th>method</th><th>variant</th>{heads}</tr>{''.join(rows)}</table>"


def _per_fold(table: pd.DataFrame) -> str:
    frame = table[table["metric"] == "pcc_acg"]
    wide = frame.pivot_table(index=["method", "variant"], columns="fold", values="value", sort=False)
    heads = "".join(f"<th>{_text(fold)}</th>" for fold in wide.columns)
    rows = "".join(
        f"<tr><td>{_text(m)}</td><td>{_text(v)}</td>{''.join(f'<td>{x:.4f}</td>' for x in values)}</tr>"
        for (m, v), values in zip(wide.index, wide.to_numpy(), strict=True)
    )
    return f"<table><tr><th>method</th><th>variant</th>{heads}</tr>{rows}</table>"


def _differences(summary: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{_text(d['method'])}</td><td>{_TITLES[d['metric']]}</td><td>{_text(d['reference'])}</td>"
        f"<td>{d['mean']:+.4f}</td><td>{'' if d['sd'] is None else format(d['sd'], '.4f')}</td>"
        f"<td>{'' if d['ratio'] is None else format(d['ratio'], '.3f')}</td>"
        f"<td>{d['folds_better']} of {d['folds']}</td></tr>"
        for d in summary["differences"]
        if d["against"] == "ridge"
    )
    titles = ("method", "figure", "against", "difference", "sd", "ratio", "better in")
    heads = "".join(f"<th>{title}</th>" for title in titles)
    return f"<table><tr>{heads}</tr>{rows}</table>"


def _picture(per_gene: pd.DataFrame) -> str:
    from matplotlib.figure import Figure

    last = dict(zip(per_gene["method"], per_gene["variant"], strict=True))
    names = [m for m in last if m != "mean"]
    groups = [
        per_gene[(per_gene["method"] == m) & (per_gene["variant"] == last[m])]
        .groupby("gene")["pcc"]
        .mean()
        .dropna()
        for m in names
    ]
    if not names:
        return "<p class='dim'>Only the mean was evaluated, which correlates with nothing.</p>"
    figure = Figure(figsize=(9, 0.6 * len(names) + 1.4), layout="constrained")
    axes = figure.subplots()
    axes.boxplot(
        groups, orientation="horizontal", tick_labels=names, whis=(5, 95), showfliers=False, widths=0.6
    )
    axes.axvline(0, color="#66758a", linewidth=0.8)
    axes.invert_yaxis()
    axes.set_xlabel(
        "Pearson correlation of a gene, mean over test sections (box: quartiles, whiskers: 5-95 %)"
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f"<img alt='correlation per gene and method' src='data:image/svg+xml;base64,{data}'>"


def _excluded(table: pd.DataFrame) -> str:
    frame = table[table["metric"] == "genes_without_truth"].groupby("fold", sort=False)["value"].max()
    lines = ", ".join(f"{_text(fold)}: {int(count)}" for fold, count in frame.items())
    return (
        "<h2>What was left out</h2><p>Genes that do not vary in a test section have no correlation there "
        f"({lines}). Genes that vary but were predicted as constant count as zero.</p>"
    )


def _text(value: object) -> str:
    return html.escape(str(value))
