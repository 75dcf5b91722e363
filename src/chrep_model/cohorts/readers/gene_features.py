"""Select the genes among the features of a count matrix, and sum those of the same name."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from chrep_model.cohorts.findings import Finding
from chrep_model.cohorts.readers.matrix import Matrix
from chrep_model.errors import CohortError

if TYPE_CHECKING:
    from scipy import sparse

GENE_EXPRESSION = "Gene Expression"
# Names of control probes of Xenium, CosMx and MERSCOPE; some programs store them among the genes without
# their kind.
_CONTROLS = re.compile(
    r"(NegControl|NegPrb|Negative|BLANK|Blank[-_]|UnassignedCodeword|DeprecatedCodeword|antisense_"
    r"|Intergenic_Region|SystemControl|FalseCode)"
)


@dataclass(frozen=True, eq=False)
class GeneCounts:
    """Counts of genes, with the genes' names and ids.

    Attributes
    ----------
    counts : scipy.sparse.csr_matrix
        (n, G) float32, whole numbers >= 0, without stored zeros.
    genes : tuple of str
        Unique names of the genes.
    gene_ids : tuple of str or None
        Second names of the genes, usually Ensembl ids; None if the source has none.
    findings : tuple of Finding
        Notes on features that were dropped or summed.
    """

    counts: sparse.csr_matrix
    genes: tuple[str, ...]
    gene_ids: tuple[str, ...] | None
    findings: tuple[Finding, ...]


def gene_counts(matrix: Matrix) -> GeneCounts:
    """Keep the genes of a matrix, and add up the columns of genes with the same symbol.

    Raises
    ------
    CohortError
        No feature is a gene, or the values are not counts.
    """
    from scipy import sparse

    findings = []
    names = [name or (matrix.ids[i] if matrix.ids else "") for i, name in enumerate(matrix.names)]
    types = matrix.types or (GENE_EXPRESSION,) * len(names)
    kinds = ["controls" if _CONTROLS.match(name) else kind for name, kind in zip(names, types, strict=True)]
    keep = [i for i, kind in enumerate(kinds) if kind == GENE_EXPRESSION]
    if not keep:
        raise CohortError(
            f"none of the {len(names)} features is a gene ({', '.join(sorted(set(kinds)))})",
            path=matrix.path,
            remedy="Gene expression is needed: features of the type 'Gene Expression'.",
        )
    if len(keep) < len(names):
        others = Counter(kind for kind in kinds if kind != GENE_EXPRESSION)
        listed = ", ".join(f"{number:,} {kind}" for kind, number in sorted(others.items()))
        findings.append(Finding("ok", f"What is no gene was left out of the counts: {listed}."))
    _check_counts(matrix.counts.data, matrix.path)
    kept = [names[i] for i in keep]
    genes = tuple(dict.fromkeys(kept))
    column = {gene: number for number, gene in enumerate(genes)}
    onto = sparse.csr_matrix(
        (np.ones(len(keep), np.float32), (keep, [column[name] for name in kept])), (len(names), len(genes))
    )
    counts = sparse.csr_matrix(matrix.counts.astype(np.float32) @ onto)
    counts.sum_duplicates()
    counts.eliminate_zeros()
    ids = None
    if matrix.ids is not None:
        first = dict(zip(reversed(kept), (matrix.ids[i] for i in reversed(keep)), strict=True))
        ids = tuple(first[gene] for gene in genes)
    if len(genes) < len(kept):
        twice = [gene for gene, times in Counter(kept).items() if times > 1]
        shown = ", ".join(twice[:3]) + (", ..." if len(twice) > 3 else "")
        text = f"{len(twice):,} symbols name several genes ({shown}): their counts were summed"
        findings.append(Finding("ok", f"{text}, under the first Ensembl id."))
    return GeneCounts(counts, genes, None if ids == genes else ids, tuple(findings))


def _check_counts(data: np.ndarray, path: Path) -> None:
    wrong = None
    if data.dtype.kind not in "iufb":
        wrong = f"holds {data.dtype}, not numbers"
    elif data.size and data.dtype.kind == "f" and not np.isfinite(data).all():
        wrong = "has values that are NaN or infinite"
    elif data.size and data.min() < 0:
        wrong = f"has values below zero, down to {data.min():g}"
    elif data.dtype.kind == "f" and (data != np.floor(data)).any():
        wrong = f"has values that are not whole numbers, such as {data[data != np.floor(data)][0]:g}"
    if wrong:
        raise CohortError(
            f"the matrix {wrong}: these are not counts", path=path, remedy="Give the raw counts."
        )
