"""Estimate how well a gene can be predicted at best, given how few of its molecules were counted.

The counts of the test section are split at random into halves, as if every spot had been sequenced twice to
half the depth. What the halves share is signal, what they do not share is counting noise.

What this ignores: everything that both halves share counts as signal, though no image shows it (molecules
that drifted to the next spot, spots that captured badly, batch). Spearman-Brown's formula holds for noise
that is added; after a logarithm of small counts it is an approximation. On simulated counts with known rates
the ceiling came out about .05 too high with one to four molecules of a gene in a spot, .04 too low with ten,
and right with a hundred. It is no bound in a single section either: a lucky prediction can exceed it.
"""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
from numpy.typing import NDArray

from chrep_model.cohorts.gene_panel import GenePanel
from chrep_model.cohorts.section import Section
from chrep_model.statistics import gene_correlations

SPLITS = 10
"""Splits whose correlations are averaged: one alone depends on its draw."""


def reliability(section: Section, panel: GenePanel, seed: int = 0) -> NDArray[np.float64]:
    """Return the share of a gene's variance that is not counting noise, by splitting the counts.

    Each count is thinned, c' ~ Binomial(c, 1/2) and c'' = c - c', and both halves brought to log10-spot
    values on their own. Their correlation r_half is the reliability at half the depth; that at full depth is
    2 r_half / (1 + r_half) (Spearman 1910, Brown 1910).

    Parameters
    ----------
    section : Section
        With raw counts.
    panel : GenePanel
        Which genes.
    seed : int
        Of the splits.

    Returns
    -------
    ndarray
        (genes,) float64 in [0, 1]; NaN where the gene was not measured or does not vary over the spots.
    """
    rng = np.random.default_rng(seed)
    part = _on_panel(section, panel)
    halves = np.zeros(len(panel))
    for _ in range(SPLITS):
        first, second = (panel.expression(half) for half in _split(part, rng))
        r = gene_correlations(first, second)
        halves += np.nan_to_num(r) / SPLITS  # a half without the gene shows no signal
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

    The sum over genes of var(truth) - var(truth - predicted), over the sum of reliability * var(truth). A
    section's offset does not count, too large or too small a swing does; 0 says no more than a constant,
    below 0 says less.

    Parameters
    ----------
    truth, predicted : ndarray
        (n, genes) log10-spot values.
    reliability : ndarray
        (genes,) of `reliability`.

    Returns
    -------
    float
        NaN where nothing can be explained.
    """
    exact = np.asarray(truth, np.float64)
    total, left = exact.var(0), (exact - predicted).var(0)
    known = ~np.isnan(reliability)
    explainable = float((reliability * total)[known].sum())
    return float((total - left)[known].sum()) / explainable if explainable > 0 else float("nan")


def _on_panel(section: Section, panel: GenePanel) -> Section:
    """Return the section with the panel's genes alone; others do not matter, and can be many."""
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
