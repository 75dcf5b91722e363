"""Check that the matrices of a table can be raw counts, and convert them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from chrep_model.errors import CohortError

if TYPE_CHECKING:
    from scipy import sparse

#: Names of layers with raw counts, in lower case without separators; the likeliest first.
LAYERS = ("counts", "rawcounts", "raw", "count", "umi", "umis", "umicounts", "rawumi", "rawcount", "xraw")
REMEDY = "Put raw counts into X (not normalised, not log-transformed, not scaled)."
#: A spot with this many genes has one that was counted once, unless all counts were multiplied.
_MANY_GENES = 50
#: A spot with this many genes has one that was counted twice, unless counts were reduced to 0 and 1.
_SEVERAL_GENES = 20
#: Totals that differ by less than this fraction of their median come from normalised, rounded values.
_SAME_TOTALS = 0.005
#: Smaller totals may be equal by design, such as in test data.
_LEAST_TOTAL = 100
_NEARLY_ALL = 0.9


def impossible(values: Any) -> str | None:
    """Return why a stored matrix cannot be raw counts; None if it can.

    Parameters
    ----------
    values : ndarray or scipy.sparse matrix
        (n, G), of any type.
    """
    from scipy import sparse

    data = values.data if sparse.issparse(values) else values
    if data.dtype.kind not in "iubf":
        return f"holds {data.dtype}, not numbers"
    if data.size == 0 or data.dtype.kind in "ub":
        return None
    if data.dtype.kind == "f" and not np.isfinite(data).all():
        return f"has {int((~np.isfinite(data)).sum())} values that are NaN or infinite"
    if data.min() < 0:
        return f"has {int((data < 0).sum())} negative values, down to {data.min():g}"
    if data.dtype.kind == "f" and (data != np.floor(data)).any():
        return f"has values that are not whole numbers, such as {data[data != np.floor(data)][0]:g}"
    return None


def multiplied(counts: sparse.csr_matrix) -> str | None:
    """Return why counts look normalised and rounded (hardly any spot has a gene counted once); else None.

    Parameters
    ----------
    counts : csr_matrix
        (n, G) whole numbers >= 0, without stored zeros.
    """
    stored = np.diff(counts.indptr)
    rich = np.flatnonzero(stored >= _MANY_GENES)
    if rich.size == 0:
        return None
    least = np.minimum.reduceat(counts.data, counts.indptr[:-1][stored > 0])[np.searchsorted(
        np.flatnonzero(stored > 0), rich
    )]  # fmt: skip
    if (least > 1).mean() < _NEARLY_ALL:
        return None
    return (
        f"has whole numbers, but in {int((least > 1).sum())} of {rich.size} spots none is 1, as if counts "
        "had been normalised and rounded"
    )


def doubtful(counts: sparse.csr_matrix) -> str | None:
    """Return why whole numbers are unlikely to be raw counts (only 0 and 1, or equal totals); else None."""
    if counts.nnz == 0:
        return None
    totals = np.asarray(counts.sum(axis=1)).ravel()
    filled = totals[totals > 0]
    if counts.data.max() == 1 and np.diff(counts.indptr).max() >= _SEVERAL_GENES:
        return "holds only 0 and 1: whether a gene was detected, not how often it was counted"
    middle = float(np.median(filled))
    same = np.abs(filled - middle) <= _SAME_TOTALS * middle
    if middle >= _LEAST_TOTAL and filled.size >= 10 and same.mean() >= _NEARLY_ALL:
        return (
            f"gives nearly all spots the same total (about {middle:,.0f}), as normalised or thinned counts do"
        )
    return None


def measured(values: Any) -> np.ndarray:
    """Return which columns of a stored matrix are not all NaN, bool (G,)."""
    from scipy import sparse

    if values.dtype.kind != "f" or not values.shape[0]:
        return np.ones(values.shape[-1], bool)
    if not sparse.issparse(values):
        return np.asarray(~np.isnan(values).all(axis=0))
    entries = values.tocoo()
    absent = np.bincount(entries.col[np.isnan(entries.data)], minlength=values.shape[1])
    return np.asarray(absent < values.shape[0])


def check_shape(values: Any, shape: tuple[int, int], where: str, path: Path) -> None:
    """Check that a stored matrix has one row per spot and one column per gene; CohortError if not."""
    if values.shape != shape:
        raise CohortError(
            f"{where} has the shape {values.shape}, but there are {shape[0]} spots and {shape[1]} genes",
            path=path,
            remedy="Write the file again with a current anndata (adata.write_h5ad).",
        )


def as_counts(values: Any) -> sparse.csr_matrix:
    """Convert a stored matrix of counts to float32 CSR, without repeated or stored zero entries."""
    from scipy import sparse

    counts = sparse.csr_matrix(values, dtype=np.float32)
    counts.sum_duplicates()
    counts.eliminate_zeros()
    return counts
