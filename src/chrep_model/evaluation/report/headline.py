"""The head of the page: what was compared, who leads and by how much, and what that does not show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from chrep_model.evaluation.oracle import ORACLE
from chrep_model.evaluation.report.markup import Markup, join, tag
from chrep_model.evaluation.report.results import Key, Results, kind_of
from chrep_model.evaluation.report.tables import written
from chrep_model.evaluation.report.words import FIGURES, Figure
from chrep_model.evaluation.summary import HEADLINE

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
    alone = len(results.speaking) == 1
    said = join(
        f"{'Mean' if alone else 'Highest mean'} correlation over all genes on "
        f"{_count(len(results.folds), 'section')} kept out of training: ",
        tag("b", results.label(leader)), f" with {_spread(results, leader)}.",
        "" if alone else _further(results, leader),
    )  # fmt: skip
    if leader == subject:
        return said
    rank = f", rank {results.contenders.index(subject) + 1} of {len(results.contenders)}."
    return join(said, " ", tag("b", results.label(subject)), f" has {_spread(results, subject)}{rank}")


def _spread(results: Results, key: Key) -> str:
    entry = results.entry(key, HEADLINE[0])
    mean = written(results.mean(key, HEADLINE[0]), 3)
    return mean if entry is None or entry["sd"] is None else f"{mean} ± {entry['sd']:.3f}"


def _further(results: Results, leader: Key) -> str:
    """Who is best in the further figures."""
    further = [f for f in FIGURES if f.metric in HEADLINE[1:] and results.measured(f)]
    leaders = {figure.title: _leader(results, figure) for figure in further}
    same = [title for title, key in leaders.items() if key == leader]
    rest = [f" Best in {title}: {results.label(key)}." for title, key in leaders.items() if key != leader]
    return (f" It is best in {_listed(same)} as well." if same else "") + "".join(rest)


def _leader(results: Results, figure: Figure) -> Key:
    return max(results.speaking, key=lambda key: figure.better * results.mean(key, figure.metric))


def _card(results: Results, key: Key) -> Markup:
    """The subject against one reference."""
    lines: list[object] = []
    for figure in (f for f in FIGURES if f.metric in HEADLINE):
        found = results.difference(results.subject, key, figure.metric)
        if found is None and key == results.rival:  # in this figure another rival is the best
            found = results.difference_to_rival(results.subject, figure.metric)
        if found is None or found["mean"] is None:
            continue
        ratio = "" if found["ratio"] is None else f", × {found['ratio']:.3f}"
        ahead = f", ahead in {found['folds_better']} of {_count(found['folds'], 'section')}"
        difference = written(found["mean"], 4, signed=True)
        if figure.metric == HEADLINE[0]:
            lines += [tag("p", difference, class_="big"), tag("p", f"{figure.title}{ratio}{ahead}")]
        else:
            other = results.trusted_of(found["reference"])
            whom = "" if other is None or other == key else f" (against {results.label(other)})"
            lines.append(tag("p", f"{figure.title} {difference}{ratio}{whom}"))
    best = ", the best published rival" if key == results.rival else ""
    title = f"{results.label(results.subject)} against {results.label(key)}{best}"
    return tag("div", tag("h3", title), *lines)


def _without_rival(results: Results) -> Markup:
    if results.rival is not None or kind_of(results.subject) == "rival":
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
        "training sections of each fold; the section left out was opened for scoring alone. Settings that "
        "were given, or left at their defaults, are the same in all folds. All methods read the same "
        f"features, folds and genes.{given}"
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
    elif settings["split"] == "section" and (max(patients.values()) > 1 or settings.get("test_sections")):
        yield (
            "While a section is left out, other sections of the same patient may stay in training. On a new "
            "patient expect less; leave out whole patients to measure it."
        )
    yield from _small_lead(results)
    oracle = results.trusted_of(ORACLE)
    if oracle is not None:
        yield (
            "The total counts of a test spot, which no image gives, would reach PCC (ACG) "
            f"{written(results.mean(oracle, HEADLINE[0]), 3)} on their own. A correlation that does not "
            "exceed this one may be no more than a guess of how many molecules a spot yields."
        )
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
    lead = results.difference(first, second)
    if lead is not None and lead["sd"] is not None and lead["mean"] < lead["sd"]:
        yield (
            f"The lead of {results.label(first)} over {results.label(second)} "
            f"({written(lead['mean'], 4, signed=True)}) is smaller than its own spread over the test "
            f"sections (± {lead['sd']:.4f})."
        )


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _few(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
