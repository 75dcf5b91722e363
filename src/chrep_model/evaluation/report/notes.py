"""The end of the report: paired tests, exclusions, definitions of all figures, references."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from chrep_model.evaluation.report.markup import Markup, join, tag
from chrep_model.evaluation.report.results import Results
from chrep_model.evaluation.report.tables import MISSING, Cell, Column, Rows, number, table
from chrep_model.evaluation.report.words import (
    CEILING,
    FIGURE_REFERENCES,
    FIGURES,
    MORE_FIGURES,
    SPACES,
    VARIANTS,
    method_words,
)
from chrep_model.methods.registry import find

_TITLES = {f.metric: f.title for f in FIGURES}


def paired(results: Results) -> Markup:
    """Return paired differences over test sections, the subject's first, then all other methods'."""
    entries = {(d["method"], d["metric"], d["reference"]): d for d in results.summary["differences"]}
    if not entries:
        return tag("p", "One method has nothing to be compared with.", class_="dim")
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
    notes = {d["note"] for d in entries.values()}
    shown = columns if len(notes) > 1 else columns[:-1]
    own = [d for d in entries.values() if d["method"] == results.subject[0]]
    rest = [d for d in entries.values() if d["method"] != results.subject[0]]
    groups = [
        Rows([(None, _pair(results, d)[: len(shown)]) for d in found], title)
        for found, title in ((own, results.label(results.subject)), (rest, "Other methods"))
    ]
    caption = (
        "Of the variant to trust of each method, against ridge, trees, the best published rival and the best "
        "of all others. A difference above 0 is good for correlations and bad for errors."
    )
    if len(notes) == 1 and (note := notes.pop()):
        caption += f" {note[0].upper()}{note[1:]}."
    return tag("div", table(shown, groups, name="paired", caption=caption), class_="tall")


def _pair(results: Results, d: dict[str, Any]) -> list[Cell]:
    def label(method: str) -> Cell:
        key = results.trusted_of(method)
        return Cell(method if key is None else results.label(key))

    better = Cell(f"{d['folds_better']} of {d['folds']}", float(d["folds_better"]))
    return [
        label(d["method"]), label(d["reference"]), Cell(_TITLES.get(d["metric"], d["metric"])),
        number(_number(d["mean"]), 4, signed=True), number(_number(d["sd"]), 4),
        number(_number(d["ratio"]), 3), better, number(float(d["folds"]), 0),
        _p(d["p"]), _p(d["p_t"]), Cell(d["note"]),
    ]  # fmt: skip


def _p(value: float | None) -> Cell:
    return Cell("< 0.001", value) if value is not None and value < 0.001 else number(_number(value), 3)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def left_out(results: Results) -> Markup:
    """Return which genes and predictions are excluded or count as zero, section by section."""
    lines = [
        join(
            "Genes that do not vary over the spots of a test section have no correlation there and are left "
            "out of its means: ", _by_section(results, "genes_without_truth"), ".",
        ),
        *_not_measured(results),
        "Genes that vary but are predicted as constant count as a correlation of zero, because leaving them "
        "out would reward saying nothing: " + _constants(results),
        "No spot is dropped: every spot that the file of a test section holds is scored.",
    ]  # fmt: skip
    if results.intervals.empty:
        lines.append("No method gave prediction intervals.")
    if results.maps.empty:
        lines.append("No maps were kept.")
    return tag("ul", *(tag("li", line) for line in lines))


def _not_measured(results: Results) -> list[str]:
    """Return lines on genes that sections did not measure, if any."""
    counts = pd.DataFrame(results.by_fold("genes_not_measured"))
    if not counts.size or not (counts > 0).any(axis=None):
        return []
    return [
        "Genes that a test section did not measure, because its table does not list them, take part in none "
        f"of its figures: {_by_section(results, 'genes_not_measured')}."
    ]


def _by_section(results: Results, metric: str) -> str:
    counts = pd.DataFrame(results.by_fold(metric)).max(axis=1)
    return ", ".join(f"{fold} {MISSING if math.isnan(n) else int(n)}" for fold, n in counts.items())


def _constants(results: Results) -> str:
    means = {key: float(n.mean()) for key, n in results.by_fold("genes_without_prediction").items()}
    found = [f"{results.label(key)} {n:.4g}" for key, n in means.items() if n > 0]
    return ", ".join(found) + " genes per section." if found else "there were none."


def definitions(results: Results) -> Markup:
    """Return the definition of every figure, space, variant and method on the page."""
    figures = [f for f in FIGURES + MORE_FIGURES if results.measured(f)]
    meanings = [(f.title, f.meaning) for f in figures]
    if "ceiling" in results.per_gene:
        meanings.append(("noise ceiling", CEILING))
    variants = {v: VARIANTS[v] for _, v in results.keys if v in VARIANTS}
    methods = [words for m in results.trusted if (words := method_words(m))[1]]
    blocks = (
        ("Figures", meanings), ("Spaces", list(SPACES.items())), ("Variants", list(variants.items())),
        ("Methods", methods),
    )  # fmt: skip
    return join(
        *(
            join(
                tag("h3", title),
                tag("dl", *(join(tag("dt", k), tag("dd", v)) for k, v in pairs), class_="terms"),
            )
            for title, pairs in blocks
            if pairs
        )
    )


def references(results: Results) -> Markup:
    """Return where the methods and figures were published."""
    found = dict.fromkeys(m.reference for name in results.trusted if (m := find(name)) and m.reference)
    found |= dict.fromkeys(
        FIGURE_REFERENCES[f.metric] for f in FIGURES if f.metric in FIGURE_REFERENCES and results.measured(f)
    )
    return tag("ul", *(tag("li", line) for line in found)) if found else Markup()
