"""The batches of a prediction: the last ones in memory, all others in temporary files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chrep_model.mapped_arrays import move_to_disk, release_pages

if TYPE_CHECKING:
    from chrep_model.methods.base import Response

BLOCK = 2048
"""Number of tiles, of some kB each, that are moved to a file together. Many small arrays left in memory would
also fragment it."""


@dataclass(frozen=True)
class PredictionPart:
    """One batch of a prediction.

    Attributes
    ----------
    indices : ndarray
        (b,) int64 flat indices of the grid.
    response : dict of ndarray
        The method's response, one row per tile.
    """

    indices: NDArray[np.int64]
    response: Response

    def rows(self, which: slice | NDArray[Any]) -> PredictionPart:
        """Return some of the part's tiles."""
        response = {name: np.asarray(values[which]) for name, values in self.response.items()}
        return PredictionPart(self.indices[which], response)


class Parts:
    """Parts in the order of arrival; one thread may add parts while others read."""

    def __init__(self) -> None:
        # Replaced, never changed in place, so that readers keep a consistent tuple.
        self._parts: tuple[PredictionPart, ...] = ()
        self._on_disk = 0  # number of parts in files, the first ones
        self._in_memory = 0  # number of tiles of the other parts

    def __iter__(self) -> Iterator[PredictionPart]:
        """Yield the current parts; memory pages of each file are released after its part was read."""
        for part in self._parts:
            yield part
            for values in part.response.values():
                release_pages(values)

    def add(self, part: PredictionPart) -> None:
        """Append a part."""
        parts = (*self._parts, part)
        self._in_memory += len(part.indices)
        if self._in_memory >= BLOCK:
            parts = (*parts[: self._on_disk], _block(parts[self._on_disk :]))
            self._on_disk, self._in_memory = len(parts), 0
        self._parts = parts

    def indices(self) -> NDArray[np.int64]:
        """Return the tiles of all parts, (n,)."""
        return np.concatenate([np.empty(0, np.int64), *(part.indices for part in self._parts)])

    def column(self, name: str) -> NDArray[Any]:
        """Return one array of the responses over all tiles, (n, ...)."""
        return np.concatenate([part.response[name] for part in self._parts])


def _block(parts: Sequence[PredictionPart]) -> PredictionPart:
    whole = {name: np.concatenate([part.response[name] for part in parts]) for name in parts[0].response}
    # Arrays with one number per tile stay in memory: they are small, and read for all tiles at once.
    wide = move_to_disk({name: values for name, values in whole.items() if values.ndim > 1})
    return PredictionPart(np.concatenate([part.indices for part in parts]), whole | wide)
