"""Slides of any size for the benchmarks, made by repeating one picture that is encoded once per level."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile

from chrep_model.slides.backends import RgbArray
from chrep_model.slides.slide import open_slide

SAMPLE = Path(__file__).resolve().parent.parent / "sample_data" / "SYNTHETIC_slide.ome.tif"
TILE = 512
SMALLEST = 2_000


def sample_pyramid(folder: Path, side: int, mpp: float = 0.5) -> Path:
    """Write a JPEG pyramid of `side` px made of the middle of the sample slide."""
    path = folder / f"{side}px.tif"
    with open_slide(SAMPLE) as sample:
        row, col = (n // 2 for n in sample.shape)
        write_pyramid(path, sample.read(row, col, TILE, TILE), side, mpp)
    return path


def write_pyramid(path: Path, picture: RgbArray, side: int, mpp: float) -> None:
    """Write a JPEG pyramid of `side` px whose level-0 tiles all hold `picture`, (512, 512, 3).

    Each coarser level repeats the reduced picture, so that it looks like the level below.
    """
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for level in range(1 + max(0, math.ceil(math.log2(side / SMALLEST)))):
            extent = math.ceil(side / 2**level)
            per_um = 10_000 / (mpp * 2**level)
            file.write(
                _tiles(picture, extent, 2**level), shape=(extent, extent, 3), dtype=np.uint8,
                tile=(TILE, TILE), photometric="ycbcr", compression="jpeg", subsampling=(2, 2),
                subfiletype=int(level > 0), resolution=(per_um, per_um),
                resolutionunit="CENTIMETER",
            )  # fmt: skip


def _tiles(picture: RgbArray, extent: int, downsample: int) -> Iterator[bytes]:
    every = min(downsample, 16)
    small = picture[::every, ::every]
    times = math.ceil(TILE / small.shape[0])
    tile = np.ascontiguousarray(np.tile(small, (times, times, 1))[:TILE, :TILE])
    encoded = imagecodecs.jpeg8_encode(
        tile, level=85, colorspace="RGB", outcolorspace="YCBCR", subsampling="420"
    )
    for _ in range(math.ceil(extent / TILE) ** 2):
        yield bytes(encoded)
