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
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from chrep_model.blocks import blocks, read
from chrep_model.calibration.search import nearest, similarities
from chrep_model.progress import SILENT, Progress

if TYPE_CHECKING:
    from chrep_model.calibration.gallery import Gallery

LARGE = 1_000_000
"""Up to so many rows, the exact search takes a CPU no longer than the encoder does."""

RECALL = 0.99
"""An index that finds less of the nearest spots is not used."""

QUERIES = 128
"""So many spots of the gallery are looked for to measure an index."""

_SAMPLE = 64
"""Rows per list from which the lists' centres are made."""

_SPARE = 4
"""Rows taken from the lists for each that is wanted."""

_ADDED, _RANKED = 65_536, 64
"""Rows added, and queries ranked, at a time."""

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
        That it and the exact search took for `QUERIES` of them.
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
        return cls(_faiss().read_index(str(path)), facts)

    def save(self, path: Path) -> None:
        """Write the lists to a file; OSError where that cannot be."""
        try:
            _faiss().write_index(self.lists, str(path))
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
        index, similarity = _ranked(self.lists, self.facts.probes, queries, rows, k)
        few = np.flatnonzero(similarity[:, -1] == -np.inf)  # their lists held fewer than k
        if len(few):
            index[few], similarity[few] = nearest(queries[few], rows, k)
        return index, similarity


def available() -> bool:
    """Whether faiss is installed."""
    return importlib.util.find_spec("faiss") is not None


def _faiss() -> Any:
    """The library, without its types: they lack what its Python layer adds."""
    return importlib.import_module("faiss")


def make_index(gallery: Gallery, k: int, *, seed: int = 0, progress: Progress = SILENT) -> Index | None:
    """Make an index of a gallery, and find how many of its lists have to be looked at.

    Parameters
    ----------
    gallery : Gallery
        Training spots, in memory or mapped; they are read in parts.
    k : int
        Neighbours that are to be found.
    seed : int
        The one seed.
    progress : Progress
        Told what is being done.

    Returns
    -------
    Index or None
        None where the exact search is as fast by the time that `RECALL` of the k nearest spots are found.
    """
    rng = np.random.default_rng(seed)
    lists = _filled(gallery.z, rng, seed, progress)
    progress.message("measuring the index")
    spots = _Sample.of(gallery, k, rng)
    spots.nearest()  # rows come from the disk the first time
    expected, exact_seconds = _timed(spots.nearest)
    for power in range(lists.nlist.bit_length() + 1):
        probes = min(2**power, lists.nlist)
        found, seconds = _timed(partial(spots.nearest_in, lists, probes))
        if seconds >= exact_seconds:
            break
        recall = float(np.mean([np.isin(*pair).mean() for pair in zip(expected, found, strict=True)]))
        if recall >= RECALL:
            facts = IndexFacts(
                rows=len(gallery), lists=lists.nlist, probes=probes, k=k, recall=recall, seconds=seconds,
                exact_seconds=exact_seconds,
            )  # fmt: skip
            return Index(lists, facts)
    return None


@dataclass(frozen=True)
class _Sample:
    """Spots of a gallery that look for others: outside of their own section, if there is more than one."""

    gallery: Gallery
    k: int
    rows: NDArray[np.int64]
    queries: NDArray[np.float32]

    @classmethod
    def of(cls, gallery: Gallery, k: int, rng: np.random.Generator) -> _Sample:
        rows = np.sort(rng.choice(len(gallery), min(QUERIES, len(gallery)), replace=False))
        return cls(gallery, k, rows, read(gallery.z, rows))

    def nearest(self) -> NDArray[np.int64]:
        """The k nearest, (queries, k) int64."""
        section = self.gallery.section[self.rows]
        exclude: Literal["section", "self"] = "section" if self._several() else "self"
        return self.gallery.search(
            self.queries, self.k, exclude=exclude, section=section, row=self.rows
        ).index  # fmt: skip

    def nearest_in(self, lists: Any, probes: int) -> NDArray[np.int64]:
        """Those that the lists give, (queries, k) int64; in a single section one more, which is the spot."""
        if not self._several():
            return _ranked(lists, probes, self.queries, self.gallery.z, self.k + 1)[0]
        out = np.empty((len(self.rows), self.k), np.int64)
        section = self.gallery.section[self.rows]
        for number in np.unique(section):
            asks, elsewhere = section == number, self.gallery.section != number
            out[asks] = _ranked(lists, probes, self.queries[asks], self.gallery.z, self.k, elsewhere)[0]
        return out

    def _several(self) -> bool:
        return len(self.gallery.section_names) > 1


def _filled(rows: Any, rng: np.random.Generator, seed: int, progress: Progress) -> Any:
    """Rows in lists around centres that are made of a sample of them.

    The more lists, the fewer rows have to be looked at, and the longer it takes to fill them.
    """
    faiss = _faiss()
    n, d = rows.shape
    count = 2 * math.isqrt(n)
    lists = faiss.index_factory(d, f"IVF{count},PQ{d}x4fs", faiss.METRIC_INNER_PRODUCT)
    lists.cp.seed = seed
    progress.message(f"an index of {n:,} spots")
    lists.train(read(rows, np.sort(rng.choice(n, min(n, _SAMPLE * count), replace=False))))
    for block in blocks(n, _ADDED):
        lists.add(read(rows, block))
        progress.message(f"an index of {n:,} spots: {block.stop:,}")
    return lists


def _ranked(
    lists: Any,
    probes: int,
    queries: NDArray[np.float32],
    rows: Any,
    k: int,
    among: NDArray[np.bool_] | None = None,
) -> Found:
    """The k most similar rows in the nearest lists; -inf, and row 0, where these hold fewer."""
    faiss = _faiss()
    chosen = None if among is None else faiss.IDSelectorBitmap(np.packbits(among, bitorder="little"))
    look = faiss.SearchParametersIVF(nprobe=probes, sel=chosen)
    index = np.zeros((len(queries), k), np.int64)
    similarity = np.full(index.shape, -np.inf, np.float32)
    for part in blocks(len(queries), _RANKED):
        found = np.sort(lists.search(queries[part], min(_SPARE * k, len(rows)), params=look)[1], axis=1)
        query, place = np.nonzero(found >= 0)
        value = np.full(found.shape, -np.inf, np.float32)
        value[query, place] = similarities(queries[part][query], read(rows, found[query, place]))
        order = np.argsort(-value, axis=1, kind="stable")[:, :k]
        similarity[part] = np.take_along_axis(value, order, axis=1)
        index[part] = np.maximum(np.take_along_axis(found, order, axis=1), 0)
    return index, similarity


def _timed(work: Callable[[], NDArray[np.int64]]) -> tuple[NDArray[np.int64], float]:
    started = time.perf_counter()
    found = work()
    return found, time.perf_counter() - started
