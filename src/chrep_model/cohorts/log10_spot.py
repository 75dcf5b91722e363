"""Convert counts to log10-spot values, also if sections measured different genes.

The unit is ``log10(1 + 1e4 * c / l)`` with the count ``c`` of a gene and the spot's total ``l`` over the
genes of a panel. If a section did not measure some of these genes, its totals are too small and its values
would be too high. Such totals are divided by the section's coverage, which is the share of a spot's counts
expected from the measured genes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from chrep_model.cohorts.section import Section

COUNTS_PER_SPOT = 1e4

_ROUNDS = 1000
_CONVERGED = 1e-13


def aligned(section: Section, genes: Sequence[str]) -> Any:
    """Return a section's counts with the columns of `genes`, float64 csr without stored zeros.

    A gene that the section does not list has no entries, like one with only zero counts; see `measured`.
    """
    wanted = {name: column for column, name in enumerate(genes)}
    target = np.array([wanted.get(name, -1) for name in section.genes], dtype=np.int64)
    counts = section.counts.tocoo()
    columns = target[counts.col]
    kept = (columns >= 0) & (counts.data != 0)
    return sparse.csr_matrix(
        (counts.data[kept].astype(np.float64), (counts.row[kept], columns[kept])),
        shape=(len(section), len(genes)),
    )


def measured(section: Section, genes: Sequence[str]) -> NDArray[np.bool_]:
    """Return which of `genes` a section lists, and therefore measured, (G,) bool."""
    listed = set(section.genes)
    return np.array([name in listed for name in genes], dtype=bool)


def coverage(share: NDArray[np.float64], known: NDArray[np.bool_]) -> float:
    """Return the share of a spot's counts expected from the measured genes; exactly 1 for all genes.

    Parameters
    ----------
    share : ndarray
        (G,) expected share of each gene, sums to 1.
    known : ndarray
        (G,) bool, which genes were measured.
    """
    if known.all():
        return 1.0
    # 1 if none of the section's genes has a share, because no other section measured them.
    return float(share[known].sum()) or 1.0


def log10_spot(counts: Any, coverage: float = 1.0) -> Any:
    """Convert csr counts to log10-spot values; zero stays zero, so the result is csr too.

    Parameters
    ----------
    counts : csr_matrix
        (n, G) counts.
    coverage : float
        Coverage of the section, by which its totals over the G genes are divided.
    """
    values = counts.astype(np.float64)
    library = np.asarray(values.sum(axis=1)).ravel() / coverage
    of_entry = np.repeat(library, np.diff(values.indptr))
    values.data = np.log10(1.0 + COUNTS_PER_SPOT * values.data / of_entry)
    return values


def moments(parts: Sequence[Any], known: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return mean and sd (G,) of each gene over the spots that measured it, float64.

    Parameters
    ----------
    parts : sequence of csr_matrix
        (n_s, G) values of each section, without entries for genes that it did not measure.
    known : ndarray
        (sections, G) bool, which section measured which gene; at least one for each gene.
    """
    n = spots_measured(parts, known)
    mean = sum(np.asarray(part.sum(axis=0)).ravel() for part in parts) / n
    # Not E[x^2] - mean^2, which is inaccurate for a gene that hardly varies.
    squares = np.zeros_like(mean)
    stored = np.zeros_like(mean)
    for part in parts:
        squares += np.bincount(part.indices, (part.data - mean[part.indices]) ** 2, minlength=mean.size)
        stored += np.bincount(part.indices, minlength=mean.size)
    return mean, np.sqrt((squares + (n - stored) * mean**2) / n)


def spots_measured(parts: Sequence[Any], known: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the number of spots that measured each gene, (G,); see `moments`."""
    return np.array([part.shape[0] for part in parts]) @ known


def expected_shares(parts: Sequence[Any], known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Estimate each gene's expected share of a spot's counts, (G,) float64.

    The share is the gene's part of a section's total counts, averaged over sections with equal weight. If a
    section lacks genes, its total is increased by their expected counts; shares and totals are computed in
    turn until they converge.

    Parameters
    ----------
    parts : sequence of csr_matrix
        (n_s, G) counts of each section.
    known : ndarray
        (sections, G) bool, which section measured which gene.
    """
    totals = np.stack([np.asarray(part.sum(axis=0), np.float64).ravel() for part in parts])
    counted = totals.sum(axis=1) > 0
    totals, known = totals[counted], known[counted]
    genes = totals.shape[1]
    if not len(totals):
        return np.full(genes, 1 / genes)
    sections = np.maximum(known.sum(axis=0), 1)
    own = totals / totals.sum(axis=1, keepdims=True)
    share = _normalised((own * known).sum(axis=0) / sections)
    for _ in range(0 if known.all() else _ROUNDS):
        held = np.maximum(known @ share, np.finfo(float).tiny)
        before, share = share, _normalised((held[:, None] * own).sum(axis=0) / sections)
        if np.abs(share - before).max() < _CONVERGED:
            break
    return share


def shares_of_means(mean: NDArray[np.floating]) -> NDArray[np.float64]:
    """Estimate expected shares (G,) from mean log10-spot values, for a panel stored without shares."""
    # Too small for rarely counted genes, as the mean of logarithms is below the logarithm of the mean; the
    # shares are only used for sections that lack genes.
    shares = np.maximum(10.0 ** np.asarray(mean, np.float64) - 1, 0)
    return _normalised(shares) if shares.any() else np.full(len(shares), 1 / len(shares))


def _normalised(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    out: NDArray[np.float64] = shares / shares.sum()
    return out
