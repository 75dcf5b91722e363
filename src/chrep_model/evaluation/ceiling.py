"""Estimate of the best possible correlation with measured values, given the counting noise of each gene.

The counts of the test section are split at random into halves, as if every spot had been sequenced twice to
half the depth. The correlation of the halves measures signal, the rest is counting noise.

Limitations: everything that both halves share counts as signal, also if an image cannot show it (molecules
that diffused to the next spot, spots with low capture efficiency, batch effects). The Spearman-Brown formula
holds for additive noise, and is an approximation for logarithms of small counts. On simulated counts with
known rates the ceiling was about .05 too high with one to four molecules of a gene per spot, .04 too low with
ten, and correct with a hundred. In a single section it is not a strict bound: a prediction can exceed it by
chance.
"""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
from numpy.typing import NDArray

from chrep_model.cohorts.gene_panel import GenePanel
from chrep_model.cohorts.section import Section
from chrep_model.statistics import gene_correlations

SPLITS = 10
"""Number of random splits whose correlations are averaged."""


def reliability(section: Section, panel: GenePanel, seed: int = 0) -> NDArray[np.float64]:
    """Estimate the share of each gene's variance that is not counting noise, by splitting the counts.

    Each count is split, c' ~ Binomial(c, 1/2) and c'' = c - c', and both halves are converted to log10-spot
    values. Their correlation r_half is the reliability at half the depth; that at full depth is
    2 r_half / (1 + r_half) (Spearman 1910, Brown 1910).

    Parameters
    ----------
    section : Section
        Section with raw counts.
    panel : GenePanel
        Genes to estimate.
    seed : int
        Random seed of the splits.

    Returns
    -------
    ndarray
        (genes,) float64 in [0, 1]; NaN if the gene was not measured or does not vary over the spots.
    """
    rng = np.random.default_rng(seed)
    part = _on_panel(section, panel)
    halves = np.zeros(len(panel))
    for _ in range(SPLITS):
        first, second = (panel.expression(half) for half in _split(part, rng))
        r = gene_correlations(first, second)
        halves += np.nan_to_num(r) / SPLITS  # 0 for a half without counts of the gene
    shared = np.maximum(halves, 0.0)
    out: NDArray[np.float64] = 2 * shared / (1 + shared)
    truth = panel.expression(part)
    out[np.isnan(gene_correlations(truth, truth))] = np.nan
    return out


def ceiling(reliability: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the highest correlation with measured values that can be expected: sqrt(reliability)."""
    return np.sqrt(reliability)


def variance_explained(
    truth: NDArray[np.floating], predicted: NDArray[np.floating], reliability: NDArray[np.float64]
) -> float:
    """Return the share of the explainable variance that a prediction explains, over all genes.

    The sum over genes of var(truth) - var(truth - predicted), divided by the sum of reliability * var(truth).
    A constant offset of the prediction does not count, but a wrong amplitude does. A constant prediction has
    0, a worse one a negative value.

    Parameters
    ----------
    truth, predicted : ndarray
        (n, genes) log10-spot values.
    reliability : ndarray
        (genes,), see `reliability`.

    Returns
    -------
    float
        NaN if there is no explainable variance.
    """
    exact = np.asarray(truth, np.float64)
    total, left = exact.var(0), (exact - predicted).var(0)
    known = ~np.isnan(reliability)
    explainable = float((reliability * total)[known].sum())
    return float((total - left)[known].sum()) / explainable if explainable > 0 else float("nan")


def _on_panel(section: Section, panel: GenePanel) -> Section:
    """Return the section with the panel's genes only, to save time."""
    wanted = set(panel.genes)
    columns = [i for i, name in enumerate(section.genes) if name in wanted]
    facts = {field.name: getattr(section, field.name) for field in fields(Section)}
    genes = tuple(section.genes[i] for i in columns)
    return Section(**facts | {"counts": section.counts[:, columns], "genes": genes})


def _split(section: Section, rng: np.random.Generator) -> tuple[Section, Section]:
    first, second = section.counts.copy(), section.counts.copy()
    first.data = rng.binomial(section.counts.data.astype(np.int64), 0.5).astype(np.float32)
    second.data = section.counts.data - first.data
    return replace(section, counts=first), replace(section, counts=second)
