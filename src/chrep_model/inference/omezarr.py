"""Maps as an OME-Zarr image: one channel for each gene and variant, one pixel for each tile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chrep_model.errors import SettingsError
from chrep_model.geometry import overlay_transform
from chrep_model.inference.prediction import Prediction
from chrep_model.inference.table import INTERVAL_LAYER

FACTS = "chrep"
"""Attribute of the image that says where the values come from."""

_CHUNK_PX = 512
_PERCENTILES = (1.0, 99.0)


def to_ome_zarr(prediction: Prediction, path: Path, genes: tuple[str, ...]) -> None:
    """Write maps as OME-Zarr 0.4 (zarr 2), which Bio-Formats, QuPath and napari-ome-zarr read.

    One array (channel, row, col) float32, NaN where nothing was predicted. Channels are ``GENE calibrated``,
    ``GENE raw`` (as far as the model has these variants) and, where it says how far to trust it,
    ``GENE interval_90`` (half width); log10-spot units, only the first one is on at first. Scale and
    translation are in µm and put the maps over a slide whose first pixel is centred on 0. There is no
    pyramid: a tile is one pixel, and the mean of tiles would not be what the model says of any tissue.
    """
    import zarr
    from numcodecs import Blosc
    from ome_zarr.format import FormatV04
    from ome_zarr.writer import write_multiscales_metadata

    grid, mpp = prediction.grid, prediction.slide.require_mpp()
    names = [(gene, variant) for gene in genes for variant in channels(prediction)]
    group = zarr.open_group(path, mode="w", zarr_format=2)
    image = group.create_array(
        "0",
        shape=(len(names), *grid.shape),
        chunks=(1, *(min(extent, _CHUNK_PX) for extent in grid.shape)),
        dtype="<f4",
        fill_value=np.nan,
        # Bio-Formats knows Blosc, but not zarr's own default.
        compressors=Blosc(cname="zstd", clevel=5),
        chunk_key_encoding={"name": "v2", "separator": "/"},
    )
    described = []
    for place, (gene, variant) in enumerate(names):
        prediction.check()
        values = _map(prediction, gene, variant)
        image[place] = values
        described.append(_channel(f"{gene} {variant}", values, on=place == 0))
    scale, translation = overlay_transform(grid.step_px, grid.tile_px, mpp)
    write_multiscales_metadata(
        group,
        [
            {
                "path": "0",
                "coordinateTransformations": [
                    {"type": "scale", "scale": [1.0, *map(float, scale)]},
                    {"type": "translation", "translation": [0.0, *map(float, translation)]},
                ],
            }
        ],
        fmt=FormatV04(),
        axes=[
            {"name": "c", "type": "channel"},
            *({"name": name, "type": "space", "unit": "micrometer"} for name in "yx"),
        ],
        name=prediction.slide.name,
        metadata={"omero": {"version": "0.4", "channels": described, "rdefs": {"model": "color"}}},
    )
    group.attrs[FACTS] = prediction.facts()


def channels(prediction: Prediction) -> tuple[str, ...]:
    """Which maps each gene has, the one to trust first."""
    wanted = dict.fromkeys((prediction.variants[-1], "raw"))
    variants = tuple(variant for variant in wanted if variant in prediction.variants)
    return variants if prediction.bundle.trust is None else (*variants, INTERVAL_LAYER)


def is_ome_zarr(path: Path) -> bool:
    """Tell whether a folder was written by `to_ome_zarr`."""
    attributes = path / ".zattrs"
    return attributes.is_file() and FACTS in json.loads(attributes.read_text(encoding="utf-8"))


def check_installed() -> None:
    """See that the package that writes it is there.

    Raises
    ------
    SettingsError
        It is not; the message says what to install.
    """
    try:
        import ome_zarr  # noqa: F401
    except ImportError as error:
        raise SettingsError(
            "the format ome-zarr needs the package ome-zarr, which is not installed",
            remedy="Install napari-chrep[spatialdata], which brings it.",
        ) from error


def _map(prediction: Prediction, gene: str, variant: str) -> NDArray[np.float32]:
    if variant != INTERVAL_LAYER:
        return prediction.map(gene, variant)
    half = prediction.interval(gene)
    assert half is not None  # noqa: S101  (of a model with trust)
    return prediction.on_grid(half)


def _channel(label: str, values: NDArray[np.float32], *, on: bool) -> dict[str, Any]:
    finite = values[np.isfinite(values)]
    start, end = (float(value) for value in np.percentile(finite, _PERCENTILES))
    low, high = float(finite.min()), float(finite.max())
    if start >= end:
        start, end = start - 0.5, start + 0.5
    window = {"min": min(low, start), "max": max(high, end), "start": start, "end": end}
    return {"label": label, "color": "FFFFFF", "active": on, "window": window}
