"""Oracle that predicts genes from the spots' sequencing depth alone, as a reference for correlations.

The depth of a spot correlates with the values of many genes, depending on their normalisation. A method whose
correlation is not higher may have learned no more than the depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from chrep_model.cohorts.gene_panel import GenePanel
from chrep_model.cohorts.log10_spot import COUNTS_PER_SPOT
from chrep_model.cohorts.section import Section
from chrep_model.methods.model import measured_by
from chrep_model.statistics import gene_correlations
from chrep_model.training.samples import groups

ORACLE = "library_size_oracle"
"""Name of the oracle in the tables; its only variant is ``raw``."""

Normalisation = Literal["per-spot", "per-gene"]


@dataclass(frozen=True)
class LibrarySizeOracle:
    """Linear regression of each gene on a spot's log library size, fitted on training sections.

    Unlike a method, it reads the counts of the spots that it predicts.

    Attributes
    ----------
    panel : GenePanel
        Genes to predict; the library size is a spot's total over them.
    slope, offset : ndarray
        (genes,) float64.
    """

    panel: GenePanel
    slope: NDArray[np.float64]
    offset: NDArray[np.float64]

    @classmethod
    def fit(cls, sections: Sequence[Section], panel: GenePanel) -> LibrarySizeOracle:
        """Fit each gene by least squares over the training spots that measured it."""
        every_size = np.concatenate([_log_size(panel.depth(s)) for s in sections])
        every_value = np.concatenate([panel.expression(s) for s in sections]).astype(np.float64)
        slope, offset = np.zeros(len(panel)), np.zeros(len(panel))
        section = np.repeat(np.arange(len(sections)), [len(s) for s in sections])
        for rows, genes in groups(measured_by(sections, panel), section):
            size, values = every_size[rows], every_value[rows][:, genes]
            centred = size - size.mean()
            slope[genes] = centred @ (values - values.mean(0)) / max(float(centred @ centred), 1e-12)
            offset[genes] = values.mean(0) - slope[genes] * size.mean()
        return cls(panel, slope, offset)

    def predict(self, section: Section) -> NDArray[np.float32]:
        """Return log10-spot values (n, genes), from the section's own counts."""
        size = _log_size(self.panel.depth(section))
        return (size[:, None] * self.slope + self.offset).astype(np.float32)


def oracle_correlations(
    section: Section, genes: Sequence[str], normalisation: Normalisation
) -> NDArray[np.float32]:
    """Return each gene's correlation with the log library size, under one of two normalisations.

    ``per-spot`` divides a count by its spot's total, which removes depth. ``per-gene`` divides it by its
    gene's total over the section, as common benchmark data do, which keeps the depth in every gene. Both then
    take log10(1 + 1e4 * share). The comparison shows how much of a published correlation may be due to the
    normalisation.

    Parameters
    ----------
    section : Section
        Section with raw counts.
    genes : sequence of str
        Genes over which the library size is computed.
    normalisation : {"per-spot", "per-gene"}
        Normalisation of the values.

    Returns
    -------
    ndarray
        (genes,) float32; NaN if a gene does not vary.
    """
    counts = counts_of(section, genes)
    total = counts.sum(1, keepdims=True) if normalisation == "per-spot" else counts.sum(0, keepdims=True)
    values = np.log10(1 + COUNTS_PER_SPOT * counts / np.maximum(total, 1))
    size = _log_size(counts.sum(1))
    return gene_correlations(values, np.broadcast_to(size[:, None], values.shape))


def counts_of(section: Section, genes: Sequence[str]) -> NDArray[np.float64]:
    """Return raw counts (n, genes) in the order of `genes`; 0 for genes that the section does not list."""
    column = {name: i for i, name in enumerate(section.genes)}
    listed = [i for i, name in enumerate(genes) if name in column]
    out = np.zeros((len(section), len(genes)))
    out[:, listed] = section.counts[:, [column[genes[i]] for i in listed]].toarray()
    return out


def _log_size(total: NDArray[np.floating]) -> NDArray[np.float64]:
    out: NDArray[np.float64] = np.log10(1 + total.astype(np.float64))
    return out
