"""The page as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd

from chrep_model.cohorts.section import Section
from chrep_model.evaluation.report import figures, notes
from chrep_model.evaluation.report.genes import gene_table
from chrep_model.evaluation.report.headline import headline
from chrep_model.evaluation.report.maps import maps
from chrep_model.evaluation.report.markup import Markup, field, join, tag
from chrep_model.evaluation.report.overview import overview, sections
from chrep_model.evaluation.report.results import Results
from chrep_model.evaluation.tables import INTERVAL_COLUMNS, MAP_COLUMNS


def write_report(
    path: Path,
    table: pd.DataFrame,
    per_gene: pd.DataFrame,
    summary: dict[str, Any],
    maps: pd.DataFrame | None = None,
    intervals: pd.DataFrame | None = None,
    slides: Sequence[Section] = (),
) -> None:
    """Write the page: one HTML file that loads nothing, for the screen (light and dark) and for paper.

    Parameters
    ----------
    path : Path
        HTML file.
    table, per_gene, summary : DataFrame, DataFrame, dict
        As in `benchmark.Summary`.
    maps : DataFrame, optional
        A few genes spot by spot, columns `tables.MAP_COLUMNS`: positions in µm, values in log10-spot units.
    intervals : DataFrame, optional
        Prediction intervals by nominal level, columns `tables.INTERVAL_COLUMNS`: coverage as a share, width
        in log10-spot units.
    slides : sequence of Section
        Those whose slides are shown beside the maps.
    """
    results = Results(
        table, per_gene, summary,
        pd.DataFrame(columns=list(MAP_COLUMNS)) if maps is None else maps,
        pd.DataFrame(columns=list(INTERVAL_COLUMNS)) if intervals is None else intervals,
        {section.name: section for section in slides},
    )  # fmt: skip
    path.write_text(page(results), encoding="utf-8")


def page(results: Results) -> str:
    """Return the page as HTML."""
    parts = {name: (title, content) for name, title, content in _parts(results) if content}
    links = (tag("a", title, href=f"#{name}") for name, (title, _) in parts.items())
    head = tag(
        "head",
        field("meta", charset="utf-8"),
        field("meta", name="viewport", content="width=device-width, initial-scale=1"),
        field("meta", name="color-scheme", content="light dark"),
        tag("title", f"Evaluation: {results.summary['cohort']}"),
        tag("style", _file("report.css")),
    )
    body = tag(
        "body",
        tag("nav", *links, aria_label="Parts of this page"),
        tag(
            "main",
            headline(results),
            *(tag("section", tag("h2", title), content, id=name) for name, (title, content) in parts.items()),
        ),
        tag("script", _file("report.js")),
    )
    return "<!doctype html>\n" + tag("html", head, body, lang="en")


def _parts(results: Results) -> list[tuple[str, str, Markup]]:
    """Anchor, title and content of every part; what was not measured is empty."""
    by_section = [sections(results, figure) for figure in figures.SHOWN_BY_SECTION]
    more = tag("details", tag("summary", "HEG50 and MSE by section"), *by_section[1:])
    return [
        ("all", "All methods", overview(results)),
        ("by-section", "Section by section", join(figures.dots(results), by_section[0], more)),
        ("by-gene", "Gene by gene", join(figures.gene_scatter(results), gene_table(results))),
        ("maps", "Maps", maps(results)),
        ("intervals", "Prediction intervals", figures.calibration(results)),
        ("tests", "Paired differences", notes.paired(results)),
        ("left-out", "What was left out", notes.left_out(results)),
        ("definitions", "What the words mean", notes.definitions(results)),
        ("references", "References", notes.references(results)),
    ]


def _file(name: str) -> Markup:
    """A style sheet or script of the package, as it stands."""
    return Markup(files(__package__).joinpath(name).read_text(encoding="utf-8"))
