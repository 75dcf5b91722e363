"""Tables of the report: all methods, section by section, gene by gene, and paired differences."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from chrep_model.evaluation.oracle import ORACLE
from chrep_model.evaluation.report.glossary import (
    CEILING,
    METRICS,
    MORE_METRICS,
    VARIANTS,
    Metric,
    method_text,
)
from chrep_model.evaluation.report.results import Key, Results
from chrep_model.evaluation.scoring import SMOOTHED

MISSING = "–"

MAX_GENES = 200
"""Rows of the table of genes at most."""

_DIGITS = 3


@dataclass(frozen=True)
class Column:
    """Head of a column.

    Attributes
    ----------
    title, hint : str
        The hint shows when the pointer rests on the title.
    words : bool
        Whether the column holds words, which stand on the left; numbers stand on the right.
    order : {"none", "ascending", "descending"}
        How the rows are sorted by this column when the page opens.
    """

    title: str
    hint: str = ""
    words: bool = False
    order: str = "none"


@dataclass(frozen=True)
class Cell:
    """A cell: its text, the number to sort by, a hint, small print below, and whether it is bold."""

    shown: str
    value: float | None = None
    hint: str = ""
    below: str = ""
    best: bool = False


@dataclass(frozen=True)
class Row:
    """A row: its cells, the first of which is its head, and its class in the style sheet."""

    cells: Sequence[Cell]
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """A table that the reader can sort, group by group; `groups` maps a group's title, or "", to its rows."""

    name: str
    columns: Sequence[Column]
    groups: Mapping[str, Sequence[Row]]


def format_number(value: float | None, digits: int = _DIGITS, *, signed: bool = False) -> str:
    """Return a number as text with a true minus, or a dash if there is none."""
    if value is None or not math.isfinite(value):
        return MISSING
    rounded = round(value, digits) + 0.0  # no minus before a zero
    return f"{rounded:{'+' if signed else ''}.{digits}f}".replace("-", "−")


def number(value: float | None, digits: int = _DIGITS, *, signed: bool = False) -> Cell:
    """Return a cell with a number, or with a dash if there is none."""
    measured = value is not None and math.isfinite(value)
    return Cell(format_number(value, digits, signed=signed), value if measured else None)


def overview(results: Results) -> dict[str, Table]:
    """Return the tables of all methods that are not empty: main metrics, further ones, smoothed variants."""
    smoothed = results.ranked([key for key in results.keys if key[1] == SMOOTHED])
    oracle = [key for key in results.keys if key[0] == ORACLE]
    methods = results.ranked([key for key in results.keys if key not in smoothed + oracle])
    groups = {"": methods, "Oracle, looks at the measured counts of the test spots: not a method": oracle}
    tables = (
        _score_table(results, "overview", METRICS, groups),
        _score_table(results, "more-figures", MORE_METRICS, groups),
        _score_table(results, "smoothed", METRICS, {"": smoothed}),
    )
    return {table.name: table for table in tables if len(table.columns) > 2 and table.groups[""]}


def _score_table(
    results: Results, name: str, metrics: Sequence[Metric], groups: Mapping[str, list[Key]]
) -> Table:
    metrics = [metric for metric in metrics if results.measured(metric)]
    best = {metric: _best(results, groups[""], metric) for metric in metrics}
    columns = [Column("method", words=True), Column("variant", words=True)]
    columns += [
        Column(m.title, m.meaning, order="descending" if m.name == "pcc_acg" else "none") for m in metrics
    ]

    def row(key: Key) -> Row:
        method, variant = key
        title, description, _ = method_text(method)
        names = [Cell(title, hint=description), Cell(variant, hint=VARIANTS.get(variant, ""))]
        scores = [_score(results, key, metric, best[metric] == key) for metric in metrics]
        trusted = "trusted" if key in results.contenders else "further"
        return Row(names + scores, "trusted subject" if key == results.subject else trusted)

    return Table(name, columns, {title: [row(key) for key in keys] for title, keys in groups.items()})


def _score(results: Results, key: Key, metric: Metric, best: bool) -> Cell:
    """Return the mean over sections, and below it the spreads over sections and seeds."""
    cell = number(results.mean(key, metric))
    entry = results.entry(key, metric)
    if entry is None or cell.value is None:
        return cell
    spreads = [entry["sd"], entry.get("sd_seeds")] if results.several_seeds else [entry["sd"]]
    return replace(cell, below="± " + " | ".join(map(format_number, spreads)), best=best)


def _best(results: Results, keys: list[Key], metric: Metric) -> Key | None:
    position = _first_best([results.mean(key, metric) for key in keys], metric.better)
    return None if position is None else keys[position]


def _first_best(values: list[float], better: int) -> int | None:
    """Return the position of the best value, or None if no value is better or none was measured."""
    if better == 0 or len(values) < 2 or not np.isfinite(values).any():
        return None
    return int(np.nanargmax(better * np.asarray(values)))


