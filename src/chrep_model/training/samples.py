"""Training spots as arrays, and batches that keep neighbours together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

from chrep_model.networks.graph import spot_graph, topology
from chrep_model.training.objective import SpotBatch

_HALF = 1 / 3


@dataclass(frozen=True)
class SpotTable:
    """Spots of several sections, row by row.

    Attributes
    ----------
    features : ndarray
        (n, d) float32 embeddings, standardised per slide.
    targets : ndarray
        (n, genes) float32 expression, standardised on the training sections.
    section, patient : ndarray
        (n,) int, numbers of the section and of its patient.
    position : ndarray
        (n, 2) float64, spot centres in µm, per section from its own origin.
    section_names : tuple of str
        Names behind the numbers in `section`.
    depth : ndarray
        (n,) float32, counts of the spot over all genes of the panel.
    """

    features: NDArray[np.float32]
    targets: NDArray[np.float32]
    section: NDArray[np.int64]
    patient: NDArray[np.int64]
    position: NDArray[np.float64]
    section_names: tuple[str, ...]
    depth: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.features)

    def arrays(self) -> list[NDArray[Any]]:
        """Everything that is measured or computed of the spots, array by array."""
        return [value for value in vars(self).values() if isinstance(value, np.ndarray)]

    def rows(self, keep: NDArray[np.bool_]) -> SpotTable:
        """Keep the spots where `keep`, (n,) bool, is true."""
        return SpotTable(
            self.features[keep],
            self.targets[keep],
            self.section[keep],
            self.patient[keep],
            self.position[keep],
            self.section_names,
            self.depth[keep],
        )

    def reliability(self) -> NDArray[np.float32]:
        """How much a spot's measured values count, (n,) in [0, 1]: its depth against counting noise.

        A spot of `_HALF` times the median depth counts half as much as one that was counted without end.
        """
        half = _HALF * max(float(np.median(self.depth)), 1.0)
        return (self.depth / (self.depth + half)).astype(np.float32)

    def unit_position(self) -> NDArray[np.float32]:
        """Positions scaled to [0, 1] per section and axis, (n, 2): what the coordinate branch reads."""
        out = np.zeros(self.position.shape, np.float32)
        for s in np.unique(self.section):
            rows = self.section == s
            p = self.position[rows]
            span = np.maximum(p.max(0) - p.min(0), 1e-6)
            out[rows] = (p - p.min(0)) / span
        return out

    def graph(self) -> sp.csr_matrix:
        """The sections' spot graphs as one block-diagonal matrix, (n, n)."""
        n = len(self)
        blocks = sp.lil_matrix((n, n), dtype=np.float32)
        for s in np.unique(self.section):
            rows = np.flatnonzero(self.section == s)
            blocks[np.ix_(rows, rows)] = spot_graph(self.position[rows])
        return blocks.tocsr()


class SpotBatches:
    """Batches of training spots at random, all spots once an epoch.

    Parameters
    ----------
    table : SpotTable
        The training spots.
    size : int
        Spots per batch.
    """

    def __init__(self, table: SpotTable, size: int) -> None:
        self.graph = table.graph()
        self.topology = topology(self.graph)
        self.targets = torch.from_numpy(table.targets)
        self.section = torch.from_numpy(table.section)
        self.position = torch.from_numpy(table.unit_position())
        self.size = size
        self.per_epoch = max(1, len(table) // size)

    def epoch(self, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
        """Yield row numbers, one array a batch; what is left over joins the last ones."""
        yield from np.array_split(rng.permutation(len(self.section)), self.per_epoch)

    def batch(self, rows: NDArray[np.int64]) -> SpotBatch:
        """Everything beside the features that a loss may read of these rows."""
        return SpotBatch(
            rows=rows,
            targets=self.targets[rows],
            section=self.section[rows],
            position=self.position[rows],
            adjacency=torch.from_numpy(self.adjacency(rows)),
        )

    def adjacency(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """A_topo among the given rows, (b, b) dense."""
        return self.topology[rows][:, rows].toarray()


class NeighbourBatches(SpotBatches):
    """Batches of several sections with a patch of neighbouring spots each.

    Random batches hold almost no edge of the spot graph, and the topology loss would say nothing; a patch
    grown breadth-first around a random seed spot keeps its edges.

    Parameters
    ----------
    table : SpotTable
        The training spots.
    sections, spots : int
        Sections per batch, and spots per section.
    """

    def __init__(self, table: SpotTable, sections: int = 4, spots: int = 64) -> None:
        self.members = [np.flatnonzero(table.section == s) for s in np.unique(table.section)]
        self.sections, self.spots = min(sections, len(self.members)), spots
        super().__init__(table, self.sections * spots)
        self.per_epoch = max(1, round(len(table) / self.size))

    def epoch(self, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
        """Yield row numbers, one array a batch."""
        for _ in range(self.per_epoch):
            chosen = rng.choice(len(self.members), self.sections, replace=False)
            yield np.concatenate([self._patch(self.members[s], rng) for s in chosen])

    def _patch(self, members: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        if len(members) <= self.spots:
            return members
        order = sp.csgraph.breadth_first_order(self.graph, rng.choice(members), return_predecessors=False)
        patch = order[: self.spots]
        if len(patch) < self.spots:  # an island smaller than the batch: fill up from elsewhere on the section
            rest = np.setdiff1d(members, patch)
            patch = np.concatenate([patch, rng.choice(rest, self.spots - len(patch), replace=False)])
        return patch.astype(np.int64)
