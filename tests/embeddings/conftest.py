"""A small slide, an encoder that can be followed by hand, and their embeddings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from chrep_model.embeddings import SlideEmbeddings
from chrep_model.encoders.encoder import Encoder
from chrep_model.slides.slide import Slide, open_slide
from chrep_model.slides.tiles import TileSpec

MPP = 2.0
SPEC = TileSpec(4.0, 16)  # 64 µm: 32 px of the slide


class Colours(Encoder):
    """Mean and sd of each channel; counts what it is asked for."""

    def __init__(self, room=10**9, name="colours"):
        self.name, self.spec, self.dim, self.id = name, SPEC, 6, f"{name}-id"
        self.room, self.tiles, self.calls, self.fits = room, 0, 0, 0

    def fit_slide(self, sample):
        self.fits += 1
        return {"brightness": float(sample.mean())}

    def encode(self, tiles, state):
        self.calls += 1
        if len(tiles) > self.room:
            raise torch.OutOfMemoryError("no room")
        self.tiles += len(tiles)
        x = tiles.astype(np.float64) / state["brightness"]
        return np.concatenate([x.mean((1, 2)), x.std((1, 2))], axis=1).astype(np.float32)


@pytest.fixture(scope="session")
def colours() -> type[Colours]:
    """The encoder's class."""
    return Colours


@pytest.fixture(scope="session")
def picture() -> Callable[..., np.ndarray]:
    """Nuclei on eosin that gets paler to the right, with glass around: ``picture(rows, cols, seed=0)``."""

    def make(rows: int, cols: int, seed: int = 0) -> np.ndarray:
        rng = np.random.default_rng(seed)
        r, c = np.mgrid[:rows, :cols]
        image = np.broadcast_to([226.0, 160, 200], (rows, cols, 3)).copy()
        image += 20 * (c / cols)[..., None] + rng.normal(0, 6, (rows, cols, 1))
        nuclei = rng.uniform(0, 1, (rows * cols // 60, 2)) * [rows, cols]
        for y, x in nuclei.astype(int):
            image[y : y + 4, x : x + 4] = [90, 60, 140]
        glass = np.minimum.reduce([r, c, rows - 1 - r, cols - 1 - c]) < 70
        image[glass] = 245
        return np.clip(image, 0, 255).astype(np.uint8)

    return make


@pytest.fixture(scope="session")
def of_tiles() -> Callable[..., np.ndarray]:
    """Features of tiles of the grid, asked for in batches."""

    def features(embeddings, indices, context=(), **options):
        parts = (indices[i : i + 7] for i in range(0, len(indices), 7))
        none = np.empty((0, embeddings.encoder.dim * (1 + len(context))), np.float32)
        return np.concatenate([none, *(found for _, found in embeddings.stream(parts, context, **options))])

    return features


@pytest.fixture
def slide(write_pyramid: Callable[..., Path], picture: Callable[..., np.ndarray]) -> Slide:
    """520 x 600 px of 2 µm."""
    return open_slide(write_pyramid(picture(520, 600), mpp=MPP, levels=1))


@pytest.fixture
def make(slide, tmp_path):
    """Make embeddings: ``make()`` in memory, ``make(cache=True)`` with the store of this test."""

    def make(encoder=None, *, cache=False, batch_size=7, in_bulk=False):
        where = tmp_path / "cache" if cache else None
        return SlideEmbeddings(
            slide, encoder or Colours(), cache=where, batch_size=batch_size, in_bulk=in_bulk
        )

    return make
