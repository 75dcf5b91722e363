"""The gallery: every training spot with its embedding, its measured expression and where it came from.

Retrieval is exact, see `search`, unless it is told to go by an index, see `index`; a gallery larger than the
memory is mapped from its files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from chrep_model.calibration.search import nearest
from chrep_model.errors import SettingsError

if TYPE_CHECKING:
    from chrep_model.calibration.index import Index

Exclude = Literal["none", "self", "section", "patient"]


@dataclass(frozen=True)
class Neighbours:
    """The k most similar gallery spots of each query, most similar first.

    Attributes
    ----------
    index : ndarray
        (n, k) int64 rows of the gallery; ties go to the smaller row.
    similarity : ndarray
        (n, k) float32 cosine; -inf where fewer than k were allowed.
    """

    index: NDArray[np.int64]
    similarity: NDArray[np.float32]

    def weights(self, temperature: float) -> NDArray[np.float32]:
        """Return w_ij = softmax over neighbours of s_ij / temperature, (n, k) float32, rows sum to 1."""
        top = self.similarity[:, :1]
        w = np.exp((self.similarity - np.where(np.isfinite(top), top, 0.0)) / temperature)
        return (w / np.maximum(w.sum(1, keepdims=True), 1e-12)).astype(np.float32)


@dataclass(frozen=True)
class Gallery:
    """The training spots in which neighbours are searched.

    Attributes
    ----------
    z : ndarray
        (n, d) float32, rows of unit length.
    expression : ndarray
        (n, genes) float32, standardised; 0 where the spot's section did not measure the gene.
    section, patient : ndarray
        (n,) int64, numbers of the spot's section and patient.
    position : ndarray
        (n, 2) float64, spot centre in µm.
    section_names : tuple of str
        Names behind `section`.
    index : Index or None
        Of these very spots, for a CPU to look in; None to look at all of them.
    measured : ndarray or None
        (sections, genes) bool, which section, by its number, measured which gene; None where every section
        measured every gene.
    """

    z: NDArray[np.float32]
    expression: NDArray[np.float32]
    section: NDArray[np.int64]
    patient: NDArray[np.int64]
    position: NDArray[np.float64]
    section_names: tuple[str, ...]
    index: Index | None = None
    measured: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.z)

    def known(self, genes: NDArray[np.int64] | slice = slice(None)) -> Known | None:
        """Return where the columns `genes` of its expression were measured; None if everywhere."""
        if self.measured is None or self.measured[:, genes].all():
            return None
        return Known(self.section, self.measured[:, genes])

    @property
    def recall(self) -> float:
        """Share of the true nearest spots that a search on a CPU finds; 1 if the search is exact."""
        return 1.0 if self.index is None else self.index.facts.recall

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        *,
        exclude: Exclude = "none",
        section: NDArray[np.int64] | None = None,
        patient: NDArray[np.int64] | None = None,
        row: NDArray[np.int64] | None = None,
        device: str = "cpu",
    ) -> Neighbours:
        """Find the k gallery spots most similar to each query.

        Where something is excluded or the device is no CPU, they are looked for without the index.

        Parameters
        ----------
        queries : ndarray
            (n, d) float32, rows of unit length.
        k : int
            Neighbours per query; no more than the gallery holds.
        exclude : {"none", "self", "section", "patient"}
            What a query may not retrieve.
        section, patient, row : ndarray, optional
            (n,) int64 of the queries, for what is excluded by them; "self" takes query i to be gallery row i
            unless `row` says otherwise.
        device : str
            Where to compute.

        Raises
        ------
        SettingsError
            Nothing is left to retrieve for a query.
        """
        k = min(k, len(self))
        if exclude == "none":
            if self.index is not None and device == "cpu":
                return Neighbours(*self.index.nearest(queries, self.z, k))
            return Neighbours(*nearest(queries, self.z, k, device=device))
        own, theirs = self._numbers(exclude, len(queries), section, patient, row)
        if (own == theirs[0]).any() and (theirs == theirs[0]).all():
            raise SettingsError(
                f"with exclude={exclude!r} nothing is left in the gallery for some spots",
                remedy="Train on more sections, or exclude less.",
            )

        def barred(rows: NDArray[np.int64], block: slice) -> torch.Tensor:
            return torch.from_numpy(own[rows][:, None] == theirs[None, block])

        return Neighbours(*nearest(queries, self.z, k, barred, device=device))

    def _numbers(
        self,
        exclude: Exclude,
        queries: int,
        section: NDArray[np.int64] | None,
        patient: NDArray[np.int64] | None,
        row: NDArray[np.int64] | None,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return a number per query and per gallery spot; a spot with the query's number is excluded."""
        if exclude == "self":
            return np.arange(queries) if row is None else row, np.arange(len(self))
        own, theirs = (section, self.section) if exclude == "section" else (patient, self.patient)
        if own is None:
            raise SettingsError(f"exclude={exclude!r} needs the {exclude} of every query")
        return own, theirs


