"""Check that sections and models use the same kind of gene names."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from chrep_model.cohorts.findings import Finding, Level
from chrep_model.cohorts.matching import share_names
from chrep_model.cohorts.section import Section
from chrep_model.cohorts.tables.names import ENSEMBL


def compare_genes(
    genes: Collection[str], others: Collection[str], whose: str, *, level: Level = "error"
) -> Finding | None:
    """Return a finding if two sets of genes have too few names in common, else None.

    Parameters
    ----------
    genes : collection of str
        Gene names of a section.
    others : collection of str
        Gene names of another section or of a model.
    whose : str
        Owner of the other names, such as "section C2" or "the model in use".
    level : {"ok", "warning", "error"}
        Level of the finding.

    Returns
    -------
    Finding or None
        None if at least half of the smaller set is also in the larger one.
    """
    if share_names(genes, others):
        return None
    shared, least = len(set(genes) & set(others)), min(len(set(genes)), len(set(others)))
    return Finding(
        level,
        f"Of {least:,} genes only {shared:,} are also genes of {whose}: here they are {_naming(genes)}, "
        f"there {_naming(others)}.",
        "Use the same kind of gene names (symbols or Ensembl ids, same species) in all files.",
    )


def between_sections(sections: Sequence[Section]) -> Iterator[tuple[str, Finding]]:
    """Yield a finding for each section whose gene names differ in kind from those of most sections."""
    alike: list[list[Section]] = []
    for section in sections:
        group = next((group for group in alike if share_names(section.genes, group[0].genes)), None)
        if group is None:
            alike.append([section])
        else:
            group.append(section)
    if len(alike) < 2:
        return
    most = max(alike, key=len)[0]
    for group in alike:
        for section in group:
            finding = compare_genes(section.genes, most.genes, f"section {most.name}")
            if finding is not None:
                yield section.name, finding


def _naming(genes: Collection[str]) -> str:
    example = next(iter(genes))
    kind = "Ensembl ids" if ENSEMBL.match(example) else "names"
    return f"{kind} like {example}"
