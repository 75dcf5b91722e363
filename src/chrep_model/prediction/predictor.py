"""Prediction of a slide with a bundle, batch by batch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from chrep_model.bundle import Bundle
from chrep_model.cache import default_cache
from chrep_model.device import choose_device
from chrep_model.embeddings import SlideEmbeddings
from chrep_model.errors import Cancelled, PredictionError
from chrep_model.geometry import Rect
from chrep_model.prediction import indexes
from chrep_model.prediction.parts import PredictionPart
from chrep_model.prediction.prediction import Prediction, Preview
from chrep_model.progress import SILENT, Progress
from chrep_model.slides.region import Region
from chrep_model.slides.slide import Slide
from chrep_model.slides.tiles import TileGrid

if TYPE_CHECKING:
    from chrep_model.encoders.encoder import Precision

PREVIEW_TILES = 64
"""Number of tiles that are predicted for a preview; two batches."""


@dataclass(frozen=True)
class SlideContext:
    """A slide prepared for prediction with one model.

    Attributes
    ----------
    slide : Slide
        The slide.
    embeddings : SlideEmbeddings
        Embeddings of the slide, with its stain and standardisation.
    grid : TileGrid
        The tiles to predict; with a stride of 1 those of the embeddings.
    tissue : ndarray
        (n,) int64 flat indices of the grid's tissue tiles.
    """

    slide: Slide
    embeddings: SlideEmbeddings
    grid: TileGrid
    tissue: NDArray[np.int64]

    def tiles(self, area: Rect | Region | None = None) -> NDArray[np.int64]:
        """Return the tissue tiles in an area (None for the whole slide), sorted from its centre outwards."""
        rows, cols = self.slide.shape
        around = area.bounds if isinstance(area, Region) else area
        centre = around.centre if around is not None else (cols / 2, rows / 2)
        return self.grid.order_from(centre, self.tissue[self.grid.is_in(area, self.tissue)])


class Predictor:
    """Predictor of slides with one bundle.

    Parameters
    ----------
    bundle : Bundle
        The model.
    device : str
        ``"auto"`` (a GPU if there is one), or a torch device.
    batch_size : int, optional
        Tiles per batch; by default the fastest found by `tune`, else `DEFAULT_BATCH`. Predictions do not
        depend on it, up to rounding.
    cache_dir : Path, optional
        Cache folder of the embeddings; `default_cache()` unless given.
    precision : str
        Precision of the encoder, ``"fp32"`` or ``"bf16"``.
    whole_slides : bool
        Whether whole slides are predicted, so that total speed matters more than the time until the first
        tiles: each CPU core then encodes its own batches, or the network is compiled, if that is faster.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str = "auto",
        batch_size: int | None = None,
        cache_dir: Path | None = None,
        precision: Precision = "fp32",
        whole_slides: bool = False,
    ) -> None:
        from chrep_model.encoders.encoder import DEFAULT_BATCH
        from chrep_model.encoders.tuning import tuning_of

        self.bundle = bundle
        self.device = choose_device(device)
        self.cache_dir = default_cache() if cache_dir is None else cache_dir
        self.encoder = bundle.encoder(self.device, precision)
        tuning = tuning_of(self.encoder, self.cache_dir)
        self.batch_size = batch_size or (tuning.batch_size if tuning else DEFAULT_BATCH)
        compiled = whole_slides and tuning is not None and tuning.compiled
        if compiled:
            self.encoder.compile(self.batch_size)
        self._in_bulk = whole_slides and not compiled
        bundle.model.fitted.device = self.device
        if self.device == "cpu":
            indexes.use(bundle, self.cache_dir)

    def prepare(
        self,
        slide: Slide,
        *,
        stride: float = 1.0,
        progress: Progress = SILENT,
    ) -> SlideContext:
        """Find the tissue, and encode the slide's sample of tiles; takes seconds.

        Parameters
        ----------
        stride : float
            Distance between neighbouring tiles, as a fraction of the tile.

        Raises
        ------
        ScaleError
            The slide's µm per px are unknown or too coarse for the model.
        SlideError
            The slide cannot be read or has no tissue.
        """
        embeddings = SlideEmbeddings(
            slide, self.encoder, cache=self.cache_dir, batch_size=self.batch_size, in_bulk=self._in_bulk
        )
        embeddings.prepare(progress)
        if stride == 1.0:
            return SlideContext(slide, embeddings, embeddings.grid, embeddings.tissue)
        grid = TileGrid(slide.shape, embeddings.mpp, self.bundle.spec, stride)
        return SlideContext(slide, embeddings, grid, grid.tissue(embeddings.mask))

    def stream(
        self,
        context: SlideContext,
        indices: NDArray[np.int64] | Iterator[NDArray[np.int64]],
        *,
        progress: Progress = SILENT,
    ) -> Iterator[PredictionPart]:
        """Predict tiles in the given order, one part per batch; ends early once cancelled.

        Parameters
        ----------
        indices : ndarray or iterator of ndarray
            (n,) int64 flat indices of the grid, or an iterator of batches, which is advanced when there is
            room to read ahead.
        """
        parts = _batches(indices, self.batch_size) if isinstance(indices, np.ndarray) else indices
        features = context.embeddings.stream(
            parts, self.bundle.context_um, stride=context.grid.stride, progress=progress
        )
        with suppress(Cancelled):
            for part, rows in features:
                yield PredictionPart(part, self.bundle.model.respond(rows))

    def preview(
        self,
        context: SlideContext,
        indices: NDArray[np.int64],
        *,
        progress: Progress = SILENT,
    ) -> Preview | None:
        """Predict a few tiles, spread evenly over `indices`; `stream` uses their embeddings again.

        Parameters
        ----------
        indices : ndarray
            (n,) flat indices of tiles of the embeddings' own grid.

        Returns
        -------
        Preview or None
            None once cancelled, and where the first batch of `stream` comes as soon.
        """
        first = context.grid.centres(indices[: self.batch_size])
        if context.embeddings.missing(first, self.bundle.context_um, on_grid=True) <= PREVIEW_TILES:
            return None
        few = spread_evenly(context.grid, indices, PREVIEW_TILES)
        try:
            features = context.embeddings.rough(few, self.bundle.context_um, progress=progress)
        except Cancelled:
            return None
        prediction = Prediction(self.bundle, context.grid, context.slide)
        prediction.add(PredictionPart(few, self.bundle.model.respond(features)))
        nearest = cKDTree(context.grid.centres(few)).query(context.grid.centres(indices))[1]
        return Preview(prediction, indices, nearest)

    def predict(
        self,
        slide: Slide,
        rect: Rect | None = None,
        *,
        stride: float = 1.0,
        progress: Progress = SILENT,
    ) -> Prediction:
        """Predict the tissue of a slide, or of the rectangle `rect` (level-0 px).

        Raises
        ------
        PredictionError
            There is no tissue in `rect`.
        Cancelled
            `progress.cancelled` returned True.
        """
        context = self.prepare(slide, stride=stride, progress=progress)
        indices = context.grid.scan_order(context.tiles(rect))  # the order in which reading is fastest
        if not len(indices):
            raise PredictionError(
                "there is no tissue in this region",
                path=slide.path,
                remedy="Choose one that overlaps the tissue.",
            )
        prediction = Prediction(self.bundle, context.grid, slide)
        for part in self.stream(context, indices, progress=progress):
            prediction.add(part)
            progress.advance(len(prediction), len(indices), f"predicting {slide.name}")
        progress.raise_if_cancelled()  # `stream` just ends then
        return prediction


def _batches(indices: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    return (indices[start : start + size] for start in range(0, len(indices), size))


def spread_evenly(grid: TileGrid, indices: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Select at most `most` tiles, and at least one, on the finest possible square lattice."""
    rows, cols = np.divmod(indices, grid.shape[1])
    for step in range(max(1, math.isqrt(len(indices) // most)), max(grid.shape) + 1):
        chosen = (rows % step == step // 2) & (cols % step == step // 2)
        if 0 < chosen.sum() <= most:
            return indices[chosen]
    return indices[:most]
