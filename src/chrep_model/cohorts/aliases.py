"""Look-up of genes by their other names: common protein names, and aliases from a table of HGNC or NCBI.

The model's gene names are tried first, then Ensembl ids, then other names. A name that is ambiguous, because
two genes of the model share it or it is the symbol of a third gene, is not used.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from chrep_model.errors import GeneError
from chrep_model.files import write_atomically

if TYPE_CHECKING:
    import pandas as pd

SPOKEN = {
    "ASMA": "ACTA2", "B7-H1": "CD274", "BCL-2": "BCL2", "BCL-6": "BCL6", "BETA-CATENIN": "CTNNB1",
    "C-KIT": "KIT", "C-MET": "MET", "C-MYC": "MYC", "CD10": "MME", "CD117": "KIT", "CD11B": "ITGAM",
    "CD11C": "ITGAX", "CD138": "SDC1", "CD16": "FCGR3A", "CD20": "MS4A1", "CD21": "CR2", "CD23": "FCER2",
    "CD25": "IL2RA", "CD3": "CD3E", "CD30": "TNFRSF8", "CD31": "PECAM1", "CD45": "PTPRC", "CD56": "NCAM1",
    "CD57": "B3GAT1", "CD8": "CD8A", "CEA": "CEACAM5", "CK14": "KRT14", "CK17": "KRT17", "CK18": "KRT18",
    "CK19": "KRT19", "CK20": "KRT20", "CK5": "KRT5", "CK6": "KRT6A", "CK7": "KRT7", "CK8": "KRT8",
    "CTLA-4": "CTLA4", "CYCLIN-D1": "CCND1", "E-CADHERIN": "CDH1", "ER": "ESR1", "GATA-3": "GATA3",
    "GCDFP-15": "PIP", "HER1": "EGFR", "HER2": "ERBB2", "HER3": "ERBB3", "HER4": "ERBB4", "KI-67": "MKI67",
    "KI67": "MKI67", "LAG-3": "LAG3", "MAMMAGLOBIN": "SCGB2A2", "MELAN-A": "MLANA", "N-CADHERIN": "CDH2",
    "NEU": "ERBB2", "NSE": "ENO2", "P16": "CDKN2A", "P21": "CDKN1A", "P27": "CDKN1B", "P40": "TP63",
    "P53": "TP53", "P63": "TP63", "PD-1": "PDCD1", "PD-L1": "CD274", "PD-L2": "PDCD1LG2", "PD1": "PDCD1",
    "PDL1": "CD274", "PR": "PGR", "PSA": "KLK3", "PSMA": "FOLH1", "SMA": "ACTA2", "SYNAPTOPHYSIN": "SYP",
    "TIM-3": "HAVCR2", "TROP2": "TACSTD2", "TTF-1": "NKX2-1", "VIMENTIN": "VIM",
}  # fmt: skip
"""Name of a gene's protein in pathology reports -> gene symbol."""

_SEPARATOR = "|"
# Columns of HGNC's hgnc_complete_set.txt and of NCBI's gene_info, starting with the symbol.
_LAYOUTS = (
    ("symbol", "ensembl_gene_id", "alias_symbol", "prev_symbol"),
    ("Symbol", "dbXrefs", "Synonyms"),
)
_REMEDY = "Take HGNC's hgnc_complete_set.txt or NCBI's gene_info, as downloaded."


