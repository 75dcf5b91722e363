"""Placing of a pyramid's levels on level 0, for formats that state which levels belong together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from chrep_model.slides.backends import RgbArray
from chrep_model.slides.backends.level_geometry import Placing, Shape, busiest, fitting, placings

ReadLevel = Callable[[int, int, int, int, int], RgbArray]
"""Function that returns the pixels of a region, given the level's number, row, col, height and width."""


def placed_levels(
    sizes: Sequence[Shape], tiles: Sequence[Shape], stated: Sequence[float | None], read: ReadLevel
) -> list[tuple[int, Placing]]:
    """Return the number and placing of each level that fits on level 0, strictly decreasing in size.

    Parameters
    ----------
    sizes
        (rows, cols) of each level as stored, the largest first.
    tiles
        (rows, cols) of the tiles of each level.
    stated
        Level-0 pixels per pixel of each level as stated in the file, or None.
    read
        Function that reads a level; called only if `sizes` and `stated` are ambiguous.
    """
    kept = [(0, Placing(1.0, sizes[0]))]
    for number in range(1, len(sizes)):
        above, placing_above = kept[-1]
        possible = [
            placing
            for placing in placings(sizes[0], sizes[number], tiles[number], stated[number])
            if all(part < whole for part, whole in zip(placing.shape, placing_above.shape, strict=True))
        ]
        placing = possible[0] if possible else None
        if len(possible) > 1:
            level, finer = _reader(read, number), _reader(read, above)
            places = busiest(level, possible[0].shape)
            placing = fitting(possible, level, finer, placing_above, places, "of this")
        if placing is not None:
            kept.append((number, placing))
    return kept


def common_factor(stated: tuple[float, float] | None) -> float | None:
    """Return the mean of the factors down and across; None if they are unknown or differ."""
    if stated is None:
        return None
    down, across = stated
    return (down + across) / 2 if abs(down - across) <= 0.01 * min(stated) else None


def _reader(read: ReadLevel, number: int) -> Callable[[int, int, int, int], RgbArray]:
    return lambda row, col, height, width: read(number, row, col, height, width)
