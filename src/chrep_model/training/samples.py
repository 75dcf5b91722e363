"""Training spots as arrays (`SpotTable`), and batches of neighbouring spots."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

from chrep_model.errors import SettingsError
from chrep_model.networks.graph import spot_graph, topology
from chrep_model.training.objective import SpotBatch
from chrep_model.training.streamed import LARGE, Streamed, kept

_HALF = 1 / 3

Rows = NDArray[np.bool_] | slice
Columns = NDArray[np.int64] | slice


def complete_is_none(
    measured: NDArray[np.bool_] | None, section: NDArray[np.int64]
) -> NDArray[np.bool_] | None:
    """Return `measured` (sections, genes), or None if all sections of these spots measured every gene."""
    return None if measured is None or measured[np.unique(section)].all() else measured


def groups(measured: NDArray[np.bool_] | None, section: NDArray[np.int64]) -> list[tuple[Rows, Columns]]:
    """Group genes by the sections that measured them; see `SpotTable.groups`.

    Parameters
    ----------
    measured : ndarray or None
        (sections, genes) bool.
    section : ndarray
        (n,) int, section number of every spot.
    """
    if measured is None:
        return [(slice(None), slice(None))]
    numbers = np.unique(section)
    patterns, of_gene = np.unique(measured[numbers], axis=1, return_inverse=True)
    return [
        (np.isin(section, numbers[pattern]), np.flatnonzero(of_gene.ravel() == i))
        for i, pattern in enumerate(patterns.T)
        if pattern.any()
    ]


@dataclass(frozen=True)
class SpotTable:
    """Spots of several sections, one row each.

    Attributes
    ----------
    features : ndarray
        (n, d) float32 embeddings, standardised per slide; a `Streamed` for large tables.
    targets : ndarray
        (n, genes) float32 expression, standardised on the training sections. If a section did not measure a
        gene, it is 0, the mean of the training spots.
    section, patient : ndarray
        (n,) int, numbers of the section and of its patient.
    position : ndarray
        (n, 2) float64, spot centres in µm from the section's own origin.
    section_names : tuple of str
        Names of the sections, by their numbers in `section`.
    depth : ndarray
        (n,) float32, total counts of the spot over all genes of the panel.
    measured : ndarray or None
        (sections, genes) bool, which section, by its number, measured which gene; None if every section
        measured every gene.
    """

    features: NDArray[np.float32]
    targets: NDArray[np.float32]
    section: NDArray[np.int64]
    patient: NDArray[np.int64]
    position: NDArray[np.float64]
    section_names: tuple[str, ...]
    depth: NDArray[np.float32]
    measured: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.features)

    def arrays(self) -> list[NDArray[Any] | Streamed]:
        """Return all arrays of the table."""
        return [value for value in vars(self).values() if isinstance(value, np.ndarray | Streamed)]

    def rows(self, keep: NDArray[np.bool_]) -> SpotTable:
        """Return the table of the spots for which the mask `keep`, (n,) bool, is true."""
        if keep.all():
            return self  # without a copy in memory
        return SpotTable(
            kept(self.features, keep),
            self.targets[keep],
            self.section[keep],
            self.patient[keep],
            self.position[keep],
            self.section_names,
            self.depth[keep],
            complete_is_none(self.measured, self.section[keep]),
        )

    def groups(self) -> list[tuple[Rows, Columns]]:
        """Group the genes by the set of sections that measured them.

        Returns
        -------
        list of (rows, columns)
            The spots of a set of sections, and the genes that exactly these sections measured. A gene that no
            section measured is in no group. A single pair of full slices if every section measured every
            gene.
        """
        return groups(self.measured, self.section)

    def learnable(self) -> NDArray[np.bool_] | None:
        """Return, for each section, the genes that both it and at least one other section measured.

        Only for these genes can a model trained on the other sections be tested on this one.

        Returns
        -------
        ndarray or None
            (sections, genes) bool; None if every section measured every gene.
        """
        if self.measured is None:
            return None
        return self.measured & (self.measured[np.unique(self.section)].sum(0) > 1)

    def testable(self, section: int) -> Columns:
        """Return the columns of the genes that are `learnable` for one section."""
        learnable = self.learnable()
        return slice(None) if learnable is None else np.flatnonzero(learnable[section])

    def in_memory(self) -> SpotTable:
        """Return the table with streamed features read into memory; itself if none are streamed.

        Raises
        ------
        SettingsError
            The features are larger than this machine's memory.
        """
        if not isinstance(self.features, Streamed):
            return self
        size, room = 4 * len(self) * self.features.shape[1], _memory()
        if size > room:
            raise SettingsError(
                f"the features of {len(self):,} spots take {size / 1e9:.1f} GB, "
                f"and this machine has {room / 1e9:.1f} GB of memory",
                remedy="Use the method chrep, which reads them in parts.",
            )
        return replace(self, features=self.features[:])

    def reliability(self) -> NDArray[np.float32]:
        """Return the weight of a spot's values, (n,) in [0, 1], by its sequencing depth.

        A spot with `_HALF` times the median depth has half the weight of one with infinite depth.
        """
        half = _HALF * max(float(np.median(self.depth)), 1.0)
        return (self.depth / (self.depth + half)).astype(np.float32)

    def unit_position(self) -> NDArray[np.float32]:
        """Return spot positions scaled to [0, 1] in each section and axis, (n, 2)."""
        out = np.zeros(self.position.shape, np.float32)
        for s in np.unique(self.section):
            rows = self.section == s
            p = self.position[rows]
            span = np.maximum(p.max(0) - p.min(0), 1e-6)
            out[rows] = (p - p.min(0)) / span
        return out

    def graph(self) -> sp.csr_matrix:
        """Return the sections' spot graphs as one matrix, (n, n); columns are sorted."""
        edges = []
        for s in np.unique(self.section):
            rows = np.flatnonzero(self.section == s).astype(np.int32)
            graph = spot_graph(self.position[rows]).tocoo()
            edges.append((rows[graph.row], rows[graph.col]))
        row, column = (np.concatenate(part) for part in zip(*edges, strict=True))
        whole = sp.csr_matrix((np.ones(len(row), np.float32), (row, column)), shape=(len(self), len(self)))
        whole.sort_indices()
        return whole