def weighted_mean(
    neighbours: Neighbours, temperature: float, values: NDArray[np.float32], known: Known | None = None
) -> NDArray[np.float32]:
    """Return CHRep's Estimate: sum over j of w_ij * values_j, (n, genes) float32; see `mean_of`."""
    return mean_of(neighbours.index, neighbours.weights(temperature), values, known)


def mean_of(
    index: NDArray[np.int64],
    weights: NDArray[np.float32],
    values: NDArray[np.float32],
    known: Known | None = None,
) -> NDArray[np.float32]:
    """Return the sum over j of weights_ij * values[index_ij], (n, genes) float32; index, weights (n, k).

    Parameters
    ----------
    index, weights : ndarray
        (n, k); rows of weights sum to one.
    values : ndarray
        (rows, genes), 0 where they were not measured.
    known : Known, optional
        Where they were; everywhere unless given. The weights of neighbours that measured a gene are brought
        to a sum of one. Where none of them did, the mean is 0, that of the training spots.
    """
    out = np.empty((len(index), values.shape[1]), np.float32)
    for part in _parts(len(index)):
        out[part] = _mean(weights[part], values[index[part]])
    return out if known is None else _whole(out, known.weight(index, weights), 0.0)


def neighbour_spread(
    neighbours: Neighbours, temperature: float, values: NDArray[np.float32], known: Known | None = None
) -> NDArray[np.float32]:
    """Return the weighted sd of neighbours' values around their `weighted_mean`, (n, genes) float32.

    Where no neighbour measured a gene, it is 1, the sd over the training spots; see `mean_of`.
    """
    w = neighbours.weights(temperature)
    out = np.empty((len(w), values.shape[1]), np.float32)
    for part in _parts(len(w)):
        index = neighbours.index[part]
        near = values[index]
        if known is None:
            out[part] = np.sqrt(_mean(w[part], (near - _mean(w[part], near)[:, None]) ** 2))
            continue
        share = known.weight(index, w[part])
        off = (near - _whole(_mean(w[part], near), share, 0.0)[:, None]) * known.at(index)
        out[part] = np.sqrt(_whole(_mean(w[part], off**2), share, 1.0))
    return out


@dataclass(frozen=True)
class Known:
    """Which genes were measured for each spot of a gallery.

    Attributes
    ----------
    section : ndarray
        (rows,) number of each row's section.
    measured : ndarray
        (sections, genes) bool.
    """

    section: NDArray[np.int64]
    measured: NDArray[np.bool_]

    def at(self, index: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return for rows `index` (n, k) which genes were measured there, bool (n, k, genes)."""
        return self.measured[self.section[index]]

    def weight(self, index: NDArray[np.int64], weights: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return for each gene the summed weights (n, k) of the rows `index` that measured it, (n, genes)."""
        of_section = np.zeros((len(index), len(self.measured)))
        np.add.at(of_section, (np.arange(len(index))[:, None], self.section[index]), weights)
        return (of_section @ self.measured).astype(np.float32)


def _whole(total: NDArray[np.float32], weight: NDArray[np.float32], none: float) -> NDArray[np.float32]:
    """Divide weighted sums by the weights of those that measured a gene, (n, genes); `none` if nobody did."""
    return np.divide(total, weight, out=np.full_like(total, none), where=weight > 0)


def _parts(n: int) -> Iterator[slice]:
    """Yield slices of rows so small that (rows, k, genes) fits into memory."""
    return (slice(start, start + 256) for start in range(0, n, 256))


def _mean(w: NDArray[np.float32], near: NDArray[np.float32]) -> NDArray[np.float32]:
    out: NDArray[np.float32] = np.einsum("nk,nkg->ng", w, near, optimize=True)
    return out
