"""Computation of a pyramid level's reduction factor, and of the part of the level that is padding.

The sizes may be ambiguous: a level of 768 x 1024 pixels may be 3003 x 4003 pixels reduced by 3.91, or reduced
by 4 and padded to whole tiles of 256. The pixels then decide: the level is compared with a reduced finer one
at a few places that show structure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from chrep_model.slides.backends import RgbArray

Shape = tuple[int, int]
Read = Callable[[int, int, int, int], RgbArray]
"""Function that returns the pixels of a region inside a level, given its row, col, height and width."""
Claim = Literal["of this", "some", "nothing"]
Pixels = npt.NDArray[np.float32]

_SAME = 0.002  # relative distance within which a factor is rounded to a whole number
_ALIGNMENTS = (16, 8)  # pixels to which encoders pad pictures, besides whole tiles
_WHOLE_PX = 2_400_000  # a level up to this size is searched as a whole, a larger one in nine parts
_PART, _BLOCK = 512, 16  # side in pixels of a part, and of the blocks whose variation is measured
_WINDOW, _REGION = 48, 1024  # side in pixels of the compared windows, in the coarser and in the finer level
_STRUCTURE = 4.0  # standard deviation of grey values; less is glass and noise
_SAME_GLASS = 12.0  # largest difference of grey values between two windows of glass
# Least agreement of a level with the finer one: (correlation, difference of grey values).
_OWN, _OTHERS = (0.3, 64.0), (0.6, 32.0)
_CLEARLY_BETTER = 0.05
_CONTRAST = 2.5  # largest ratio of contrasts between the two levels, in either direction
_COLOUR = (4.0, 0.6)  # largest difference in colour: grey values, and share of the colour
# Drawings have a high standard deviation of grey values, and most pixels in their four most common colours.
_EDGES, _FLAT = 25.0, 0.85


@dataclass(frozen=True)
class Placing:
    """Reduction factor of a level and its size without padding.

    Attributes
    ----------
    factor
        Level-0 pixels per pixel of the level.
    shape
        (rows, cols) of the picture in the level; the rows and columns beyond are padding.
    """

    factor: float
    shape: Shape


def whole_factors(base: Shape, shape: Shape) -> list[int]:
    """Return the whole factors that can reduce level 0 to the size of a level, the likeliest first.

    Both sides must be those of level 0 divided by the factor and rounded down or up.
    """
    low, high = 1, min(base)
    for whole, part in zip(base, shape, strict=True):
        low = max(low, math.floor(whole / (part + 1)) + 1)
        if part > 1:
            high = min(high, math.ceil(whole / (part - 1)) - 1)
    ratio = max(base) / max(shape)

    def unlikely(factor: int) -> tuple[bool, bool, float]:
        exact = all(whole == part * factor for whole, part in zip(base, shape, strict=True))
        return not exact, factor & (factor - 1) != 0, abs(factor - ratio)

    return sorted(range(low, high + 1), key=unlikely)


def factor_by_size(base: Shape, shape: Shape) -> float:
    """Return the reduction factor of a level, computed from its (rows, cols) and those of level 0."""
    whole = whole_factors(base, shape)
    # The longer side has the smaller error from rounding to whole pixels.
    return float(whole[0]) if whole else max(base) / max(shape)


def placings(base: Shape, shape: Shape, tile: Shape | None, stated: float | None = None) -> list[Placing]:
    """Return all factors and sizes without padding that a level may have, the likeliest first; may be empty.

    Parameters
    ----------
    base, shape
        (rows, cols) of level 0 and of the level as stored.
    tile
        (rows, cols) of the level's tiles; ``None`` if it has none.
    stated
        The factor stated in the file, if any.
    """
    if not all(1 <= part < whole for part, whole in zip(shape, base, strict=True)):
        return []
    whole = whole_factors(base, shape)
    found: list[Placing] = []
    if stated is not None and _can_be(base, shape, tile, stated):
        near = round(stated)
        factor = float(near) if abs(stated - near) <= _SAME * stated else stated
        found.append(Placing(factor, _unpadded(base, shape, factor)))
    found += [Placing(float(factor), shape) for factor in whole]
    grids = [tile] if tile else []
    grids += [(side, side) for side in _ALIGNMENTS]
    # Most programs use powers of 2, and some compute each level from the padded one before.
    halved = [2**power for power in range(1, max(base).bit_length())]
    found += [_padded(base, shape, f) for f in halved if any(_fills(base, shape, f, grid) for grid in grids)]
    ratio = max(base) / max(shape)
    if not whole and abs(min(base) / ratio - min(shape)) <= 1.5:
        found += [_padded(base, shape, f) for f in halved if _fills(base, shape, f, (1, 1), more=(1, 1))]
        found.append(Placing(ratio, shape))
    if tile:
        found += [_padded(base, shape, f) for f in halved if _fills(base, shape, f, tile, more=tile)]
        others = range(math.floor(ratio), 2 * math.ceil(ratio) + 1)
        found += [_padded(base, shape, f) for f in others if f > 1 and _fills(base, shape, f, tile)]
    return list(dict.fromkeys(found))


def busiest(read: Read, shape: Shape) -> list[tuple[float, float]]:
    """Return the position with most variation in each quarter of a picture, as fractions (down, across).

    A picture of up to 2.4 megapixels is searched as a whole, a larger one in nine parts.
    """
    rows, cols = shape
    if rows * cols <= _WHOLE_PX:
        starts = [list(range(0, n, _PART)) for n in shape]
    else:
        # Most tiles have a side of 256 or 512 pixels: parts aligned with tiles need fewer of them decoded.
        starts = [[max(0, n * i // 6 - _PART // 2) // 256 * 256 for i in (1, 3, 5)] for n in shape]
    corners = [(row, col) for row in starts[0] for col in starts[1]]
    found: dict[tuple[bool, bool], tuple[float, float, float]] = {}
    for top, left in corners:
        height, width = min(_PART, rows - top), min(_PART, cols - left)
        grey = np.zeros((height, width))
        with suppress(Exception):  # damaged or empty there: reported when it is read
            grey = read(top, left, height, width).mean(axis=2)
        side = min(_BLOCK, height, width)
        down, across = height // side, width // side
        varies = grey[: down * side, : across * side].reshape(down, side, across, side).std(axis=(1, 3))
        v = np.broadcast_to((top + (np.arange(down) + 0.5) * side)[:, None] / rows, varies.shape)
        u = np.broadcast_to((left + (np.arange(across) + 0.5) * side) / cols, varies.shape)
        for quarter in ((False, False), (False, True), (True, False), (True, True)):
            here = ((v >= 0.5) == quarter[0]) & ((u >= 0.5) == quarter[1])
            if here.any():
                at = np.unravel_index(np.where(here, varies, -1).argmax(), varies.shape)
                most = float(varies[at]), float(v[at]), float(u[at])
                found[quarter] = max(found.get(quarter, most), most)
    return [(v, u) for _, v, u in sorted(found.values(), reverse=True)]


def fitting(
    possible: Sequence[Placing],
    level: Read,
    finer: Read,
    finer_placing: Placing,
    places: Sequence[tuple[float, float]],
    claim: Claim,
) -> Placing | None:
    """Return the placing for which a level shows the same as a finer level; ``None`` if there is none.

    Parameters
    ----------
    possible
        Candidates, see `placings`; the first of equally good ones is returned.
    level, finer
        Functions that read the level, and the finer one to compare with.
    finer_placing
        Placing of the finer level on level 0.
    places
        Positions to compare, see `busiest`.
    claim
        Statement of the file: the level is ``"of this"`` picture, which the pixels then must only not
        contradict; it is a level of ``"some"`` picture; or ``"nothing"``. If the levels cannot be compared,
        the statement decides.
    """
    least, most = _OWN if claim == "of this" else _OTHERS
    area = min(p.shape[0] for p in possible), min(p.shape[1] for p in possible)
    scores: list[tuple[float, Placing]] = []
    compared = False
    for placing in possible:
        factor = placing.factor / finer_placing.factor
        side = max(1, min(_WINDOW, *area, max(_REGION // math.ceil(factor), 12)))
        windows = []
        for place in places:
            row, col = (
                min(max(round(at * n - side / 2), 0), n - side) for at, n in zip(place, area, strict=True)
            )
            with suppress(Exception):  # damaged or empty there: reported when it is read
                seen = level(row, col, side, side).astype(np.float32)
                windows.append((seen, _reductions(finer, finer_placing.shape, factor, row, col, side)))
        if windows:
            compared = True
            alike, different = _agreement(windows)
            if alike >= least and different <= most:
                scores.append((alike, placing))
    if not compared:
        return None if claim == "nothing" else possible[0]
    best = max((alike for alike, _ in scores), default=0.0)
    return next((placing for alike, placing in scores if alike >= best - _CLEARLY_BETTER), None)


def _agreement(windows: Sequence[tuple[Pixels, list[Pixels]]]) -> tuple[float, float]:
    """Return the correlation of a level with a finer one over some windows, and their mean difference.

    Each window comes with the same part of the finer level, reduced in several ways; the one that agrees best
    counts. A mask has the outline of the tissue too, but differs in colour or contrast; its correlation is 0.
    """
    structured = [window for window in windows if window[0].mean(axis=2).std() >= _STRUCTURE]
    best = (-1.0, math.inf)
    for way in range(len(windows[0][1])):
        different = float(np.mean([np.abs(seen - ways[way]).mean() for seen, ways in windows]))
        if not structured:
            best = max(best, (1.0, different) if different <= _SAME_GLASS else (0.0, different))
            continue
        pairs = [(seen, ways[way]) for seen, ways in structured]
        if not _same_colours(pairs):
            best = max(best, (0.0, different))
            continue
        grey = [(seen.mean(axis=2), reduced.mean(axis=2)) for seen, reduced in pairs]
        alike, contrast = _correlation(grey)
        if min(grey[0][0].shape) > 4:  # scanners sharpen, and shift by half a pixel
            alike = max(alike, _correlation([(_smoothed(a), _smoothed(b)) for a, b in grey])[0])
        best = max(best, (alike if 1 / _CONTRAST <= contrast <= _CONTRAST else 0.0, different))
    return best


def _correlation(pairs: Sequence[tuple[Pixels, Pixels]]) -> tuple[float, float]:
    """Return the correlation over all windows, each minus its own mean, and the ratio of contrasts."""
    a, b = (np.concatenate([(x - x.mean()).ravel() for x in side]) for side in zip(*pairs, strict=True))
    first, second = math.sqrt(float(a @ a)), math.sqrt(float(b @ b))
    return (float(a @ b) / (first * second), first / second) if first * second > 0 else (0.0, 0.0)


def _same_colours(pairs: Sequence[tuple[Pixels, Pixels]]) -> bool:
    seen, reduced = (
        np.concatenate([(x - x.mean(axis=2, keepdims=True)).reshape(-1, 3) for x in side])
        for side in zip(*pairs, strict=True)
    )
    return bool(np.abs(seen - reduced).mean() <= _COLOUR[0] + _COLOUR[1] * np.abs(reduced).mean())


def _reductions(finer: Read, shape: Shape, factor: float, row: int, col: int, side: int) -> list[Pixels]:
    """Return a window of the finer level reduced in several ways: by means, or by every nth pixel."""
    corner = math.floor(row * factor), math.floor(col * factor)
    size = math.ceil(side * factor) + 1
    inside = min(corner[0] + size, shape[0]) - corner[0], min(corner[1] + size, shape[1]) - corner[1]
    region = np.full((size, size, 3), 255, np.uint8)
    if min(inside) > 0:
        region[: inside[0], : inside[1]] = finer(*corner, *inside)
    top, left = row * factor - corner[0], col * factor - corner[1]
    box = (left, top, left + side * factor, top + side * factor)
    mean = Image.fromarray(region).resize((side, side), Image.Resampling.BOX, box=box)
    ways = [np.asarray(mean, np.float32)]
    for shift in (0.0, 0.5):
        rows, cols = (((np.arange(side) + shift) * factor + start).astype(int) for start in (top, left))
        ways.append(region[np.ix_(rows, cols)].astype(np.float32))
    return ways


def _smoothed(grey: Pixels) -> Pixels:
    rows = grey[:-2] + grey[1:-1] + grey[2:]
    return (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / 9


def _can_be(base: Shape, shape: Shape, tile: Shape | None, factor: float) -> bool:
    """Return whether a factor stated in the file fits the sizes, which may be rounded or padded to a tile."""
    room = tile or (0, 0)
    return factor > 1 + _SAME and all(
        whole / factor - 1 < part < whole / factor + 1 + more
        for whole, part, more in zip(base, shape, room, strict=True)
    )


def _unpadded(base: Shape, shape: Shape, factor: float) -> Shape:
    rows, cols = (min(part, math.ceil(whole / factor)) for part, whole in zip(shape, base, strict=True))
    return rows, cols


def _padded(base: Shape, shape: Shape, factor: int) -> Placing:
    return Placing(float(factor), _unpadded(base, shape, factor))


def _fills(base: Shape, shape: Shape, factor: int, grid: Shape, more: Shape = (0, 0)) -> bool:
    """Return whether a level is level 0 divided by a factor, padded to a multiple of `grid` (plus `more`)."""
    for whole, part, side, extra in zip(base, shape, grid, more, strict=True):
        least = math.ceil(math.ceil(whole / factor) / side) * side
        if part % side or not least <= part <= least + extra:
            return False
    return True


def is_drawn(read: Read, shape: Shape) -> bool:
    """Return whether a picture is a drawing, such as a mask, with few colours even where it varies most."""
    parts = []
    for place in busiest(read, shape):
        side = min(_WINDOW, *shape)
        row, col = (
            min(max(round(at * n - side / 2), 0), n - side) for at, n in zip(place, shape, strict=True)
        )
        with suppress(Exception):  # damaged or empty there: reported when it is read
            part = read(row, col, side, side)
            if part.mean(axis=2).std() >= _EDGES:
                parts.append((part >> 4).reshape(-1, 3).astype(np.int64) @ np.array([256, 16, 1]))
    if not parts:
        return False
    counts = np.bincount(np.concatenate(parts), minlength=4)
    return bool(np.sort(counts)[-4:].sum() > _FLAT * counts.sum())
