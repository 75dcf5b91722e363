"""Make an index of a gallery, and measure how many of its lists have to be looked at."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from chrep_model.calibration.gallery import Gallery
from chrep_model.calibration.index import Index, IndexFacts, faiss, ranked_in_lists
from chrep_model.mapped_arrays import read_rows, slices
from chrep_model.progress import SILENT, Progress

LARGE = 1_000_000
"""Up to so many rows, the exact search takes a CPU no longer than the encoder does."""

RECALL = 0.99
"""An index that finds less of the nearest spots is not used."""

QUERIES = 128
"""So many spots of the gallery are looked for to measure an index."""

_SAMPLE = 64
"""Rows per list from which the lists' centres are made."""

_ADDED = 65_536
"""Rows added at a time."""


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
        return cls(gallery, k, rows, read_rows(gallery.z, rows))

    def nearest(self) -> NDArray[np.int64]:
        """Return the k nearest rows of each query, (queries, k) int64."""
        section = self.gallery.section[self.rows]
        exclude: Literal["section", "self"] = "section" if self._several() else "self"
        return self.gallery.search(
            self.queries, self.k, exclude=exclude, section=section, row=self.rows
        ).index  # fmt: skip

    def nearest_in(self, lists: Any, probes: int) -> NDArray[np.int64]:
        """Those that the lists give, (queries, k) int64; in a single section one more, which is the spot."""
        if not self._several():
            return ranked_in_lists(lists, probes, self.queries, self.gallery.z, self.k + 1)[0]
        out = np.empty((len(self.rows), self.k), np.int64)
        section = self.gallery.section[self.rows]
        for number in np.unique(section):
            asks, elsewhere = section == number, self.gallery.section != number
            queries = self.queries[asks]
            out[asks] = ranked_in_lists(lists, probes, queries, self.gallery.z, self.k, elsewhere)[0]
        return out

    def _several(self) -> bool:
        return len(self.gallery.section_names) > 1


def _filled(rows: Any, rng: np.random.Generator, seed: int, progress: Progress) -> Any:
    """Rows in lists around centres that are made of a sample of them.

    The more lists, the fewer rows have to be looked at, and the longer it takes to fill them.
    """
    library = faiss()
    n, d = rows.shape
    count = 2 * math.isqrt(n)
    lists = library.index_factory(d, f"IVF{count},PQ{d}x4fs", library.METRIC_INNER_PRODUCT)
    lists.cp.seed = seed
    progress.message(f"an index of {n:,} spots")
    lists.train(read_rows(rows, np.sort(rng.choice(n, min(n, _SAMPLE * count), replace=False))))
    for block in slices(n, _ADDED):
        lists.add(read_rows(rows, block))
        progress.message(f"an index of {n:,} spots: {block.stop:,}")
    return lists


def _timed(work: Callable[[], NDArray[np.int64]]) -> tuple[NDArray[np.int64], float]:
    started = time.perf_counter()
    found = work()
    return found, time.perf_counter() - started
