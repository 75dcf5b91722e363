"""A bundle and a slide, batch by batch, to a prediction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from chrep_model.bundle import Bundle
from chrep_model.embeddings import Progress, SlideEmbeddings, default_cache
from chrep_model.errors import Cancelled, PredictionError
from chrep_model.geometry import Rect
from chrep_model.inference.prediction import Prediction, PredictionPart
from chrep_model.slides.region import Region
from chrep_model.slides.slide import Slide
from chrep_model.slides.tiles import TileGrid


@dataclass(frozen=True)
class SlideContext:
    """A slide made ready for one model.

    Attributes
    ----------
    slide : Slide
        The slide.
    embeddings : SlideEmbeddings
        Its embeddings, with the slide's stain and standardisation.
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
        """Tissue tiles in an area (see `TileGrid.is_in`; None for the whole slide), centre outwards."""
        rows, cols = self.slide.shape
        around = area.bounds if isinstance(area, Region) else area
        centre = around.centre if around is not None else (cols / 2, rows / 2)
        return self.grid.order_from(centre, self.tissue[self.grid.is_in(area, self.tissue)])


class Predictor:
    """Runs a bundle over slides.

    Parameters
    ----------
    bundle : Bundle
        The model.
    device : str
        ``"auto"`` (a GPU where there is one), or a torch device.
    batch_size : int
        Tiles per batch; what comes out does not depend on it beyond rounding.
    cache_dir : Path, optional
        Where embeddings are kept; `default_cache()` unless given.
    """

    def __init__(
        self, bundle: Bundle, *, device: str = "auto", batch_size: int = 32, cache_dir: Path | None = None
    ) -> None:
        self.bundle = bundle
        self.device = choose_device(device)
        self.batch_size = batch_size
        self.cache_dir = default_cache() if cache_dir is None else cache_dir
        self.encoder = bundle.encoder(self.device)

    def prepare(
        self,
        slide: Slide,
        *,
        stride: float = 1.0,
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> SlideContext:
        """Find the tissue and look at the slide's sample of tiles; takes seconds.

        Parameters
        ----------
        stride : float
            Distance of neighbouring tiles as a share of a tile.

        Raises
        ------
        ScaleError
            The slide's µm per px are unknown or too coarse for the model.
        SlideError
            It cannot be read or holds no tissue.
        """
        embeddings = SlideEmbeddings(slide, self.encoder, cache=self.cache_dir, batch_size=self.batch_size)
        embeddings.prepare(progress, cancelled)
        if stride == 1.0:
            return SlideContext(slide, embeddings, embeddings.grid, embeddings.tissue)
        grid = TileGrid(slide.shape, embeddings.mpp, self.bundle.spec, stride)
        return SlideContext(slide, embeddings, grid, grid.tissue(embeddings.mask))

    def stream(
        self,
        context: SlideContext,
        indices: NDArray[np.int64],
        *,
        cancelled: Callable[[], bool] | None = None,
    ) -> Iterator[PredictionPart]:
        """Predict tiles in the given order, one part per batch; ends early once `cancelled` says so."""
        own = context.grid is context.embeddings.grid
        for start in range(0, len(indices), self.batch_size):
            if cancelled is not None and cancelled():
                return
            part = indices[start : start + self.batch_size]
            try:
                features = context.embeddings.at(
                    context.grid.centres(part),
                    self.bundle.context_um,
                    indices=part if own else None,
                    cancelled=cancelled,
                )
            except Cancelled:
                return
            yield PredictionPart(part, self.bundle.model.respond(features))

    def predict(
        self,
        slide: Slide,
        rect: Rect | None = None,
        *,
        stride: float = 1.0,
        progress: Progress | None = None,
    ) -> Prediction:
        """Predict the tissue in `rect` (level-0 px), or all of it.

        Raises
        ------
        PredictionError
            There is no tissue in `rect`.
        """
        context = self.prepare(slide, stride=stride, progress=progress)
        indices = context.tiles(rect)
        if not len(indices):
            raise PredictionError(
                "there is no tissue in this region",
                path=slide.path,
                remedy="Choose one that overlaps the tissue.",
            )
        prediction = Prediction(self.bundle, context.grid, slide)
        for part in self.stream(context, indices):
            prediction.add(part)
            if progress is not None:
                progress(len(prediction), len(indices), f"predicting {slide.name}")
        return prediction


def choose_device(wanted: str) -> str:
    """``"auto"`` to the best device of this machine; anything else is checked and passed on.

    Raises
    ------
    PredictionError
        The device is not there.
    """
    import torch

    if wanted == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(1, device=wanted)
    except (RuntimeError, AssertionError) as error:
        raise PredictionError(
            f"there is no device {wanted!r} here", remedy="Use --device auto or cpu."
        ) from error
    return wanted
