"""Names of spots and genes in a table: clean-up, second names such as ids, and sums over repeated names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from chrep_model.cohorts.findings import Finding
from chrep_model.errors import CohortError

if TYPE_CHECKING:
    from scipy import sparse

# Columns of var with second names of the genes, in lower case without separators.
ID_COLUMNS = ("geneids", "ensemblid", "ensemblgeneid", "featureid", "geneid", "ensembl", "ensg")
SYMBOL_COLUMNS = (
    *("genesymbols", "genesymbol", "featurename", "genename", "genenames", "symbol", "symbols"),
    *("hgncsymbol", "genesname", "geneshortname"),
)
ENSEMBL = re.compile(r"ENS[A-Z]*G\d{6,}")
#: With a larger share of columns under repeated names, the names are assumed to be wrong.
_MOST_REPEATED = 0.10


def plain(column: str) -> str:
    """Return a column's name in lower case without separators, for comparing."""
    return "".join(letter for letter in column.lower() if letter.isalnum())


def texts(values: Any) -> tuple[str, ...]:
    """Convert a stored column of any kind to texts; missing values become empty."""
    column = np.asarray(values, dtype=object).ravel()
    return tuple(
        value.decode() if isinstance(value, bytes) else "" if value is None or value != value else str(value)
        for value in column
    )


def unique_spots(values: Any, path: Path) -> tuple[str, ...]:
    """Return the names of the spots; CohortError if one occurs twice."""
    names = texts(values)
    if repeated := _repeated(names):
        raise CohortError(
            f"{len(repeated)} spot names occur more than once ({_shown(repeated)})",
            path=path,
            remedy="Give every spot its own name, or call obs_names_make_unique(), and write the file again.",
        )
    return names


def summed_genes(
    genes: tuple[str, ...], counts: sparse.csr_matrix, ids: tuple[str, ...] | None, path: Path
) -> tuple[tuple[str, ...], sparse.csr_matrix, tuple[str, ...] | None, tuple[Finding, ...]]:
    """Add up the columns of genes with the same name: a few symbols belong to two Ensembl ids.

    Returns
    -------
    genes, counts, ids, findings
        As given if no name is repeated; otherwise one column for each name, in the order of first appearance
        and with the id of the first, and a finding about the sums.

    Raises
    ------
    CohortError
        More than a tenth of the columns have a repeated name.
    """
    repeated = _repeated(genes)
    if not repeated:
        return genes, counts, ids, ()
    if sum(repeated.values()) > _MOST_REPEATED * len(genes):
        raise CohortError(
            f"{len(repeated)} gene names occur more than once ({_shown(repeated)})",
            path=path,
            remedy="Sum the columns of the same gene, or call var_names_make_unique(), and write the file "
            "again.",
        )
    names, summed, first = sum_columns(genes, counts)
    finding = Finding(
        "ok",
        f"{len(repeated)} gene names occur more than once ({_shown(repeated)}); their counts are added up.",
        "Call var_names_make_unique() before writing the file if they are different genes.",
    )
    return names, summed, None if ids is None else tuple(ids[i] for i in first), (finding,)


def sum_columns(
    genes: Sequence[str], counts: sparse.csr_matrix
) -> tuple[tuple[str, ...], sparse.csr_matrix, list[int]]:
    """Add up the columns of the same name; return the names, the sums, and each name's first column."""
    from scipy import sparse

    place: dict[str, int] = {}
    target = np.array([place.setdefault(gene, len(place)) for gene in genes], dtype=np.int64)
    ones = np.ones(len(genes), np.float32)
    joined = sparse.csr_matrix((ones, (np.arange(len(genes)), target)), shape=(len(genes), len(place)))
    summed = sparse.csr_matrix(counts @ joined, dtype=np.float32)
    summed.sort_indices()
    first = dict(zip(reversed(genes), range(len(genes) - 1, -1, -1), strict=True))
    return tuple(place), summed, [first[gene] for gene in place]


def other_names(columns: Collection[tuple[str, Any]], genes: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return the column with the most useful other gene names, such as ids; None if there is none.

    Parameters
    ----------
    columns : collection of (str, values)
        Columns of ``var`` that may hold ids or symbols.
    genes : tuple of str
        Names of the genes: for Ensembl ids symbols are preferred, otherwise ids.
    """
    wanted = (*SYMBOL_COLUMNS, *ID_COLUMNS) if are_ensembl(genes) else (*ID_COLUMNS, *SYMBOL_COLUMNS)
    for _, values in sorted(columns, key=lambda column: wanted.index(plain(column[0]))):
        if np.asarray(values, dtype=object).ravel().shape != (len(genes),):
            continue
        names = texts(values)
        if any(names) and names != genes and not all(map(_is_number, names)):
            return names
    return None


def are_ensembl(genes: Sequence[str]) -> bool:
    """Return whether most names are Ensembl ids."""
    looked = genes[:: max(1, len(genes) // 200)]
    return sum(ENSEMBL.match(gene) is not None for gene in looked) > len(looked) / 2


def without_version(name: str) -> str:
    """Return an Ensembl id without its version (``ENSG00000141736.14``), any other name unchanged."""
    return name.partition(".")[0] if ENSEMBL.match(name) else name


def _is_number(name: str) -> bool:
    return name.replace(".", "", 1).isdigit()


def _repeated(names: tuple[str, ...]) -> dict[str, int]:
    if len(set(names)) == len(names):
        return {}
    return {name: count for name, count in Counter(names).items() if count > 1}


def _shown(names: Collection[str]) -> str:
    listed = list(names)
    return ", ".join(name[:40] for name in listed[:5]) + (", ..." if len(listed) > 5 else "")
