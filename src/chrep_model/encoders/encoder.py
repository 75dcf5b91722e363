"""What every encoder is: tiles in, embeddings out."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from chrep_model.slides.tiles import TileSpec

DEFAULT_BATCH = 32

Precision = Literal["fp32", "bf16"]
"""In what a network computes. bf16 is for GPUs; its rounding shows: a MobileNet's embeddings correlate with
those of fp32 at 0.998."""

SlideState = dict[str, Any]
"""What an encoder remembers of one slide, as plain lists and strings; stored with the slide's embeddings."""


class Encoder(ABC):
    """Turns tiles into embeddings.

    Attributes
    ----------
    name : str
        ``"stainbank"`` or a timm name.
    spec : TileSpec
        The tiles it reads.
    dim : int
        Length of an embedding.
    id : str
        Hash (16 hex digits) of everything that decides the numbers, but for their precision: architecture,
        weights, preprocessing.
    precision : str
        In what it computes.
    device : device
        Where it runs.
    """

    name: str
    spec: TileSpec
    dim: int
    id: str
    device: torch.device = torch.device("cpu")
    precision: Precision = "fp32"

    def fit_slide(self, sample: NDArray[np.uint8]) -> SlideState:
        """Learn from a sample of a slide's tissue tiles, (n, px, px, 3) uint8, what the slide looks like."""
        return {}

    @abstractmethod
    def encode(self, tiles: NDArray[np.uint8], state: SlideState) -> NDArray[np.float32]:
        """Tiles (n, px, px, 3) uint8 to embeddings (n, dim) float32."""

    def compile(self, batch_size: int) -> None:
        """Have torch compile the network for batches of this size; smaller ones are filled up to it.

        The first batch then takes seconds to minutes. Embeddings are the same up to rounding.
        """
        raise NotImplementedError(f"{self.name} has no compiled form")


def encoder_id(facts: dict[str, Any]) -> str:
    """Return an `Encoder.id`, the hash of everything that decides an encoder's numbers."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
