"""Smooth random fields on coarse maps, and their resampling to the picture's pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import fft

Field = NDArray[np.float32]

MAP_UM = 2.0
"""Pixel size of the maps in µm."""


def noise(rng: np.random.Generator, shape: tuple[int, int], scale: float | tuple[float, float]) -> Field:
    """Draw Gaussian noise that is smooth over `scale` pixels and periodic at the borders.

    Parameters
    ----------
    rng
        Source of randomness.
    shape
        (rows, cols) of the field.
    scale
        Standard deviation of the Gaussian smoothing in pixels, one for both axes or (rows, cols).

    Returns
    -------
    float32 (rows, cols), mean 0 and standard deviation 1.
    """
    down, across = (scale, scale) if isinstance(scale, int | float) else scale
    spectrum = fft.rfft2(rng.standard_normal(shape, dtype=np.float32))
    rows = np.exp(-2 * (np.pi * down * fft.fftfreq(shape[0])) ** 2)
    cols = np.exp(-2 * (np.pi * across * fft.rfftfreq(shape[1])) ** 2)
    spectrum *= (rows[:, None] * cols[None, :]).astype(np.float32)
    spectrum[0, 0] = 0
    field = fft.irfft2(spectrum, s=shape).astype(np.float32)
    return field / max(float(field.std()), 1e-12)


def coarse_noise(rng: np.random.Generator, shape: tuple[int, int], scale: float) -> Field:
    """Draw Gaussian noise as `noise` does, but not periodic, and on a coarser grid where `scale` allows it.

    Returns
    -------
    float32 (rows, cols), mean about 0 and standard deviation about 1.
    """
    step = max(1.0, scale / 3)
    margin = 6
    small = (int(np.ceil(shape[0] / step)) + 2 * margin, int(np.ceil(shape[1] / step)) + 2 * margin)
    field = noise(rng, small, scale / step)
    box = (margin, margin, margin + shape[1] / step, margin + shape[0] / step)
    return resample(field, shape, box, smooth=True)


def resample(
    field: Field, shape: tuple[int, int], box: tuple[float, float, float, float], *, smooth: bool = False
) -> Field:
    """Resample a rectangle of a field to another size.

    Parameters
    ----------
    field
        float32 (rows, cols).
    shape
        (rows, cols) of the result.
    box
        (left, top, right, bottom) of the rectangle in pixels of `field`; need not be whole numbers.
    smooth
        Bicubic instead of bilinear interpolation.

    Returns
    -------
    float32 of `shape`.
    """
    method = Image.Resampling.BICUBIC if smooth else Image.Resampling.BILINEAR
    image = Image.fromarray(field)  # mode F for float32
    # The last band of the picture may reach beyond the map by a rounding error.
    left, top = max(box[0], 0.0), max(box[1], 0.0)
    right, bottom = min(box[2], field.shape[1]), min(box[3], field.shape[0])
    return np.asarray(image.resize((shape[1], shape[0]), method, box=(left, top, right, bottom)))


def step(value: Field, low: float, high: float) -> Field:
    """Map values smoothly from 0 at `low` to 1 at `high`; `high` may be the smaller one."""
    t = np.clip((value - np.float32(low)) / np.float32(high - low), 0, 1)
    return t * t * (3 - 2 * t)


def upsampled(
    values: Field, top: int, rows: int, cols: int, mpp: float, *, smooth: bool = False, map_um: float = MAP_UM
) -> Field:
    """Resample a horizontal band of a map to the picture's resolution.

    Parameters
    ----------
    values
        The whole map.
    top, rows, cols
        First row and size of the band, in pixels of the picture.
    mpp
        µm per pixel of the picture.
    smooth
        Bicubic instead of bilinear interpolation.
    map_um
        µm per pixel of the map.

    Returns
    -------
    float32 (rows, cols).
    """
    k = mpp / map_um
    return resample(values, (rows, cols), (0.0, top * k, cols * k, (top + rows) * k), smooth=smooth)
