"""Drawing of nuclei and red blood cells: small patches of stain, blended into a band of the picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .cells import KINDS, Cells
from .fields import Field

_BATCH_PIXELS = 1_500_000
_RED = KINDS.index("red cell")
_OPACITY = {"ghost": 0.55, "plasma": 0.85}
_EOSIN_LEFT = {"red cell": 0.0, "plasma": 1.0, "ghost": 0.9}
"""Share of the eosin under a nucleus that stays visible; 0.45 for other kinds."""


def _random(key: NDArray[np.uint32], salt: int) -> NDArray[np.float32]:
    """Uniform numbers in 0..1 that depend on the nucleus alone, so that all bands draw it alike."""
    mixed = (key.astype(np.uint64) + np.uint64(salt) * np.uint64(0x9E3779B9)) & np.uint64(0xFFFFFFFF)
    for _ in range(2):
        mixed = ((mixed ^ (mixed >> np.uint64(16))) * np.uint64(0x45D9F3B)) & np.uint64(0xFFFFFFFF)
    return ((mixed ^ (mixed >> np.uint64(16))) / np.float64(2**32)).astype(np.float32)


def _patches(
    cells: Cells, left: NDArray[np.int64], top: NDArray[np.int64], size: int, mpp: float, grain: Field
) -> tuple[Field, Field]:
    """Draw one batch of nuclei as patches of opacity and stain.

    Returns
    -------
    float32 (n, size, size) each: share of the pixel that the nucleus covers, and its stain density.
    """
    index = np.arange(size, dtype=np.float32)
    px = (left[:, None] + index + 0.5) * np.float32(mpp) - cells.x[:, None]
    py = (top[:, None] + index + 0.5) * np.float32(mpp) - cells.y[:, None]
    cos, sin = np.cos(cells.angle)[:, None, None], np.sin(cells.angle)[:, None, None]
    u = px[:, None, :] * cos + py[:, :, None] * sin
    v = py[:, :, None] * cos - px[:, None, :] * sin
    z = u / cells.a[:, None, None] + 1j * (v / cells.b[:, None, None])
    rho = np.abs(z) + np.float32(1e-6)
    direction = z / rho
    waves = np.zeros_like(z)
    for order in (5, 4, 3, 2):
        phase = 2 * np.pi * _random(cells.key, order)
        weight = (0.4 + _random(cells.key, 10 + order)) / (0.6 * order)
        waves = (waves + (weight * np.exp(1j * phase)).astype(np.complex64)[:, None, None]) * direction
    outline = 1 + cells.bumpy[:, None, None] * (waves * direction).real
    inward = (outline - rho) * np.sqrt(cells.a * cells.b)[:, None, None]  # about µm inside the outline
    cover = np.clip(inward / np.float32(0.6) + np.float32(0.5), 0, 1)
    n = grain.shape[0]
    rows = (np.arange(size) + (cells.key % 997)[:, None].astype(np.int64)) % n
    cols = (np.arange(size) + (cells.key // 997 % 991)[:, None].astype(np.int64)) % n
    chromatin = grain[rows[:, :, None], cols[:, None, :]]
    stain = cells.dark[:, None, None] * (1 + cells.clump[:, None, None] * chromatin)
    stain += cells.rim[:, None, None] * np.exp(-(((inward - np.float32(0.5)) / np.float32(0.6)) ** 2))
    if cells.nucleolus.any():
        for spot in range(2):
            angle, r = 2 * np.pi * _random(cells.key, 20 + spot), 0.55 * _random(cells.key, 30 + spot)
            du = u - (r * np.cos(angle) * cells.a)[:, None, None]
            dv = v - (r * np.sin(angle) * cells.b)[:, None, None]
            width = (0.6 + 0.5 * _random(cells.key, 40 + spot))[:, None, None]
            stain += cells.nucleolus[:, None, None] * np.exp(-(du * du + dv * dv) / (2 * width**2))
    red = cells.kind == _RED
    if red.any():  # a disc that is thinner in the middle
        stain[red] = cells.dark[red, None, None] * (0.7 + 0.3 * np.minimum(rho[red], 1) ** 2)
    return cover.astype(np.float32), np.maximum(stain, 0).astype(np.float32)


def draw(
    cells: Cells, top: int, haematoxylin: Field, eosin: Field, blood: Field, mpp: float, grain: Field
) -> None:
    """Draw nuclei into a band of the picture, in place, in the order of the list.

    Parameters
    ----------
    cells
        All cells of the section; those outside the band are skipped.
    top
        First row of the band in pixels.
    haematoxylin, eosin, blood
        float32 (rows, cols): amount of each stain in the band.
    mpp
        µm per pixel.
    grain
        Square periodic noise for the chromatin texture, at the picture's resolution.
    """
    rows = haematoxylin.shape[0]
    reach = np.maximum(cells.a, cells.b) * np.float32(1.3) + 1
    near = (cells.y + reach > top * mpp) & (cells.y - reach < (top + rows) * mpp)
    cells, reach = cells.take(near), reach[near]
    size_of = (np.ceil(2 * reach / mpp / 8) * 8).astype(int)
    group_of = np.cumsum(np.r_[0, np.diff(cells.kind) != 0]) if len(cells) else np.zeros(0, int)
    for group in range(int(group_of[-1]) + 1 if len(cells) else 0):
        for size in np.unique(size_of[group_of == group]):
            which = np.flatnonzero((group_of == group) & (size_of == size))
            per_batch = max(1, _BATCH_PIXELS // int(size) ** 2)
            for start in range(0, len(which), per_batch):
                batch = cells.take(which[start : start + per_batch])
                _lay(batch, int(size), top, haematoxylin, eosin, blood, mpp, grain)


def _lay(
    cells: Cells,
    size: int,
    top: int,
    haematoxylin: Field,
    eosin: Field,
    blood: Field,
    mpp: float,
    grain: Field,
) -> None:
    """Draw one batch of equally large patches and blend them into the band."""
    rows, cols = haematoxylin.shape
    left = np.floor(cells.x / mpp).astype(np.int64) - size // 2
    above = np.floor(cells.y / mpp).astype(np.int64) - size // 2
    cover, stain = _patches(cells, left, above, size, mpp, grain)
    kind = KINDS[int(cells.kind[0])]
    cover *= _OPACITY.get(kind, 0.93)
    target = blood if kind == "red cell" else haematoxylin
    eosin_left = _EOSIN_LEFT.get(kind, 0.45)
    for i in range(len(cells)):
        r0, c0 = above[i] - top, left[i]
        r1, c1 = max(r0, 0), max(c0, 0)
        r2, c2 = min(r0 + size, rows), min(c0 + size, cols)
        if r1 >= r2 or c1 >= c2:
            continue
        inner = (slice(r1 - r0, r2 - r0), slice(c1 - c0, c2 - c0))
        a = cover[i][inner]
        part = target[r1:r2, c1:c2]
        part += a * (stain[i][inner] - part * np.float32(0.8))  # a nucleus underneath stays slightly visible
        pink = eosin[r1:r2, c1:c2]
        pink *= 1 - a * np.float32(1 - eosin_left)