class SpotBatches:
    """Random batches of training spots, with every spot once per epoch.

    Parameters
    ----------
    table : SpotTable
        The training spots.
    size : int
        Spots per batch.
    """

    def __init__(self, table: SpotTable, size: int) -> None:
        self.graph = table.graph()
        # A_topo has about forty numbers per spot; for large tables it is computed batch by batch.
        self.topology = topology(self.graph) if len(table) <= LARGE else None
        if self.topology is None:
            self.graph = self.graph.astype(bool)
        self.targets = torch.from_numpy(table.targets)
        self.section = torch.from_numpy(table.section)
        self.position = torch.from_numpy(table.unit_position())
        self.measured = None if table.measured is None else torch.from_numpy(table.measured)
        self.size = size
        self.per_epoch = max(1, len(table) // size)

    def epoch(self, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
        """Yield the row numbers of each batch; batches are of nearly equal size, without a small last one."""
        yield from np.array_split(rng.permutation(len(self.section)), self.per_epoch)

    def batch(self, rows: NDArray[np.int64]) -> SpotBatch:
        """Return everything but the features that a loss needs for these rows."""
        return SpotBatch(
            rows=rows,
            targets=self.targets[rows],
            section=self.section[rows],
            position=self.position[rows],
            adjacency=torch.from_numpy(self.adjacency(rows)),
            measured=None if self.measured is None else self.measured[self.section[rows]],
        )

    def adjacency(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the adjacency (A_topo) among the given rows as a dense matrix (b, b)."""
        whole = topology(self.graph, rows=rows) if self.topology is None else self.topology[rows]
        return whole[:, rows].toarray()


class NeighbourBatches(SpotBatches):
    """Batches of several sections, with a patch of neighbouring spots from each.

    Random batches have almost no edges of the spot graph, which the topology loss needs; a patch grown
    breadth-first around a random spot keeps its edges.

    Parameters
    ----------
    table : SpotTable
        The training spots.
    sections, spots : int
        Number of sections per batch, and of spots per section.
    """

    def __init__(self, table: SpotTable, sections: int = 4, spots: int = 64) -> None:
        self.members = [np.flatnonzero(table.section == s) for s in np.unique(table.section)]
        self.sections, self.spots = min(sections, len(self.members)), spots
        super().__init__(table, self.sections * spots)
        # One graph per section, because the time of a search grows with the size of the whole graph.
        self.graphs = [self.graph[rows][:, rows] for rows in self.members]
        self.per_epoch = max(1, round(len(table) / self.size))

    def epoch(self, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
        """Yield the row numbers of each batch."""
        for _ in range(self.per_epoch):
            chosen = rng.choice(len(self.members), self.sections, replace=False)
            yield np.concatenate([self._patch(s, rng) for s in chosen])

    def _patch(self, section: int, rng: np.random.Generator) -> NDArray[np.int64]:
        members = self.members[section]
        if len(members) <= self.spots:
            return members
        seed = np.searchsorted(members, rng.choice(members))
        order = sp.csgraph.breadth_first_order(self.graphs[section], seed, return_predecessors=False)
        patch = members[order[: self.spots]]
        if len(patch) < self.spots:  # a connected part smaller than the patch: add other spots of the section
            rest = np.setdiff1d(members, patch)
            patch = np.concatenate([patch, rng.choice(rest, self.spots - len(patch), replace=False)])
        return patch.astype(np.int64)


def _memory() -> int:
    """Return the bytes of this machine's memory; a huge number if the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return 2**63