def section_table(results: Results, metric: Metric) -> Table:
    """Return one metric for every test section and contender; the best of a section is bold."""
    by_fold = results.by_fold(metric.name, metric.space)
    keys = [key for key in results.contenders if key in by_fold]
    rows = []
    for fold in results.folds:
        cells = [number(float(by_fold[key][fold])) for key in keys]
        best = _first_best([float(by_fold[key][fold]) for key in keys], metric.better)
        cells = [replace(cell, best=position == best) for position, cell in enumerate(cells)]
        rows.append(Row([Cell(fold), Cell(results.patients[fold]), *cells]))
    columns = [Column("section", words=True), Column("patient", words=True)]
    columns += [Column(results.label(key), method_text(key[0])[1]) for key in keys]
    return Table(f"sections-{metric.name}", columns, {"": rows})


def gene_table(results: Results) -> Table:
    """Return the scores of the genes that the subject predicts best, beside those of its references."""
    genes, subject, per_gene = results.genes, results.subject, results.tables.per_gene
    order = genes["pcc", *subject].sort_values(ascending=False, na_position="last").index[:MAX_GENES]
    label = results.label(subject)
    every: dict[Hashable, Column] = {
        "mean": Column("mean truth", "Mean over the spots, in log10-spot units."),
        "ceiling": Column("noise ceiling", CEILING),
        ("pcc", *subject): Column(f"PCC {label}", "Mean over test sections and seeds.", order="descending"),
        **{
            ("pcc", *key): Column(f"PCC {results.label(key)}", "Mean over test sections and seeds.")
            for key in results.references
        },
        ("ssim", *subject): Column(f"SSIM {label}", "Structural similarity of the maps."),
        ("rvd", *subject): Column(f"RVD {label}", "Relative distance of the variances, 0 is best."),
    }
    columns = {name: c for name, c in every.items() if name in genes and genes[name].notna().any()}
    measured = per_gene.dropna(subset=["mean"]) if "mean" in per_gene else per_gene
    sections = measured.groupby("gene")["fold"].nunique()
    rows = [
        Row([
            Cell(str(gene)), *(number(float(genes[name][gene])) for name in columns),
            number(float(sections.get(gene, 0)), 0),
        ])
        for gene in order
    ]  # fmt: skip
    count = Column("sections", "In how many test sections the gene was considered.")
    return Table("genes", [Column("gene", words=True), *columns.values(), count], {"": rows})


def paired_table(results: Results) -> Table | None:
    """Return paired differences over test sections, the subject's first; None if only one method was run."""
    entries = {(d["method"], d["metric"], d["reference"]): d for d in results.summary["differences"]}
    if not entries:
        return None
    columns = [
        Column("method", words=True), Column("against", words=True), Column("figure", words=True),
        Column("difference", "Mean over the test sections, seeds averaged first."),
        Column("sd", "Standard deviation of the difference over the test sections."),
        Column("ratio", "Mean of the method over the mean of the reference."),
        Column("better in", "Test sections in which the method is ahead."),
        Column("n", "Test sections that are paired."),
        Column("p signed rank", "Wilcoxon's test, two-sided, not corrected for the number of comparisons."),
        Column("p t", "Paired t test, two-sided, not corrected for the number of comparisons."),
        Column("note", words=True),
    ]  # fmt: skip
    if common_note(results) is not None:
        columns = columns[:-1]
    groups: dict[str, list[Row]] = {results.label(results.subject): [], "Other methods": []}
    own, others = groups.values()
    for d in entries.values():
        rows = own if d["method"] == results.subject[0] else others
        rows.append(Row(_pair(results, d)[: len(columns)]))
    return Table("paired", columns, groups)


def common_note(results: Results) -> str | None:
    """Return the note that all paired differences share, or None if they differ."""
    notes = {d["note"] for d in results.summary["differences"]}
    return notes.pop() if len(notes) == 1 else None


def _pair(results: Results, d: dict[str, Any]) -> list[Cell]:
    titles = {metric.name: metric.title for metric in METRICS}

    def label(method: str) -> Cell:
        key = results.trusted_of(method)
        return Cell(method if key is None else results.label(key))

    return [
        label(d["method"]), label(d["reference"]), Cell(titles.get(d["metric"], d["metric"])),
        number(d["mean"], 4, signed=True), number(d["sd"], 4), number(d["ratio"]),
        Cell(f"{d['folds_better']} of {d['folds']}", float(d["folds_better"])), number(float(d["folds"]), 0),
        _p_value(d["p"]), _p_value(d["p_t"]), Cell(d["note"]),
    ]  # fmt: skip


def _p_value(value: float | None) -> Cell:
    return Cell("< 0.001", value) if value is not None and value < 0.001 else number(value)
