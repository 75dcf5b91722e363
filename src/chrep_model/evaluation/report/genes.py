"""The sortable and searchable table of genes."""

from __future__ import annotations

from chrep_model.evaluation.report.markup import Markup, field, join, tag
from chrep_model.evaluation.report.results import Results
from chrep_model.evaluation.report.tables import Cell, Column, Rows, number, table
from chrep_model.evaluation.report.words import CEILING

MOST = 200
"""Genes in the page at most."""


def gene_table(results: Results) -> Markup:
    """Return the table of genes: correlations of the subject and its references, best first, searchable."""
    genes, subject = results.genes, results.subject
    order = genes["pcc", *subject].sort_values(ascending=False, na_position="last").index[:MOST]
    label = results.label(subject)
    shown = [
        (Column("mean truth", "Mean over the spots, in log10-spot units."), "mean"),
        (Column("noise ceiling", CEILING), "ceiling"),
        (Column(f"PCC {label}", "Mean over test sections and seeds.", order="descending"), ("pcc", *subject)),
        *(
            (Column(f"PCC {results.label(key)}", "Mean over test sections and seeds."), ("pcc", *key))
            for key in results.references
        ),
        (Column(f"SSIM {label}", "Structural similarity of the maps."), ("ssim", *subject)),
        (Column(f"RVD {label}", "Relative distance of the variances, 0 is best."), ("rvd", *subject)),
    ]
    shown = [(column, name) for column, name in shown if name in genes and genes[name].notna().any()]
    measured = results.per_gene.dropna(subset=["mean"]) if "mean" in results.per_gene else results.per_gene
    sections = measured.groupby("gene")["fold"].nunique()
    rows: list[tuple[str | None, list[Cell]]] = []
    for gene in order:
        cells = [number(float(genes[name][gene]), 3) for _, name in shown]
        rows.append((None, [Cell(str(gene)), *cells, number(float(sections.get(gene, 0)), 0)]))
    columns = [
        Column("gene", words=True), *(column for column, _ in shown),
        Column("sections", "In how many test sections the gene was considered."),
    ]  # fmt: skip
    kept = f"All {len(genes)} genes" if len(genes) <= MOST else f"The {MOST} of {len(genes)} genes"
    caption = f"{kept}{'' if len(genes) <= MOST else f' with the highest correlation under {label}'}."
    search = tag(
        "p",
        tag(
            "label",
            "Find a gene ",
            field("input", type="search", data_filters="genes", placeholder="part of its name"),
        ),
        " ",
        tag("output", "", data_counts="genes"),
        class_="needs-script",
    )
    rest = "" if len(genes) <= MOST else tag("p", "All genes stand in per_gene.parquet.", class_="dim")
    return join(
        search, tag("div", table(columns, [Rows(rows)], name="genes", caption=caption), class_="tall"), rest
    )
