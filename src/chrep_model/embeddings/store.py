"""Store of one slide's embeddings on disk as zarr, which several processes can use at once.

Rows are stored in segments, each a zarr group that gets its final name when it is complete, and is never
changed. So no locks are needed; at worst, two processes encode the same tile. Checksums detect segments that
were damaged by a crash.

::

    STORE/
        prepared.json         the encoder's state for the slide, and the standardisation
        grids/STRIDE/*/       segments: `indices` (n,) of grid tiles and `values` (n, dim)
        points/NAME/          embeddings `values` (n, dim) of one set of points
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec

from chrep_model.errors import ChrepError
from chrep_model.files import unwritable_as_error, write_atomically
from chrep_model.zarr_check import open_group

LAYOUT = 2
"""Version of this layout; stores of other versions are not used, and deleted by `trim_cache` in time."""

CHUNK = 256
"""Smallest number of rows that is read; a segment is one shard of such chunks."""

SEGMENT = 1024
"""Number of rows that are written at once, and so the most that a crash can lose."""

_UNWRITABLE = (
    ChrepError,
    "embeddings cannot be kept here",
    "Let CHREP_CACHE name a folder that can be written and has room.",
)

Rows = NDArray[np.float32]
Indices = NDArray[np.int64]


class _UnsafeError(ChrepError):
    """Raised if the folder is not a safe store of embeddings, see `check_zarr`."""


class Store:
    """The folder of one slide's embeddings.

    Parameters
    ----------
    path : Path
        Folder of the store; created if missing.
    dim : int
        Length of an embedding.

    Raises
    ------
    ChrepError
        The store is damaged, or the disk is full or not writable; raised by any method.
    """

    def __init__(self, path: Path, dim: int) -> None:
        self.path, self.dim = path, dim
        with self.errors_as_chrep():
            path.parent.mkdir(parents=True, exist_ok=True)
            zarr.open_group(path, mode="a")
            os.utime(path)  # `trim_cache` deletes the oldest stores

    def prepared(self) -> tuple[dict[str, Any], Rows, Rows] | None:
        """Return the encoder's slide state and the sample's mean and sd (dim,); None if not stored."""
        with self.errors_as_chrep():
            try:
                facts = json.loads((self.path / "prepared.json").read_text(encoding="utf-8"))
            except FileNotFoundError:
                return None
            return facts["state"], np.array(facts["mean"], np.float32), np.array(facts["sd"], np.float32)

    def set_prepared(self, state: dict[str, Any], mean: Rows, sd: Rows) -> None:
        """Store the encoder's slide state and the sample's mean and sd (dim,)."""
        text = json.dumps({"state": state, "mean": mean.tolist(), "sd": sd.tolist()})
        with self._new_path(self.path / "prepared.json") as part:
            part.write_text(text, encoding="utf-8")

    def points(self, name: str) -> Rows | None:
        """Return the embeddings (n, dim) of a set of points; None unless all are stored."""
        folder = self.path / "points" / name
        with self.errors_as_chrep():
            try:
                values: Rows | None = _read(folder, "values") if folder.is_dir() else None
            except FileNotFoundError:  # being deleted by `trim_cache`
                return None
        return None if values is None or np.isnan(values).any() else values

    def set_points(self, name: str, values: Rows) -> None:
        """Store the embeddings of a set of points."""
        with self._new_path(self.path / "points" / name) as part:
            _write(part, values=values)

    def segments(self, grid: str) -> list[str]:
        """Return the names of the segments of a grid stored so far."""
        folder = self.path / "grids" / grid
        with self.errors_as_chrep():
            try:
                return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
            except FileNotFoundError:
                return []

    def indices(self, grid: str, segment: str) -> Indices:
        """Return the tiles (n,) of a segment; empty if it has been trimmed."""
        with self.errors_as_chrep():
            try:
                found: Indices = _read(self.path / "grids" / grid / segment, "indices")
            except FileNotFoundError:
                return np.empty(0, np.int64)
        return found[found >= 0]

    def values(self, grid: str, segment: str, count: int) -> Rows:
        """Return the embeddings (count, dim) of a segment; NaN if it has been trimmed."""
        with self.errors_as_chrep():
            try:
                found: Rows = _read(self.path / "grids" / grid / segment, "values")
            except FileNotFoundError:
                return np.full((count, self.dim), np.nan, np.float32)
        return found

    def add_segment(self, grid: str, indices: Indices, values: Rows) -> str:
        """Store embeddings (n, dim) of tiles of a grid, and return the segment's name."""
        name = uuid.uuid4().hex
        with self._new_path(self.path / "grids" / grid / name) as part:
            zarr.open_group(self.path, mode="a")  # another process may have deleted the store
            _write(part, indices=indices, values=values)
        return name

    @contextmanager
    def _new_path(self, target: Path) -> Iterator[Path]:
        """Yield a temporary path, renamed to `target` afterwards unless another process was faster."""
        with (
            self.errors_as_chrep(),
            write_atomically(target, *_UNWRITABLE, about=self.path, once=True) as part,
        ):
            part.parent.mkdir(parents=True, exist_ok=True)
            yield part

    @contextmanager
    def errors_as_chrep(self) -> Iterator[None]:
        """Convert errors of the disk and of zarr to a ChrepError for the user."""
        try:
            with unwritable_as_error(self.path, *_UNWRITABLE):
                yield
        except (RuntimeError, ValueError, KeyError, TypeError, _UnsafeError) as error:
            raise ChrepError(
                "the embeddings kept here are damaged",
                path=self.path,
                remedy="Delete this folder; they are then computed again.",
            ) from error


def _write(folder: Path, **arrays: NDArray[Any]) -> None:
    group = zarr.open_group(folder, mode="w")
    for name, values in arrays.items():
        rest = values.shape[1:]
        shard = max(1, -(-len(values) // CHUNK)) * CHUNK
        array = group.create_array(
            name, shape=values.shape, dtype=values.dtype, chunks=(CHUNK, *rest), shards=(shard, *rest),
            compressors=[Crc32cCodec()],  # embeddings hardly compress; checksums detect damage
            fill_value=np.nan if values.dtype.kind == "f" else -1,  # for chunks that were deleted
        )  # fmt: skip
        array[...] = values


def _read(folder: Path, name: str) -> NDArray[Any]:
    group = open_group(folder, _UnsafeError)
    if name not in group:
        raise FileNotFoundError(f"{folder / name} is gone")
    array: Any = group[name]
    values: NDArray[Any] = array[...]
    return values
