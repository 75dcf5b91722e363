"""Rendering of the report as one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from chrep_model.cohorts.section import Section
from chrep_model.evaluation.oracle import ORACLE
from chrep_model.evaluation.report import gene_maps, glossary, score_plots, score_tables, sentences
from chrep_model.evaluation.report.results import Results
from chrep_model.evaluation.scoring import MAP_CANDIDATES
from chrep_model.evaluation.summary import FEWEST_PAIRS
from chrep_model.evaluation.tables import MAPPED, Tables


def write_report(path: Path, tables: Tables, summary: dict[str, Any], slides: Sequence[Section] = ()) -> None:
    """Write the report: one HTML file that loads nothing, for the screen (light and dark) and for paper.

    Parameters
    ----------
    path : Path
        HTML file.
    tables, summary : Tables, dict
        As in `benchmark.Summary`.
    slides : sequence of Section
        Sections whose slides are shown beside the maps.
    """
    results = Results(tables, summary, {section.name: section for section in slides})
    environment = Environment(
        loader=PackageLoader("chrep_model.evaluation.report", ""), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    page = environment.get_template("report.html.j2").render(
        results=results,
        count=sentences.count,
        mean_and_sd=sentences.mean_and_sd,
        further_leads=sentences.further_leads,
        comparisons=[sentences.comparison(results, key) for key in results.references],
        facts=sentences.facts(results),
        counts_by_section=sentences.counts_by_section,
        constant_predictions=sentences.constant_predictions,
        format_number=score_tables.format_number,
        fewest_pairs=FEWEST_PAIRS,
        oracle=ORACLE,
        overview=score_tables.overview(results),
        section_tables=[
            (metric, score_tables.section_table(results, metric)) for metric in score_plots.METRICS_BY_SECTION
        ],
        genes=score_tables.gene_table(results),
        max_genes=score_tables.MAX_GENES,
        paired=score_tables.paired_table(results),
        paired_note=score_tables.common_note(results),
        section_dots=score_plots.section_dots(results),
        gene_scatter=score_plots.gene_scatter(results),
        interval_curves=score_plots.interval_curves(results),
        maps=gene_maps.gene_maps(results),
        mapped=MAPPED,
        map_candidates=MAP_CANDIDATES,
        variants=glossary.VARIANTS,
        definitions=_definitions(results),
        references=_references(results),
    )
    path.write_text(page, encoding="utf-8")


def _definitions(results: Results) -> dict[str, dict[str, str]]:
    """Return the terms on the page and their meanings, by kind."""
    metrics = [m for m in glossary.METRICS + glossary.MORE_METRICS if results.measured(m)]
    ceiling = {"noise ceiling": glossary.CEILING} if "ceiling" in results.tables.per_gene else {}
    methods = [glossary.method_text(method) for method in results.trusted]
    return {
        "Figures": {metric.title: metric.meaning for metric in metrics} | ceiling,
        "Spaces": glossary.SPACES,
        "Variants": {v: glossary.VARIANTS[v] for _, v in results.keys if v in glossary.VARIANTS},
        "Methods": {title: description for title, description, _ in methods if description},
    }


def _references(results: Results) -> list[str]:
    """Return where the methods and metrics were published."""
    found = [glossary.method_text(method)[2] for method in results.trusted]
    found += [metric.reference for metric in glossary.METRICS if results.measured(metric)]
    return list(dict.fromkeys(filter(None, found)))
