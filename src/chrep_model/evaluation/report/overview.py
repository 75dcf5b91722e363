"""The tables of the scores: over all test sections, and section by section."""

from __future__ import annotations

import numpy as np

from chrep_model.evaluation.oracle import ORACLE
from chrep_model.evaluation.report.markup import Markup, join, tag
from chrep_model.evaluation.report.results import Key, Results
from chrep_model.evaluation.report.tables import MISSING, Cell, Column, Rows, number, table, written
from chrep_model.evaluation.report.words import FIGURES, MORE_FIGURES, VARIANTS, Figure, method_words
from chrep_model.evaluation.scoring import SMOOTHED

DIGITS = 3
"""Behind the point of a score."""


def overview(results: Results) -> Markup:
    """Every method and variant with every figure: the oracle at the end, smoothed rows in a table apart."""
    smoothed = [key for key in results.keys if key[1] == SMOOTHED]
    oracle = [key for key in results.keys if key[0] == ORACLE]
    ranked = [key for key in results.keys if key not in smoothed + oracle]
    smoothed, ranked = (
        sorted(keys, key=lambda key: -np.nan_to_num(results.mean(key, "pcc_acg"), nan=-1.0))
        for keys in (smoothed, ranked)
    )
    rows = [(ranked, ""), (oracle, "Oracle, looks at the measured counts of the test spots: not a method")]
    more = _scores(results, MORE_FIGURES, rows, "more-figures")
    apart = _scores(results, FIGURES, [(smoothed, "")], "smoothed")
    title = "After smoothing every prediction over neighbouring spots"
    return join(
        _scores(results, FIGURES, rows, "overview"),
        tag("details", tag("summary", "More figures"), more) if more else "",
        tag("details", tag("summary", title), tag("p", VARIANTS[SMOOTHED]), apart) if apart else "",
    )


def _scores(
    results: Results, wanted: tuple[Figure, ...], groups: list[tuple[list[Key], str]], name: str
) -> Markup:
    """The figures of the first group, where the best of a column is bold, and of those below it."""
    figures = [f for f in wanted if results.measured(f)]
    first = groups[0][0]
    if not figures or not first:
        return Markup()
    best = {figure: _best(results, first, figure) for figure in figures}

    def rows(keys: list[Key]) -> list[tuple[str | None, list[Cell]]]:
        return [
            (_class(results, key), _names(results, key) + [
                _cell(results, key, figure, best[figure] == key) for figure in figures
            ])
            for key in keys
        ]  # fmt: skip

    columns = [Column("method", words=True), Column("variant", words=True)]
    columns += [
        Column(f.title, f.meaning, order="descending" if f.metric == "pcc_acg" else "none") for f in figures
    ]
    seeds = " | over seeds" if results.several_seeds else ""
    caption = join(
        f"Mean over the test sections; below it ± the standard deviation over sections{seeds}. ",
        tag("b", "Bold"), ": best of a column.",
        " Shaded: the variant of a method to trust." if set(first) & set(results.contenders) else "",
    )  # fmt: skip
    return table(columns, [Rows(rows(keys), title) for keys, title in groups], name=name, caption=caption)


def sections(results: Results, figure: Figure) -> Markup:
    """One figure for every test section and contender; the best of a section is bold."""
    by_fold = results.by_fold(figure.metric, figure.space)
    keys = [key for key in results.contenders if key in by_fold]
    rows: list[tuple[str | None, list[Cell]]] = []
    for fold in results.folds:
        values = [float(by_fold[key][fold]) for key in keys]
        best = _first_best(values, figure.better)
        cells = [Cell(fold), Cell(results.patients[fold])]
        for position, value in enumerate(values):
            cell = number(value, DIGITS)
            cells.append(Cell(tag("b", cell.shown), cell.value) if position == best else cell)
        rows.append((None, cells))
    columns = [Column("section", words=True), Column("patient", words=True)]
    columns += [Column(results.label(key), method_words(key[0])[1]) for key in keys]
    name = f"sections-{figure.metric}"
    return table(
        columns, [Rows(rows)], name=name, caption=f"{figure.title} by test section: {figure.meaning}"
    )


def _class(results: Results, key: Key) -> str | None:
    if key == results.subject:
        return "trusted subject"
    return "trusted" if key in results.contenders else "further"


def _names(results: Results, key: Key) -> list[Cell]:
    method, variant = key
    name, what = method_words(method)
    return [
        Cell(tag("span", name, title=what or None)),
        Cell(tag("span", variant, title=VARIANTS.get(variant))),
    ]


def _cell(results: Results, key: Key, figure: Figure, best: bool) -> Cell:
    entry = results.entry(key, figure.metric, figure.space)
    if entry is None:
        return Cell(MISSING)
    value = number(results.mean(key, figure.metric, figure.space), DIGITS)
    spreads = [entry["sd"], entry.get("sd_seeds")] if results.several_seeds else [entry["sd"]]
    below = tag("small", "± ", " | ".join(map(_spread, spreads))) if value.value is not None else ""
    return Cell(join(tag("b" if best else "span", value.shown), below), value.value)


def _spread(value: float | None) -> str:
    return MISSING if value is None else written(value, DIGITS)


def _best(results: Results, keys: list[Key], figure: Figure) -> Key | None:
    position = _first_best([results.mean(key, figure.metric, figure.space) for key in keys], figure.better)
    return None if position is None else keys[position]


def _first_best(values: list[float], better: int) -> int | None:
    """Position of the best value; none where nothing is better, or nothing measured."""
    if better == 0 or len(values) < 2 or not np.isfinite(values).any():
        return None
    return int(np.nanargmax(better * np.asarray(values)))
