"""Tiles to embeddings, stored on disk once per slide, encoder and tile, and shared by everything after.

The encoder is the expensive step; heads, gallery and correction are cheap and start from here. Whatever is
standardised per slide is standardised by one fixed sample of the slide's tissue, so that a tile's numbers
never depend on what else was looked at.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from chrep_model.errors import Cancelled, ChrepError, SlideError
from chrep_model.networks.encoder import Encoder, SlideState
from chrep_model.slides.slide import Slide
from chrep_model.slides.tiles import TileGrid, TileReader
from chrep_model.slides.tissue import TissueMask, tissue_mask

SAMPLE = 256
"""Tissue tiles by which a slide is standardised."""

CLIP = 6.0
"""Standardised numbers are cut here: a pen mark or a fold must not outweigh the tissue."""

CHUNK = 256
DEFAULT_CONTEXT_UM = (300.0, 600.0)

Progress = Callable[[int, int, str], None]
"""Called with (done, total, what)."""


class SlideEmbeddings:
    """The embeddings of one slide, computed when asked for and kept.

    Parameters
    ----------
    slide : Slide
        With known µm per px.
    encoder : Encoder
        What turns tiles into numbers.
    cache : Path or None
        Folder of the store; None keeps embeddings in memory alone.
    batch_size : int
        Tiles per call of the encoder; halved when the device runs out of memory.

    Raises
    ------
    ScaleError
        The slide's µm per px are unknown or too coarse for the encoder.
    """

    def __init__(self, slide: Slide, encoder: Encoder, *, cache: Path | None, batch_size: int = 32) -> None:
        self.slide, self.encoder, self.batch_size = slide, encoder, batch_size
        self.reader = TileReader(slide, encoder.spec)
        self.mpp = slide.require_mpp()
        self.grid = TileGrid(slide.shape, self.mpp, encoder.spec)
        self._known = _Rows(self.grid.size, encoder.dim)
        self._store = None if cache is None else _Store(cache / self._key(), self.grid.size, encoder.dim)
        self._prepared: tuple[SlideState, NDArray[np.float32], NDArray[np.float32]] | None = None
        self._tissue: NDArray[np.int64] | None = None
        self._tree: Any = None
        self._mask: TissueMask | None = None

    @property
    def mask(self) -> TissueMask:
        """Where the slide holds tissue."""
        if self._mask is None:
            self._mask = tissue_mask(self.slide)
        return self._mask

    @property
    def tissue(self) -> NDArray[np.int64]:
        """Flat indices of the grid's tissue tiles, ascending."""
        if self._tissue is None:
            self._tissue = self.grid.tissue(self.mask)
        return self._tissue

    def prepare(self, progress: Progress | None = None, cancelled: Callable[[], bool] | None = None) -> None:
        """Look at the slide's sample: fit what the encoder wants to know of it, and the standardisation."""
        if self._prepared is not None:
            return
        stored = self._store.prepared() if self._store else None
        if stored is not None:
            state, mean, sd = stored
        else:
            sample = self._sample()
            state = self.encoder.fit_slide(self.reader.read(self.grid.centres(sample)))
            self._prepared = (state, np.zeros(1, np.float32), np.ones(1, np.float32))
            try:
                raw = self._embed(sample, progress, cancelled)
            finally:
                self._prepared = None  # half prepared is not prepared
            mean, sd = raw.mean(0), raw.std(0)
            sd = np.where(sd < 1e-6, 1.0, sd).astype(np.float32)
            if self._store:
                self._store.set_prepared(state, mean, sd)
        self._prepared = (state, mean, sd)

    def at(
        self,
        centres_xy: NDArray[np.float64],
        context_um: tuple[float, ...] = (),
        *,
        indices: NDArray[np.int64] | None = None,
        rough: bool = False,
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> NDArray[np.float32]:
        """Features around given points: the tile's own embedding and the means over neighbourhoods.

        Parameters
        ----------
        centres_xy : ndarray
            (n, 2) float, (x, y) in level-0 px.
        context_um : tuple of float
            Radii in µm: for each, the mean embedding of the grid's tissue tiles whose centres lie within.
        indices : ndarray, optional
            (n,) flat indices, where the points are tiles of the grid: their embeddings are then shared.
        rough : bool
            Encode the tiles `indices` alone, and take the means over those neighbours that are known by then.

        Returns
        -------
        ndarray
            (n, dim * (1 + len(context_um))) float32, standardised by the slide's sample.

        Raises
        ------
        Cancelled
            `cancelled` said so; what was computed so far is kept.
        """
        self.prepare(progress, cancelled)
        neighbours = [self._within(centres_xy, radius) for radius in context_um]
        if rough and indices is not None:
            self._embed(indices, progress, cancelled)
            neighbours = [[near[self._known.has(near)] for near in part] for part in neighbours]
        wanted = [*neighbours, [indices]] if indices is not None else neighbours
        needed = np.unique(np.concatenate([np.empty(0, np.int64), *(i for part in wanted for i in part)]))
        around = self._standardised(self._embed(needed, progress, cancelled))
        own = self._points(centres_xy, progress, cancelled) if indices is None else self._known[indices]
        means = [_means(around, [np.searchsorted(needed, near) for near in part]) for part in neighbours]
        return np.concatenate([self._standardised(own), *means], axis=1)

    def missing(self, centres_xy: NDArray[np.float64], context_um: tuple[float, ...] = ()) -> int:
        """Count the tiles that the encoder would have to see for `at` around given points; it sees none."""
        sample = [] if self._store and self._store.prepared() else [self._sample()]
        near = [i for radius in context_um for i in self._within(centres_xy, radius)]
        needed = np.unique(np.concatenate([np.empty(0, np.int64), *sample, *near]))
        needed = needed[~self._known.has(needed)]
        if self._store is None:
            return len(needed) + len(centres_xy)
        stored = self._store.points(_name_of(centres_xy)) is not None
        unknown = int(np.isnan(self._store.read(needed)[:, 0]).sum()) if len(needed) else 0
        return unknown + (0 if stored else len(centres_xy))

    def _standardised(self, raw: NDArray[np.float32]) -> NDArray[np.float32]:
        assert self._prepared is not None  # noqa: S101  (`at` prepares)
        _, mean, sd = self._prepared
        return np.clip((raw - mean) / sd, -CLIP, CLIP)

    def _sample(self) -> NDArray[np.int64]:
        if not len(self.tissue):
            raise SlideError(
                "no tissue was found on this slide",
                path=self.slide.path,
                remedy="Check that it is an H&E section on a light or black background.",
            )
        rng = np.random.default_rng(0)  # fixed: the same tiles in training and prediction
        return np.sort(rng.permutation(self.tissue)[:SAMPLE])

    def _within(self, centres_xy: NDArray[np.float64], radius_um: float) -> list[NDArray[np.int64]]:
        from scipy.spatial import cKDTree

        if self._tree is None:
            self._tree = cKDTree(self.grid.centres(self.tissue))
        found = self._tree.query_ball_point(centres_xy, radius_um / self.mpp)
        return [self.tissue[np.sort(np.asarray(near, np.int64))] for near in found]

    def _embed(
        self, indices: NDArray[np.int64], progress: Progress | None, cancelled: Callable[[], bool] | None
    ) -> NDArray[np.float32]:
        """Embeddings of grid tiles, from memory, else the store, else the encoder."""
        missing = indices[~self._known.has(indices)]
        if self._store and len(missing):
            values = self._store.read(missing)
            stored = ~np.isnan(values[:, 0])
            self._known.add(missing[stored], values[stored])
            missing = missing[~stored]
        for part, values in self._encode(self.grid.centres(missing), progress, cancelled):
            self._known.add(missing[part], values)
            if self._store:
                self._store.write(missing[part], values)
        return self._known[indices]

    def _points(
        self, centres_xy: NDArray[np.float64], progress: Progress | None, cancelled: Callable[[], bool] | None
    ) -> NDArray[np.float32]:
        name = _name_of(centres_xy)
        if self._store and (stored := self._store.points(name)) is not None:
            return stored
        out = np.empty((len(centres_xy), self.encoder.dim), np.float32)
        for part, values in self._encode(centres_xy, progress, cancelled):
            out[part] = values
        if self._store:
            self._store.set_points(name, out)
        return out

    def _encode(
        self, centres_xy: NDArray[np.float64], progress: Progress | None, cancelled: Callable[[], bool] | None
    ) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        assert self._prepared is not None  # noqa: S101
        if not len(centres_xy):
            return
        for part, tiles in self.reader.batches(centres_xy, self.batch_size):
            if cancelled is not None and cancelled():
                raise Cancelled("cancelled", path=self.slide.path)
            yield part, self._encode_within_memory(tiles, self._prepared[0])
            if progress is not None:
                progress(part.stop, len(centres_xy), f"tiles of {self.slide.name}")

    def _encode_within_memory(self, tiles: NDArray[np.uint8], state: SlideState) -> NDArray[np.float32]:
        """Encode, in halves of halves where the device has no room for the whole batch."""
        import torch

        try:
            return self.encoder.encode(tiles, state)
        except torch.OutOfMemoryError:
            if len(tiles) == 1:
                raise
        torch.cuda.empty_cache()
        self.batch_size = max(1, len(tiles) // 2)
        halves = np.array_split(tiles, 2)
        return np.concatenate([self._encode_within_memory(half, state) for half in halves])

    def _key(self) -> str:
        spec = self.encoder.spec
        facts = [self.slide.fingerprint, self.encoder.id, repr(spec.mpp), spec.px, repr(self.mpp), SAMPLE]
        return f"{self.slide.fingerprint[:12]}-" + hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:20]


class _Rows:
    """Embeddings of the grid's tiles in memory, in one array that grows.

    Parameters
    ----------
    size : int
        Tiles of the grid.
    dim : int
        Of an embedding.
    """

    def __init__(self, size: int, dim: int) -> None:
        self._place = np.full(size, -1, np.int64)
        self._values = np.empty((0, dim), np.float32)
        self._count = 0

    def __getitem__(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        return self._values[self._place[indices]]

    def has(self, indices: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell which of `indices` are here."""
        return self._place[indices] >= 0

    def add(self, indices: NDArray[np.int64], values: NDArray[np.float32]) -> None:
        """Take in embeddings (n, dim) of tiles that are not here yet."""
        count = self._count + len(indices)
        if count > len(self._values):
            grown = np.empty((max(count, 2 * len(self._values)), values.shape[1]), np.float32)
            grown[: self._count] = self._values[: self._count]
            self._values = grown
        self._values[self._count : count] = values
        self._place[indices] = np.arange(self._count, count)
        self._count = count


def _name_of(centres_xy: NDArray[np.float64]) -> str:
    return hashlib.sha256(np.ascontiguousarray(centres_xy, np.float64).tobytes()).hexdigest()[:16]


def _means(rows: NDArray[np.float32], members: list[NDArray[np.int64]]) -> NDArray[np.float32]:
    """Means (n, d) of the `rows` (m, d) that each of n lists names; 0 for an empty list."""
    from scipy.sparse import csr_array

    counts = np.array([len(near) for near in members])
    flat = np.concatenate([np.empty(0, np.int64), *members])
    ones, ends = np.ones(len(flat), np.float32), np.concatenate([[0], np.cumsum(counts)])
    sums = csr_array((ones, flat, ends), shape=(len(members), len(rows))) @ rows
    out: NDArray[np.float32] = sums / np.maximum(counts, 1)[:, None].astype(np.float32)
    return out


class _Store:
    """One slide's embeddings as zarr: rows of grid tiles (NaN where not computed), and sets of points.

    Raises
    ------
    ChrepError
        The store is damaged, or its disk full or not writable; in any method.
    """

    def __init__(self, path: Path, size: int, dim: int) -> None:
        self.path = path
        with self._told():
            path.parent.mkdir(parents=True, exist_ok=True)
            self.group = zarr.open_group(path, mode="a")
            os.utime(path)  # `trim_cache` goes by it
            self.grid: Any = self.group.require_array(
                "grid", shape=(size, dim), chunks=(CHUNK, dim), dtype="float32", fill_value=float("nan")
            )

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        with self._told():
            out: NDArray[np.float32] = self.grid.oindex[indices]
        return out

    def write(self, indices: NDArray[np.int64], values: NDArray[np.float32]) -> None:
        order = np.argsort(indices)
        with self._told():
            self.grid.oindex[indices[order]] = values[order]

    def prepared(self) -> tuple[SlideState, NDArray[np.float32], NDArray[np.float32]] | None:
        facts: Any = self.group.attrs.get("prepared")
        if facts is None:
            return None
        return facts["state"], np.array(facts["mean"], np.float32), np.array(facts["sd"], np.float32)

    def set_prepared(self, state: SlideState, mean: NDArray[np.float32], sd: NDArray[np.float32]) -> None:
        with self._told():
            self.group.attrs["prepared"] = {"state": state, "mean": mean.tolist(), "sd": sd.tolist()}

    def points(self, name: str) -> NDArray[np.float32] | None:
        with self._told():
            if name not in self.group or not self.group[name].attrs.get("complete"):
                return None
            array: Any = self.group[name]
            out: NDArray[np.float32] = array[:]
        return out

    def set_points(self, name: str, values: NDArray[np.float32]) -> None:
        with self._told():
            array = self.group.create_array(name, data=values, overwrite=True)
            array.attrs["complete"] = True

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Say errors of the disk and of zarr in our words."""
        try:
            yield
        except OSError as error:
            raise ChrepError(
                f"embeddings cannot be kept here ({error.strerror or error})",
                path=self.path,
                remedy="Let CHREP_CACHE name a folder that can be written and has room.",
            ) from error
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise ChrepError(
                "the embeddings kept here are damaged",
                path=self.path,
                remedy="Delete this folder; they are then computed again.",
            ) from error
