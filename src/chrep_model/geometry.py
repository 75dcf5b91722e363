"""Conversions of coordinates and scales; all conversions of the project are in this file.

Conventions
-----------
- Stored coordinates are (x, y) in level-0 pixels, x to the right and y down. Arrays are indexed (row, col).
- Coordinates are continuous and refer to pixel *corners*: pixel ``i`` covers ``[i, i + 1)`` and its centre is
  ``i + 0.5``. Coordinates of a coarser level are then those of level 0 divided by its downsample, without a
  shift of half a pixel.
- napari centres its pixels on whole numbers: the centre of slide pixel ``i`` is at world ``i * mpp``, so that
  the continuous coordinate ``u`` is at world ``(u - 0.5) * mpp``.
- Downsamples are floats. Real pyramids have factors such as 4.00012 or 1.5.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


class Rect(NamedTuple):
    """A rectangle in level-0 pixels, ``[x, x + width) x [y, y + height)``, y down."""

    x: float
    y: float
    width: float
    height: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Rect:
        """Return the rectangle of four numbers; ValueError unless they are finite and its area is above 0."""
        x, y, width, height = (float(value) for value in values)
        if not (width > 0 and height > 0 and math.isfinite(x + y + width + height)):
            raise ValueError("no rectangle")
        return cls(x, y, width, height)

    @classmethod
    def around(cls, x: float, y: float, width: float, height: float) -> Rect:
        """Return the rectangle of this size with its centre at (x, y)."""
        return cls(x - width / 2, y - height / 2, width, height)

    @property
    def right(self) -> float:
        """Right edge, x + width."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """Bottom edge, y + height."""
        return self.y + self.height

    @property
    def centre(self) -> tuple[float, float]:
        """Centre as (x, y)."""
        return self.x + self.width / 2, self.y + self.height / 2

    def intersection(self, other: Rect) -> Rect | None:
        """Return the intersection with another rectangle, or ``None`` if they share no area."""
        x, y = max(self.x, other.x), max(self.y, other.y)
        width, height = min(self.right, other.right) - x, min(self.bottom, other.bottom) - y
        return Rect(x, y, width, height) if width > 0 and height > 0 else None

    def expanded(self, margin: float) -> Rect:
        """Return the rectangle grown by `margin` pixels on each side, or shrunk if negative, down to 0."""
        x, y = self.centre
        return Rect.around(x, y, max(self.width + 2 * margin, 0.0), max(self.height + 2 * margin, 0.0))


def xy_to_rowcol(xy: npt.ArrayLike) -> FloatArray:
    """Turn (n, 2) coordinates (x, y) into (row, col)."""
    return _pairs(xy)[:, ::-1].copy()


def rowcol_to_xy(rc: npt.ArrayLike) -> FloatArray:
    """Turn (n, 2) coordinates (row, col) into (x, y)."""
    return _pairs(rc)[:, ::-1].copy()


def um_to_px(um: float, mpp: float) -> float:
    """Convert a length in µm to pixels of `mpp` µm."""
    return um / mpp


def px_to_um(px: float, mpp: float) -> float:
    """Convert a length in pixels of `mpp` µm to µm."""
    return px * mpp


def base_to_level(xy: npt.ArrayLike, downsample: float) -> FloatArray:
    """Convert continuous coordinates (n, 2) of level 0 to a pyramid level."""
    return _pairs(xy) / float(downsample)


def overlay_transform(
    step_px: float, tile_px: float, mpp: float, origin_xy: tuple[float, float] = (0.0, 0.0)
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Compute napari's scale and translation for an image with one pixel per tile of the slide.

    Parameters
    ----------
    step_px
        Distance between neighbouring tile centres in level-0 pixels.
    tile_px
        Side of a tile in level-0 pixels.
    mpp
        µm per level-0 pixel.
    origin_xy
        Top left corner of the first tile, continuous level-0 pixels.

    Returns
    -------
    scale, translate
        Both (y, x) in µm. They put the centre of image pixel (r, c) on the centre of its tile,
        ``origin + (c * step + tile / 2, r * step + tile / 2)``.
    """
    x, y = origin_xy
    half = tile_px / 2 - 0.5  # 0.5 because napari centres its pixels on whole numbers
    scale = step_px * mpp
    return (scale, scale), ((y + half) * mpp, (x + half) * mpp)


def _pairs(values: npt.ArrayLike) -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(f"coordinates must have the shape (n, 2), not {array.shape}")
    return array
