"""Features of one slide's tiles: their embeddings, and the means over their neighbourhoods."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chrep_model.device import hand_back_freed_memory
from chrep_model.embeddings.encoding import Need, TileEncoding
from chrep_model.embeddings.rows import GridRows
from chrep_model.embeddings.store import LAYOUT, Store
from chrep_model.encoders.encoder import DEFAULT_BATCH, Encoder, SlideState
from chrep_model.errors import SlideError
from chrep_model.progress import SILENT, Progress
from chrep_model.slides.backends import PIXELS
from chrep_model.slides.slide import Slide
from chrep_model.slides.tiles import TileGrid, TileReader
from chrep_model.slides.tissue import TissueMask, tissue_mask
from chrep_model.statistics import divisors

SAMPLE = 256
"""Number of tissue tiles from which a slide's standardisation is computed."""

CLIP = 6.0
"""Standardised values are clipped to this range, so that pen marks or folds do not dominate."""

DEFAULT_CONTEXT_UM = (300.0, 600.0)


class SlideEmbeddings:
    """Embeddings of one slide, computed on request and stored.

    Parameters
    ----------
    slide : Slide
        Slide with known µm per px.
    encoder : Encoder
        Network or statistics that turn tiles into embeddings.
    cache : Path or None
        Cache folder of the stores; None to have embeddings in memory only.
    batch_size : int
        Tiles per call of the encoder; halved when the device runs out of memory.
    in_bulk : bool
        Whether total speed matters more than the time until the first result; see `pipelines`.

    Raises
    ------
    ScaleError
        The slide's µm per px are unknown or too coarse for the encoder.
    """

    def __init__(
        self,
        slide: Slide,
        encoder: Encoder,
        *,
        cache: Path | None,
        batch_size: int = DEFAULT_BATCH,
        in_bulk: bool = False,
    ) -> None:
        self.slide, self.encoder = slide, encoder
        self.reader = TileReader(slide, encoder.spec)
        self._encoding = TileEncoding(self.reader, encoder, batch_size, in_bulk=in_bulk)
        self.mpp = slide.require_mpp()
        self.grid = TileGrid(slide.shape, self.mpp, encoder.spec)
        self._store = None if cache is None else Store(cache / self._key(), encoder.dim)
        self._rows = {1.0: GridRows(self.grid, encoder.dim, self._store)}
        self._is_old = False  # whether the store held the sample already
        self._prepared: tuple[SlideState, NDArray[np.float32], NDArray[np.float32]] | None = None
        self._tissue: NDArray[np.int64] | None = None
        self._tree: Any = None
        self._mask: TissueMask | None = None

    @property
    def batch_size(self) -> int:
        """Current number of tiles per call of the encoder."""
        return self._encoding.batch_size

    @property
    def mask(self) -> TissueMask:
        """Tissue mask of the slide."""
        if self._mask is None:
            self._mask = tissue_mask(self.slide)
            hand_back_freed_memory()
        return self._mask

    @property
    def tissue(self) -> NDArray[np.int64]:
        """Flat indices of the grid's tissue tiles, ascending."""
        if self._tissue is None:
            self._tissue = self.grid.tissue(self.mask)
        return self._tissue

    def prepare(self, progress: Progress = SILENT) -> None:
        """Read a sample of the slide, and fit the encoder's slide state and the standardisation."""
        if self._prepared is not None:
            return
        stored = self._store.prepared() if self._store else None
        self._is_old = stored is not None
        if stored is not None:
            state, mean, sd = stored
        else:
            sample = self._sample()
            state = self.encoder.fit_slide(self.reader.read(self.grid.centres(sample)))
            self._prepared = (state, np.zeros(1, np.float32), np.ones(1, np.float32))
            try:
                raw = self._embed(self._rows[1.0], sample, progress)
            finally:
                self._prepared = None  # so that an incomplete preparation is repeated
            mean, sd = raw.mean(0), divisors(raw.std(0))
            if self._store:
                self._store.set_prepared(state, mean, sd)
        self._prepared = (state, mean, sd)

    def at(
        self,
        centres_xy: NDArray[np.float64],
        context_um: tuple[float, ...] = (),
        *,
        progress: Progress = SILENT,
    ) -> NDArray[np.float32]:
        """Compute features at points: the embeddings there, and means over the neighbourhoods.

        Parameters
        ----------
        centres_xy : ndarray
            (n, 2) float, (x, y) in level-0 px.
        context_um : tuple of float
            Radii in µm of the neighbourhoods; each adds the mean embedding of the tissue tiles inside it.

        Returns
        -------
        ndarray
            (n, dim * (1 + len(context_um))) float32, standardised by the slide's sample.

        Raises
        ------
        Cancelled
            `progress.cancelled` returned True; what was computed so far is kept.
        """
        self.prepare(progress)
        near = self._neighbours(centres_xy, context_um)
        around, values = self._embed_neighbourhoods(near, progress)
        own = self._embed_points(centres_xy, progress)
        return self._features(own, near, around, values)

    def stream(
        self,
        parts: Iterable[NDArray[np.int64]],
        context_um: tuple[float, ...] = (),
        *,
        stride: float = 1.0,
        progress: Progress = SILENT,
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield features of grid tiles in parts; later tiles are read while earlier ones are encoded.

        Parameters
        ----------
        parts : iterable of ndarray
            Each (b,) int64 flat indices of tiles; the next part is taken some batches before it is yielded,
            when there is room to read ahead.
        context_um : tuple of float
            See `at`.
        stride : float
            Distance between neighbouring tiles of the grid, as a fraction of the tile.

        Yields
        ------
        (ndarray, ndarray)
            A part, and the features (b, dim * (1 + len(context_um))) float32 of its tiles.

        Raises
        ------
        Cancelled
            `progress.cancelled` returned True; what was computed so far is kept.
        """
        self.prepare(progress)
        rows = self._rows_of(stride)

        def needs(part: NDArray[np.int64]) -> list[Need]:
            near = self._neighbours(rows.grid.centres(part), context_um)
            return [Need(self._rows[1.0], _union(near)), Need(rows, part)]

        for part in self._encoding.of_parts(parts, needs, self._state, progress):
            near = self._neighbours(rows.grid.centres(part), context_um)
            around, values = self._embed_neighbourhoods(near, progress)
            yield part, self._features(self._embed(rows, part, progress), near, around, values)

    def rough(
        self,
        indices: NDArray[np.int64],
        context_um: tuple[float, ...] = (),
        *,
        progress: Progress = SILENT,
    ) -> NDArray[np.float32]:
        """Return features of tiles as `stream` does, with means over the neighbours known so far."""
        self.prepare(progress)
        rows = self._rows[1.0]
        own = self._embed(rows, indices, progress)
        near = self._neighbours(self.grid.centres(indices), context_um)
        near = [[some[rows.has(some)] for some in part] for part in near]
        around, values = self._embed_neighbourhoods(near, progress)
        return self._features(own, near, around, values)

    def fill(self, indices: NDArray[np.int64]) -> None:
        """Compute the embeddings of grid tiles into the store, for later use."""
        self.prepare()
        self._encode(self._rows[1.0], indices, SILENT)

    def known(self, context_um: tuple[float, ...] = ()) -> NDArray[np.int64]:
        """Return the tissue tiles (n,) of the grid whose features are available without encoding.

        There are none if only the sample has been encoded, or the slide is prepared for the first time.
        """
        from scipy.spatial import cKDTree

        new = self.tissue[~self._rows[1.0].listed(self.tissue)]
        if not self._is_old or len(self.tissue) - len(new) <= SAMPLE < len(self.tissue):
            return np.empty(0, np.int64)
        if not len(new):
            return self.tissue
        to_new, _ = cKDTree(self.grid.centres(new)).query(self.grid.centres(self.tissue))
        return self.tissue[to_new > max(context_um, default=0.0) / self.mpp]

    def shards(self, most: int) -> list[NDArray[np.int64]]:
        """Split the tissue tiles into parts of at most `most` neighbouring tiles, (n,) int64, for `fill`."""
        tissue = self.grid.scan_order(self.tissue)
        return np.array_split(tissue, max(1, -(-len(tissue) // most)))

    def missing(
        self, centres_xy: NDArray[np.float64], context_um: tuple[float, ...] = (), *, on_grid: bool = False
    ) -> int:
        """Count the tiles that must be encoded for the features at points, without encoding them.

        Parameters
        ----------
        on_grid : bool
            Whether the points are centres of the grid's tiles, which then also belong to neighbourhoods.
        """
        sample = [] if self._store and self._store.prepared() else [self._sample()]
        own = [self.grid.indices_at(centres_xy)] if on_grid else []
        near = [some for part in self._neighbours(centres_xy, context_um) for some in part]
        needed = _union([[*sample, *own, *near]])
        unknown = int((~self._rows[1.0].has(needed)).sum())
        stored = on_grid or (self._store is not None and self._store.points(_name_of(centres_xy)) is not None)
        return unknown + (0 if stored else len(centres_xy))

    @property
    def _state(self) -> SlideState:
        assert self._prepared is not None  # noqa: S101  (callers call `prepare` first)
        return self._prepared[0]

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
        rng = np.random.default_rng(0)  # fixed, so that training and prediction use the same tiles
        return np.sort(rng.permutation(self.tissue)[:SAMPLE])

    def _within(self, centres_xy: NDArray[np.float64], radius_um: float) -> list[NDArray[np.int64]]:
        from scipy.spatial import cKDTree

        if self._tree is None:
            self._tree = cKDTree(self.grid.centres(self.tissue))
        found = self._tree.query_ball_point(centres_xy, radius_um / self.mpp)
        return [self.tissue[np.sort(np.asarray(near, np.int64))] for near in found]

    def _neighbours(
        self, centres_xy: NDArray[np.float64], context_um: tuple[float, ...]
    ) -> list[list[NDArray[np.int64]]]:
        return [self._within(centres_xy, radius) for radius in context_um]

    def _embed_neighbourhoods(
        self,
        near: list[list[NDArray[np.int64]]],
        progress: Progress,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the tiles of all neighbourhoods, (m,) ascending, and their standardised embeddings."""
        around = _union(near)
        return around, self._standardised(self._embed(self._rows[1.0], around, progress))

    def _features(
        self,
        own: NDArray[np.float32],
        near: list[list[NDArray[np.int64]]],
        around: NDArray[np.int64],
        values: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        means = [_means(values, [np.searchsorted(around, some) for some in part]) for part in near]
        return np.concatenate([self._standardised(own), *means], axis=1)

    def _rows_of(self, stride: float) -> GridRows:
        if stride not in self._rows:
            grid = TileGrid(self.slide.shape, self.mpp, self.encoder.spec, stride)
            self._rows[stride] = GridRows(grid, self.encoder.dim, self._store)
        return self._rows[stride]

    def _embed(
        self,
        rows: GridRows,
        indices: NDArray[np.int64],
        progress: Progress,
    ) -> NDArray[np.float32]:
        """Return embeddings of grid tiles from memory, the store or the encoder, in this order."""
        missing = indices[~rows.has(indices)]
        if len(missing):
            self._encode(rows, missing, progress)
            rows.has(indices)
        return rows[indices]

    def _encode(
        self,
        rows: GridRows,
        indices: NDArray[np.int64],
        progress: Progress,
    ) -> None:
        step, done = self._encoding.batch_size, 0
        parts = [indices[i : i + step] for i in range(0, len(indices), step)]
        for part in self._encoding.of_parts(parts, lambda part: [Need(rows, part)], self._state, progress):
            done += len(part)
            progress.advance(done, len(indices), f"tiles of {self.slide.name}")

    def _embed_points(self, centres_xy: NDArray[np.float64], progress: Progress) -> NDArray[np.float32]:
        name = _name_of(centres_xy)
        if self._store and (stored := self._store.points(name)) is not None:
            return stored
        out = np.empty((len(centres_xy), self.encoder.dim), np.float32)
        for part, values in self._encoding.of_points(centres_xy, self._state, progress):
            out[part] = values
            progress.advance(part.stop, len(out), f"tiles of {self.slide.name}")
        if self._store:
            self._store.set_points(name, out)
        return out

    def _key(self) -> str:
        spec = self.encoder.spec
        what = [self.slide.fingerprint, self.encoder.id, repr(spec.mpp), spec.px, repr(self.mpp)]
        facts = [*what, SAMPLE, LAYOUT, PIXELS]
        if self.encoder.precision != "fp32":
            facts.append(self.encoder.precision)
        return f"{self.slide.fingerprint[:12]}-" + hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:20]


def _union(lists: list[list[NDArray[np.int64]]]) -> NDArray[np.int64]:
    """Return the union of all lists, (n,) ascending."""
    return np.unique(np.concatenate([np.empty(0, np.int64), *(some for part in lists for some in part)]))


def _name_of(centres_xy: NDArray[np.float64]) -> str:
    return hashlib.sha256(np.ascontiguousarray(centres_xy, np.float64).tobytes()).hexdigest()[:16]


def _means(rows: NDArray[np.float32], members: list[NDArray[np.int64]]) -> NDArray[np.float32]:
    """Return the means (n, d) over n lists of indices into `rows` (m, d); 0 for an empty list."""
    from scipy.sparse import csr_array

    counts = np.array([len(near) for near in members])
    flat = np.concatenate([np.empty(0, np.int64), *members])
    ones, ends = np.ones(len(flat), np.float32), np.concatenate([[0], np.cumsum(counts)])
    sums = csr_array((ones, flat, ends), shape=(len(members), len(rows))) @ rows
    out: NDArray[np.float32] = sums / np.maximum(counts, 1)[:, None].astype(np.float32)
    return out
