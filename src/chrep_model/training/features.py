"""Features of a section's spots, on which methods are trained and from which sections are predicted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from chrep_model.cohorts.section import Section
from chrep_model.embeddings import DEFAULT_CONTEXT_UM, SlideEmbeddings
from chrep_model.encoders.encoder import DEFAULT_BATCH, Encoder
from chrep_model.encoders.opening import DEFAULT_TILE_UM, open_encoder
from chrep_model.encoders.stainbank import STAINBANK
from chrep_model.mapped_arrays import temporary_array, write_rows
from chrep_model.progress import SILENT, Progress
from chrep_model.training.streamed import LARGE

Features = dict[str, NDArray[np.float32]]
"""Features of each section's spots, (n, d), by section name."""


class EncoderSettings(BaseModel):
    """Settings of the encoder and its tiles.

    Attributes
    ----------
    encoder : str
        ``"stainbank"`` or the name of a timm model.
    weights : Path, optional
        Local safetensors file of a timm model.
    tile_um : float
        Side of a tile in µm.
    mpp : float, optional
        µm per px of a tile; see `open_encoder`.
    context_um : tuple of float
        Radii in µm of the neighbourhoods whose mean embedding is appended to that of the tile.
    batch_size : int
        Tiles per batch.
    """

    model_config = ConfigDict(extra="forbid")

    encoder: str = STAINBANK
    weights: Path | None = None
    tile_um: float = Field(DEFAULT_TILE_UM, gt=0)
    mpp: float | None = Field(None, gt=0)
    context_um: tuple[float, ...] = DEFAULT_CONTEXT_UM
    batch_size: int = Field(DEFAULT_BATCH, gt=0)

    def open(self, device: str) -> Encoder:
        """Open the encoder on a device."""
        return open_encoder(
            self.encoder, weights=self.weights, tile_um=self.tile_um, mpp=self.mpp, device=device
        )


def section_features(
    sections: Sequence[Section],
    encoder: Encoder,
    context_um: tuple[float, ...],
    *,
    batch_size: int = DEFAULT_BATCH,
    cache: Path | None = None,
    in_bulk: bool = True,
    progress: Progress = SILENT,
) -> Features:
    """Compute the features of every section's spots, (n, dim * (1 + len(context_um))) float32, by name.

    A section's features do not depend on the other sections. Features of many spots are stored in a temporary
    file instead of in memory. Turn `in_bulk` off if a window needs the CPU too, see `embeddings.pipelines`.
    """

    def features(section: Section) -> NDArray[np.float32]:
        with section.open_slide() as slide:
            embeddings = SlideEmbeddings(slide, encoder, cache=cache, batch_size=batch_size, in_bulk=in_bulk)
            return embeddings.at(section.xy, context_um, progress=progress)

    ends = np.cumsum([len(section) for section in sections])
    if not len(ends) or ends[-1] <= LARGE:
        return {section.name: features(section) for section in sections}
    file = temporary_array((int(ends[-1]), encoder.dim * (1 + len(context_um))))
    write_rows(file, map(features, sections))
    return {section.name: file[end - len(section) : end] for section, end in zip(sections, ends, strict=True)}
