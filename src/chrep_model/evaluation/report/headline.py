"""The head of the page: what was compared, who leads and by how much, and what that does not show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from chrep_model.evaluation.report.markup import Markup, join, tag
from chrep_model.evaluation.report.results import Key, Results
from chrep_model.evaluation.report.tables import written
from chrep_model.evaluation.report.words import RIVALS

_FEWEST = 6
"""Pairs below which a two-sided signed-rank test cannot give p < 0.05, as 2 / 2**5 = 0.0625."""


def headline(results: Results) -> Markup:
    """Title, facts, the lead, the differences that matter, and the caveats."""
    return tag(
        "header",
        tag("h1", "Gene expression from H&E: how well it is predicted"),
        tag("p", _lead(results), class_="lead"),
        tag("div", *(_card(results, key) for key in results.references), class_="cards"),
        _without_rival(results),
        tag("dl", *_facts(results), class_="facts"),
        tag("p", _chosen(results)),
        tag("h2", "What these figures do not show"),
        tag("ul", *(tag("li", caveat) for caveat in _caveats(results)), class_="caveats"),
    )


def _lead(results: Results) -> Markup:
    if not results.speaking:
        return Markup("Only constant predictions were compared, which correlate with nothing.")
    leader, subject = results.speaking[0], results.subject
    sections = _count(len(results.folds), "section")
    said = join(
        tag("b", results.label(leader)),
        f" {'reaches a' if len(results.speaking) == 1 else 'has the highest'} mean correlation over all "
        f"genes on {sections} kept out of training: {_spread(results, leader)}.",
    )
    if leader == subject:
        return said
    rank = results.contenders.index(subject) + 1
    second = f" stands at {_spread(results, subject)}, rank {rank} of {len(results.contenders)}."
    return join(said, " ", tag("b", results.label(subject)), second)


def _spread(results: Results, key: Key) -> str:
    entry = results.entry(key, "pcc_acg")
    mean = written(results.mean(key, "pcc_acg"), 3)
    return mean if entry is None or entry["sd"] is None else f"{mean} ± {entry['sd']:.3f}"


def _card(results: Results, key: Key) -> Markup:
    """The subject against one reference."""
    correlation = results.compare(results.subject, key)
    lines = [
        f"PCC (ACG){_ratio(correlation.ratio)}, ahead in {correlation.better} of "
        f"{_count(correlation.folds, 'section')}"
    ]
    for metric, title in (("pcc_heg50", "PCC (HEG50)"), ("mse", "MSE"), ("mae", "MAE")):
        if results.entry(key, metric):
            found = results.compare(results.subject, key, metric)
            lines.append(f"{title} {written(found.difference, 4, signed=True)}{_ratio(found.ratio)}")
    return tag(
        "div",
        tag("h3", f"{results.label(results.subject)} against {results.label(key)}"),
        tag("p", written(correlation.difference, 4, signed=True), class_="big"),
        *(tag("p", line) for line in lines),
    )


def _ratio(value: float) -> str:
    return f", × {value:.3f}" if np.isfinite(value) else ""


def _without_rival(results: Results) -> Markup:
    if results.rival is not None or results.subject[0] in RIVALS:
        return Markup()
    return tag("p", "No method published by others was run.", class_="dim")


def _facts(results: Results) -> Iterator[Markup]:
    settings = results.summary["settings"]
    genes = settings["genes"]
    patients = sorted(set(results.patients.values()))
    context = ", ".join(f"{float(um):g}" for um in settings["context_um"])
    facts = {
        "Cohort": results.summary["cohort"],
        "Test sections": f"{len(results.folds)}, of {_count(len(patients), 'patient')} ({_few(patients)})",
        "Left out in turn": f"one {settings['split']}",
        "Genes": f"{genes} chosen in every fold" if isinstance(genes, int) else f"{len(genes)}, a given list",
        "Encoder": f"{settings['encoder']} ({results.summary['encoder_id']})",
        "Tiles": f"{float(settings['tile_um']):g} µm"
        + (f", with means over {context} µm" if context else ""),
        "Seeds": settings["seeds"],
    }
    for name, value in facts.items():
        yield tag("div", tag("dt", name), tag("dd", value))


def _chosen(results: Results) -> str:
    listed = not isinstance(results.summary["settings"]["genes"], int)
    chosen = "Standardisation" if listed else "Genes, their standardisation"
    given = (
        " The genes are a given list; whether it was drawn up in view of the test sections is not known here."
        if listed
        else ""
    )
    return (
        f"{chosen}, gallery, penalties, neighbourhoods, calibration and every other choice were made on the "
        "training sections of each fold; the section left out was opened for scoring alone. All methods read "
        f"the same features, folds and genes.{given}"
    )


def _caveats(results: Results) -> Iterator[str]:
    settings, folds = results.summary["settings"], len(results.folds)
    if folds < _FEWEST:
        yield (
            f"With {_count(folds, 'test section')} no paired test can fall below p = 0.05 (the smallest "
            f"two-sided p of a signed-rank test is {min(1.0, 2 / 2**folds):.3g}): read in how many sections "
            "a method is ahead."
        )
    patients = Counter(results.patients.values())
    if len(patients) == 1 and folds > 1:
        yield (
            f"All test sections are of one patient ({next(iter(patients))}) and near-replicates of each "
            "other: the figures say how well the next section of a known tissue is predicted, not a new "
            "patient."
        )
    elif settings["split"] == "section" and max(patients.values()) > 1:
        yield (
            "While a section is left out, other sections of the same patient stay in training. On a new "
            "patient expect less; leave out whole patients to measure it."
        )
    yield from _small_lead(results)
    if settings["seeds"] == 1:
        yield "One seed only: how far chance alone moves a figure was not measured."
    yield (
        "Errors and correlations compare within this page. Published values for other genes, other "
        "normalisations or other sections do not."
    )


def _small_lead(results: Results) -> Iterator[str]:
    if len(results.speaking) < 2:
        return
    first, second = results.speaking[:2]
    lead = results.compare(first, second)
    if lead.folds > 1 and lead.difference < lead.sd:
        yield (
            f"The lead of {results.label(first)} over {results.label(second)} "
            f"({written(lead.difference, 4, signed=True)}) is smaller than its own spread over the test "
            f"sections (± {lead.sd:.4f})."
        )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _few(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
