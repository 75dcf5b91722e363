"""What the user set on the plugin's page of napari's preferences."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari.settings import get_plugin_settings

from chrep_model.cache import default_cache

if TYPE_CHECKING:
    from chrep_model.encoders.encoder import Precision


@dataclass(frozen=True)
class Preferences:
    """The settings, as they are now; the manifest has their defaults and limits.

    Attributes
    ----------
    device : str
        ``"auto"`` or a torch device.
    precision : str
        In what timm encoders compute; the built-in one knows fp32 alone.
    batch_size : int or None
        Tiles per batch; None for what was measured to be fastest.
    tile_budget : int
        More tiles than this are not predicted before the user has said yes.
    cache : Path
        Where embeddings are kept.
    cache_bytes : int
        How much they may take there.
    """

    device: str
    precision: Precision
    batch_size: int | None
    tile_budget: int
    cache: Path
    cache_bytes: int


def preferences() -> Preferences:
    """Read the settings."""
    page = get_plugin_settings("napari-chrep")
    prediction, store = page.prediction, page.store
    return Preferences(
        device=prediction.device,
        precision=prediction.precision,
        batch_size=prediction.batch_size or None,
        tile_budget=prediction.tile_budget,
        cache=Path(folder).expanduser() if (folder := store.folder.strip()) else default_cache(),
        cache_bytes=int(store.size_gb * 1e9),
    )
