"""Signatures: one map for a list of genes, the mean of their values standardised on the training spots."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chrep_model.cohorts.aliases import GeneNames
from chrep_model.cohorts.gene_lists import read_gene_list
from chrep_model.cohorts.gene_panel import GenePanel
from chrep_model.errors import GeneError
from chrep_model.prediction.prediction import ALL_TILES, Prediction

# Number of genes computed at once, because all genes of a long list over a whole slide may not fit in memory.
_CHUNK = 64
_BETWEEN_NAMES = re.compile(r"[\s,;\"']+")


@dataclass(frozen=True)
class Signature:
    """The genes of a list that a panel contains.

    Attributes
    ----------
    name : str
        Name of the list.
    genes : tuple of str
        Genes in the panel's spelling, each once, in the order of the list.
    unknown : tuple of str
        Names in the list that the panel does not have.
    translated : tuple of (str, str)
        Other names in the list, each with the gene that it stands for.
    """

    name: str
    genes: tuple[str, ...]
    unknown: tuple[str, ...] = ()
    translated: tuple[tuple[str, str], ...] = ()

    @classmethod
    def match(
        cls, name: str, names: Sequence[str], panel: GenePanel, known: GeneNames | None = None
    ) -> Signature:
        """Look up names in a panel; if the exact name is unknown, case is ignored.

        Parameters
        ----------
        name : str
            Name of the list.
        names : sequence of str
            Gene symbols, ids, or other names.
        panel : GenePanel
            Genes of the model.
        known : GeneNames, optional
            Other names of the genes; the panel's ``names`` unless given.

        Raises
        ------
        GeneError
            The panel knows none of the names.
        """
        known = known or panel.names
        found = {given: known.find(given) for given in names}
        genes = tuple(dict.fromkeys(gene for gene in found.values() if gene is not None))
        unknown = tuple(given for given, gene in found.items() if gene is None)
        if not genes:
            listed = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
            raise GeneError(
                f"the model knows none of the {len(unknown)} listed genes ({listed})"
                if unknown
                else "the list names no gene",
                remedy=f"Give names like {', '.join(panel.genes[:3])}.",
            )
        translated = tuple(
            (given, gene)
            for given, gene in found.items()
            if gene is not None and gene.upper() != given.upper()
        )
        return cls(name, genes, unknown, translated)

    @property
    def remark(self) -> str:
        """Text about translated names, such as ``HER2 → ERBB2``; empty if there are none."""
        return ", ".join(f"{given} → {gene}" for given, gene in self.translated)

    def values(self, prediction: Prediction, tiles: slice = ALL_TILES) -> NDArray[np.float32]:
        """Return the mean of the genes' standardised values, of the last variant.

        ``1/G * sum_g (x_g - mean_g) / sd_g`` with the mean and sd of each gene over the training spots.

        Parameters
        ----------
        prediction : Prediction
            A prediction whose model has all the genes.
        tiles : slice
            Slice of ``prediction.indices`` without a step; all unless given.

        Returns
        -------
        ndarray
            (number of tiles,) float32, in sd of the training spots, in the order of ``prediction.indices``.
        """
        panel = prediction.bundle.panel
        columns = panel.indices(self.genes)
        total = np.zeros(len(range(len(prediction))[tiles]), np.float32)
        for first in range(0, len(columns), _CHUNK):
            some = columns[first : first + _CHUNK]
            values = prediction.values(some, tiles=tiles)
            total += ((values - panel.mean[some]) / panel.sd[some]).sum(1)
        return total / np.float32(len(columns))


def split_names(text: str) -> tuple[str, ...]:
    """Split a list of genes at spaces, commas, semicolons and line ends; quotes are removed."""
    return tuple(name for name in _BETWEEN_NAMES.split(text) if name)


def read_names(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Read gene names from a text file, one or several per line; text after a ``#`` is skipped.

    Raises
    ------
    GeneError
        The file is missing, is not text, or names no gene.
    """
    return tuple(name for line in read_gene_list(path) for name in split_names(line))