@dataclass(frozen=True, eq=False)
class Aliases:
    """Table of genes with all their names.

    Attributes
    ----------
    names : tuple of tuple of str
        For each gene its symbol, then its other names and its Ensembl id.
    """

    names: tuple[tuple[str, ...], ...] = ()

    @cached_property
    def by_symbol(self) -> dict[str, tuple[str, ...]]:
        """Mapping from a gene's symbol, in capitals, to all its names."""
        return {names[0].upper(): names for names in self.names}

    @cached_property
    def by_other(self) -> dict[str, tuple[str, ...]]:
        """Mapping from each unambiguous other name, in capitals, to all names of its gene."""
        found: dict[str, tuple[str, ...]] = {}
        doubtful = set()
        for names in self.names:
            for name in {other.upper() for other in names[1:]}:
                if found.setdefault(name, names) is not names:
                    doubtful.add(name)
        return {name: names for name, names in found.items() if name not in doubtful}

    def write(self, path: Path) -> None:
        """Write the names to a parquet file.

        Raises
        ------
        GeneError
            The file cannot be written.
        """
        import pandas as pd

        with write_atomically(path, GeneError) as part:
            part.parent.mkdir(parents=True, exist_ok=True)
            pd.DataFrame({"names": [_SEPARATOR.join(names) for names in self.names]}).to_parquet(part)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Aliases:
        """Read a file of `write`, or a table of HGNC or NCBI as downloaded (tab-separated, also .gz).

        Raises
        ------
        GeneError
            The file cannot be read, or is not such a table.
        """
        import pandas as pd

        path = Path(path)
        try:
            if path.suffix == ".parquet":
                kept = pd.read_parquet(path, columns=["names"])["names"]
                return cls(tuple(tuple(str(names).split(_SEPARATOR)) for names in kept))
            wanted = {column for layout in _LAYOUTS for column in layout}
            table = pd.read_csv(
                path, sep="\t", dtype=str, keep_default_na=False, usecols=lambda column: column in wanted
            )
        except (OSError, ValueError, KeyError) as error:  # ValueError includes pandas' parsing errors
            reason = " ".join(str(error).split())[:120]
            raise GeneError(
                f"the table of gene names cannot be read ({reason})", path=path, remedy=_REMEDY
            ) from error
        for layout in _LAYOUTS:
            if {layout[0], layout[-1]} <= set(table):
                return cls(_names(table, layout))
        raise GeneError("this is no table of gene names", path=path, remedy=_REMEDY)


class GeneNames:
    """Look-up of a model's genes by any of their names.

    Parameters
    ----------
    genes : sequence of str
        Gene names as the model spells them.
    ids : sequence of str, optional
        Ensembl id of each gene, empty where unknown.
    aliases : Aliases, optional
        Other names of genes, in addition to `SPOKEN`.

    Attributes
    ----------
    others : tuple of tuple of str
        All other names of each gene.
    """

    def __init__(
        self, genes: Sequence[str], ids: Sequence[str] | None = None, aliases: Aliases | None = None
    ) -> None:
        aliases = aliases or Aliases()
        self._exact = set(genes)
        self._own = {gene.upper(): gene for gene in reversed(genes)}
        spoken: dict[str, list[str]] = {}
        for name, symbol in SPOKEN.items():
            spoken.setdefault(symbol, []).append(name)
        others, claims = [], dict[str, str | None]()
        for place, gene in enumerate(genes):
            key = gene.upper()
            same = aliases.by_symbol.get(key) or aliases.by_other.get(key, ())
            stable = (ids[place],) if ids is not None and ids[place] else ()
            names = dict.fromkeys((*spoken.get(key, ()), *same, *stable))
            names.pop(gene, None)
            others.append(tuple(names))
            for name in {name.upper() for name in names}:
                claims[name] = None if claims.get(name, gene) != gene else gene
        self.others = tuple(others)
        proper = aliases.by_symbol
        self._other = {
            name: gene
            for name, gene in claims.items()
            if gene is not None and (name not in proper or gene in proper[name])
        }
        self._other |= {name: self._own[symbol] for name, symbol in SPOKEN.items() if symbol in self._own}

    def find(self, name: str) -> str | None:
        """Return the gene of a name as the model spells it; None if the name is unknown or ambiguous."""
        if name in self._exact:
            return name
        key = name.upper()
        return self._own.get(key) or self._other.get(key) or self._other.get(key.partition(".")[0])


def _names(table: pd.DataFrame, layout: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    columns = [table[column].tolist() for column in layout if column in table]
    genes = []
    for symbol, *cells in zip(*columns, strict=True):
        listed = (_plain(name) for cell in cells for name in cell.split(_SEPARATOR))
        if symbol:
            genes.append(tuple(dict.fromkeys((symbol, *(name for name in listed if name)))))
    return tuple(genes)


def _plain(name: str) -> str:
    """Return the name in a table cell; empty for ``-`` and for a ``DATABASE:ID`` other than Ensembl's."""
    database, colon, identifier = name.strip().partition(":")
    if colon:
        return identifier if database == "Ensembl" else ""
    return "" if database == "-" else database
