"""The scale of each level of a pyramid, and what of it is picture where a format pads it to whole tiles."""

from __future__ import annotations

import math
from collections.abc import Sequence

ROUNDING_PX = 1.5

_POWERS_OF_TWO = tuple(2**power for power in range(1, 16))

Shape = tuple[int, int]


def measured_levels(
    sizes: Sequence[Shape], tiles: Sequence[Shape], said: Sequence[tuple[float, float] | None]
) -> tuple[tuple[Shape, ...], tuple[float, ...] | None]:
    """Return the levels without their padding, and their scales.

    Parameters
    ----------
    sizes
        (rows, cols) of each level as it is stored, the largest first.
    tiles
        (rows, cols) of the tiles of each level.
    said
        Level-0 pixels per pixel (down, across) of each level as the file says, or None.

    Returns
    -------
    shapes
        (rows, cols) of the picture in each level.
    downsamples
        Level-0 pixels per pixel of each level; None where all of them follow from the sizes.
    """
    base, *smaller = sizes
    shapes, scales, any_said = [base], [1.0], False
    for size, tile, given in zip(smaller, tiles[1:], said[1:], strict=True):
        scale = given_scale(given)
        picture = None if scale is None else without_padding(base, size, scale, tile)
        if picture is None and not has_proportions(base, size):
            scale = next((float(f) for f in _POWERS_OF_TWO if _whole_tiles(base, size, f, tile)), None)
            picture = None if scale is None else without_padding(base, size, scale, tile)
        any_said |= picture is not None
        shapes.append(picture or size)
        scales.append(scale if picture and scale else _scale_of_sizes(base, size))
    return tuple(shapes), tuple(scales) if any_said else None


def given_scale(said: tuple[float, float] | None) -> float | None:
    """Return one scale for both axes; None where there is none, or they differ."""
    if said is None:
        return None
    down, across = said
    return (down + across) / 2 if abs(down - across) <= 0.01 * min(said) else None


def without_padding(base: Shape, size: Shape, scale: float, tile: Shape) -> Shape | None:
    """Return what of a level is picture, where its scale fits its size; else None."""
    picture = []
    for whole, side, step in zip(base, size, tile, strict=True):
        needed = whole / scale
        if side < needed - ROUNDING_PX or side >= needed + max(step, ROUNDING_PX):
            return None
        picture.append(min(side, math.ceil(needed - 1e-6)))
    return picture[0], picture[1]


def has_proportions(base: Shape, size: Shape) -> bool:
    """Say whether a level is of the same proportions as level 0 but for rounding."""
    factor = max(base) / max(size)
    return abs(min(base) / factor - min(size)) <= ROUNDING_PX


def _whole_tiles(base: Shape, size: Shape, factor: int, tile: Shape) -> bool:
    """Say whether a level is the one that is `factor` times smaller, filled up to whole tiles."""
    sides = zip(base, size, tile, strict=True)
    return all(math.ceil(whole / factor / step) * step == side for whole, side, step in sides)


def _scale_of_sizes(base: Shape, size: Shape) -> float:
    near = round(max(base) / max(size))
    pairs = list(zip(base, size, strict=True))
    if all(side in (whole // near, math.ceil(whole / near)) for whole, side in pairs):
        return float(near)
    return max(base) / max(size)
