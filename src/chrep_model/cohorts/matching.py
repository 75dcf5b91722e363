"""Rename the genes of a section to the names that a model or another section uses.

Some files name genes by symbol, others by Ensembl id, with or without a version. Most files hold both, so
that their genes can be matched.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from chrep_model.cohorts.findings import Finding
from chrep_model.cohorts.tables.names import are_ensembl, sum_columns, without_version

if TYPE_CHECKING:
    from chrep_model.cohorts.section import Section

#: Share of the smaller set of genes; with fewer in common, the two sets use different kinds of names.
MIN_SHARED = 0.5


def share_names(genes: Collection[str], others: Collection[str]) -> bool:
    """Return whether at least half of the smaller set of genes is also in the larger one."""
    mine, theirs = set(genes), set(others)
    return len(mine & theirs) >= MIN_SHARED * min(len(mine), len(theirs))


def matched(section: Section, genes: Sequence[str], ids: Sequence[str] | None, whose: str) -> Section:
    """Return a section with its genes renamed as in `genes`, matched by name or id.

    Parameters
    ----------
    section : Section
    genes : sequence of str
        The names to use: those of a model or of another section.
    ids : sequence of str or None
        Second names of `genes`, empty where unknown.
    whose : str
        Owner of the names, such as "section C2", for the finding.

    Returns
    -------
    Section
        Unchanged if the names agree already, or cannot be matched.
    """
    if share_names(section.genes, genes):
        return section
    wanted: dict[str, str] = {}
    for name, gene in (*zip(genes, genes, strict=True), *zip(ids or (), genes, strict=False)):
        if name:
            wanted.setdefault(without_version(name), gene)
    others = section.gene_ids or ("",) * len(section.genes)
    unique = {name for name, count in Counter(others).items() if name and count == 1}
    by_symbol = are_ensembl(section.genes) and not are_ensembl(genes)
    names = tuple(
        wanted.get(without_version(name))
        or wanted.get(without_version(other))
        or (other if by_symbol and other in unique else name)
        for name, other in zip(section.genes, others, strict=True)
    )
    if not share_names(names, genes):
        return section
    before = [
        name if name != new else other for name, new, other in zip(section.genes, names, others, strict=True)
    ]
    joined, counts, first = (
        (names, section.counts, range(len(names)))
        if len(set(names)) == len(names)
        else sum_columns(names, section.counts)
    )
    text = f"Its genes are called as in {whose} ({joined[0]} for {before[first[0]]})."
    return replace(
        section,
        genes=joined,
        counts=counts,
        gene_ids=tuple(before[i] for i in first),
        findings=(*section.findings, Finding("ok", text)),
    )


def with_shared_names(sections: Sequence[Section]) -> tuple[Section, ...]:
    """Rename the genes so that all sections use the same kind of names: symbols if any section has them."""
    like = next((section for section in sections if not are_ensembl(section.genes)), sections[0])
    return tuple(
        section if section is like else matched(section, like.genes, like.gene_ids, f"section {like.name}")
        for section in sections
    )
