"""Export of maps as an OME-Zarr image: one channel for each gene and variant, one pixel for each tile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chrep_model.errors import PredictionError, SettingsError, damage_as_error
from chrep_model.geometry import overlay_transform
from chrep_model.prediction.prediction import Prediction
from chrep_model.prediction.table import INTERVAL_LAYER
from chrep_model.zarr_check import open_group, read_metadata

FACTS = "chrep"
"""Attribute of the image with the values' provenance."""

_CHUNK_PX = 512
_PERCENTILES = (1.0, 99.0)


def to_ome_zarr(prediction: Prediction, path: Path, genes: tuple[str, ...]) -> None:
    """Write maps as OME-Zarr 0.4 (zarr 2), which Bio-Formats, QuPath and napari-ome-zarr read.

    One array (channel, row, col) float32, NaN where nothing was predicted. Channels are ``GENE calibrated``,
    ``GENE raw`` (if the model has these variants) and, if it has intervals, ``GENE interval_90`` (half
    width); log10-spot units, only the first one is visible at first. Scale and translation are in µm and put
    the maps over a slide whose first pixel is centred on 0. There is no pyramid, because means over tiles are
    not predictions.
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
        # Bio-Formats supports Blosc, but not zarr's default codec.
        compressors=Blosc(cname="zstd", clevel=5),
        chunk_key_encoding={"name": "v2", "separator": "/"},
    )
    described = []
    for place, (gene, variant) in enumerate(names):
        prediction.progress.raise_if_cancelled()
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
    """Return the kinds of maps written for each gene, starting with the last variant."""
    wanted = dict.fromkeys((prediction.variants[-1], "raw"))
    variants = tuple(variant for variant in wanted if variant in prediction.variants)
    return variants if prediction.bundle.trust is None else (*variants, INTERVAL_LAYER)


def is_ome_zarr(path: Path) -> bool:
    """Return whether `to_ome_zarr` wrote a folder; never raises."""
    attributes = path / ".zattrs"
    try:
        said = read_metadata(attributes) if attributes.is_file() else {}
    except (OSError, ValueError):  # not readable, or damaged
        return False
    return isinstance(said, dict) and {FACTS, "omero"} <= said.keys()


@dataclass(frozen=True)
class StoredMap:
    """One channel of an image that `to_ome_zarr` wrote.

    Attributes
    ----------
    gene, kind : str
        The gene, and the kind of its values: a variant, or `INTERVAL_LAYER`.
    values : ndarray
        (rows, cols) float32, NaN where nothing was predicted.
    limits : (float, float)
        Range of the colour scale.
    visible : bool
        Whether viewers show the channel at first.
    """

    gene: str
    kind: str
    values: NDArray[np.float32]
    limits: tuple[float, float]
    visible: bool


@dataclass(frozen=True)
class StoredMaps:
    """An image that `to_ome_zarr` wrote, read back.

    Attributes
    ----------
    maps : tuple of StoredMap
        The maps in the order of the channels.
    scale, translate : (float, float)
        (y, x) in µm: size of a pixel, and centre of the first one.
    facts : dict
        Provenance of the values, see `Prediction.facts`.
    """

    maps: tuple[StoredMap, ...]
    scale: tuple[float, float]
    translate: tuple[float, float]
    facts: dict[str, Any]


def read_maps(path: Path) -> StoredMaps:
    """Read an image that `to_ome_zarr` wrote.

    Raises
    ------
    PredictionError
        The image is damaged, or not safe to open.
    """
    with damage_as_error(PredictionError, "these maps are damaged", path, "Export them again."):
        group = open_group(path, PredictionError)
        said: dict[str, Any] = dict(group.attrs)
        (level,) = said["multiscales"][0]["datasets"]
        steps = {step["type"]: step[step["type"]][1:] for step in level["coordinateTransformations"]}
        image: Any = group[level["path"]]
        values = np.asarray(image[:], np.float32)
        maps = []
        for channel, plane in zip(said["omero"]["channels"], values, strict=True):
            gene, kind = channel["label"].rsplit(" ", 1)
            limits = float(channel["window"]["start"]), float(channel["window"]["end"])
            maps.append(StoredMap(gene, kind, plane, limits, bool(channel["active"])))
        return StoredMaps(tuple(maps), _yx(steps["scale"]), _yx(steps["translation"]), dict(said[FACTS]))


def check_installed() -> None:
    """Check that the package ome-zarr is installed.

    Raises
    ------
    SettingsError
        The package is not installed; the message names it.
    """
    try:
        import ome_zarr  # noqa: F401
    except ImportError as error:
        raise SettingsError(
            "the format ome-zarr needs the package ome-zarr, which is not installed",
            remedy="Install napari-chrep[spatialdata], which brings it.",
        ) from error


def _yx(values: Sequence[float]) -> tuple[float, float]:
    y, x = map(float, values)
    return y, x


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
