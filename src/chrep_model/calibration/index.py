"""An index of a gallery of very many spots: only rows in the lists nearest to a query are looked at.

The lists are faiss's: rows around common centres, half a byte per number. Some times as many rows as are
wanted are taken from them and ranked by `search.similarities`, so that whatever is found has the similarity,
and among what is found the place, that the exact search gives it. Some of the nearest rows lie in lists that
are not looked at, or seem farther away than they are. How many are found is measured, on spots of the
gallery, against the exact search.
"""

from __future__ import annotations

import errno
import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from chrep_model.calibration.search import nearest, similarities
from chrep_model.mapped_arrays import read_rows, slices

_SPARE = 4
"""Rows taken from the lists for each that is wanted."""

_RANKED = 64
"""Queries ranked at a time."""

Found = tuple[NDArray[np.int64], NDArray[np.float32]]


class IndexFacts(BaseModel):
    """What an index is, and what it was measured to do.

    Attributes
    ----------
    rows : int
        Of the gallery.
    lists, probes : int
        Lists that there are, and that are looked at for a query.
    k : int
        Neighbours for which it was measured.
    recall : float
        Share of the k nearest spots that it finds, for spots that look outside of their own section.
    seconds, exact_seconds : float
        That it and the exact search took for the same spots.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: int = Field(gt=0)
    lists: int = Field(gt=0)
    probes: int = Field(gt=0)
    k: int = Field(gt=0)
    recall: float = Field(ge=0, le=1)
    seconds: float = Field(ge=0)
    exact_seconds: float = Field(ge=0)


@dataclass(frozen=True)
class Index:
    """An index of a gallery's rows.

    Attributes
    ----------
    lists : faiss.IndexIVF
        The rows in lists.
    facts : IndexFacts
        How many of the lists to look at, and what is found then.
    """

    lists: Any
    facts: IndexFacts

    @classmethod
    def open(cls, path: Path, facts: IndexFacts) -> Index:
        """Read the lists from a file; RuntimeError where it is damaged."""
        return cls(faiss().read_index(str(path)), facts)

    def save(self, path: Path) -> None:
        """Write the lists to a file; OSError where that cannot be."""
        try:
            faiss().write_index(self.lists, str(path))
        except RuntimeError as error:
            raise OSError(errno.EIO, "the disk may be full", str(path)) from error

    def nearest(self, queries: NDArray[np.float32], rows: Any, k: int) -> Found:
        """Find k rows for each query, as `search.nearest` does, most of them the nearest.

        Parameters
        ----------
        queries : ndarray
            (n, d) float32, finite.
        rows : array-like
            (m, d) float32, the gallery that the index was made of.
        k : int
            At most m.

        Returns
        -------
        index, similarity : ndarray
            (n, k) int64 and float32, most similar first; ties go to the smaller row.
        """
        index, similarity = ranked_in_lists(self.lists, self.facts.probes, queries, rows, k)
        few = np.flatnonzero(similarity[:, -1] == -np.inf)  # their lists held fewer than k
        if len(few):
            index[few], similarity[few] = nearest(queries[few], rows, k)
        return index, similarity


def available() -> bool:
    """Whether faiss is installed."""
    return importlib.util.find_spec("faiss") is not None


def faiss() -> Any:
    """Import the library; without its types, which lack what its Python layer adds."""
    return importlib.import_module("faiss")


def ranked_in_lists(
    lists: Any,
    probes: int,
    queries: NDArray[np.float32],
    rows: Any,
    k: int,
    among: NDArray[np.bool_] | None = None,
) -> Found:
    """Return the k most similar rows in the nearest lists; -inf, and row 0, where these hold fewer.

    Parameters
    ----------
    lists : faiss.IndexIVF
        Of all `rows`.
    probes : int
        How many of the lists to look at.
    queries, rows
        (n, d) and (m, d) float32; of `rows` parts are read.
    among : ndarray, optional
        (m,) bool, which rows may be found; all unless given.
    """
    library = faiss()
    chosen = None if among is None else library.IDSelectorBitmap(np.packbits(among, bitorder="little"))
    look = library.SearchParametersIVF(nprobe=probes, sel=chosen)
    index = np.zeros((len(queries), k), np.int64)
    similarity = np.full(index.shape, -np.inf, np.float32)
    for part in slices(len(queries), _RANKED):
        found = np.sort(lists.search(queries[part], min(_SPARE * k, len(rows)), params=look)[1], axis=1)
        query, place = np.nonzero(found >= 0)
        value = np.full(found.shape, -np.inf, np.float32)
        value[query, place] = similarities(queries[part][query], read_rows(rows, found[query, place]))
        order = np.argsort(-value, axis=1, kind="stable")[:, :k]
        similarity[part] = np.take_along_axis(value, order, axis=1)
        index[part] = np.maximum(np.take_along_axis(found, order, axis=1), 0)
    return index, similarity
