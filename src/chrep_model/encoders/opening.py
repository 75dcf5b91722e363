"""Open an encoder by its name: the built-in one, or any timm model."""

from __future__ import annotations

from pathlib import Path

import torch

from chrep_model.device import keep_freed_memory
from chrep_model.encoders.encoder import Encoder, Precision
from chrep_model.encoders.stainbank import STAINBANK, StainbankEncoder
from chrep_model.encoders.timm_encoder import TimmEncoder, timm_config
from chrep_model.errors import SettingsError
from chrep_model.slides.tiles import TileSpec

DEFAULT_TILE_UM = 150.0
DEFAULT_PX = 224


def open_encoder(
    name: str = STAINBANK,
    *,
    weights: Path | None = None,
    tile_um: float = DEFAULT_TILE_UM,
    mpp: float | None = None,
    device: str = "cpu",
    precision: Precision = "fp32",
) -> Encoder:
    """Make an encoder by name.

    Parameters
    ----------
    name : str
        ``"stainbank"`` or a timm name.
    weights : Path, optional
        Local safetensors file for a timm model.
    tile_um : float
        Side of a tile in µm. A timm model has its own size in pixels, so that this decides its µm per px.
    mpp : float, optional
        µm per px of the tiles. With ``stainbank`` it decides how many pixels a tile has; with a timm model,
        whose number of pixels is fixed, it decides the tile's side instead of `tile_um`.
    device : str
        torch device.
    precision : str
        In what a timm model computes; the built-in encoder knows ``"fp32"`` alone.

    Raises
    ------
    SettingsError
        Unknown name, unreadable or unfitting weights, a tile too small, a precision it does not have.
    """
    where = torch.device(device)
    if where.type == "cpu":
        keep_freed_memory()
    if name == STAINBANK:
        if weights is not None:
            raise SettingsError("the built-in encoder has no weights", remedy="Leave --weights out.")
        if precision != "fp32":
            raise SettingsError(
                "the built-in encoder computes in fp32 alone", remedy="Leave --precision out."
            )
        px = DEFAULT_PX if mpp is None else round(tile_um / mpp)
        return StainbankEncoder(TileSpec(mpp or tile_um / px, px), where)
    px = int(timm_config(name, weights)["input_size"][-1])
    spec = TileSpec.from_um(tile_um, px) if mpp is None else TileSpec(mpp, px)
    return TimmEncoder(name, weights, spec, where, precision)
