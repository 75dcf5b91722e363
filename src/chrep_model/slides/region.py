"""A region of a slide, drawn as polygons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from chrep_model.errors import SettingsError
from chrep_model.geometry import FloatArray, Rect


@dataclass(frozen=True, eq=False)
class Region:
    """The area covered by one or several polygons.

    Parameters
    ----------
    polygons : sequence of ndarray
        At least one; each (m, 2) float64, corners (x, y) in level-0 pixels, the last joined to the first.

    Raises
    ------
    SettingsError
        There is no polygon, or one has fewer than three corners or crosses itself, so that its inside is
        ambiguous.
    """

    polygons: Sequence[FloatArray]

    def __post_init__(self) -> None:
        if not self.polygons:
            raise SettingsError("the region has no outline", remedy="Draw a polygon or a rectangle.")
        for polygon in self.polygons:
            if len(polygon) < 3:
                raise SettingsError(
                    "an outline of the region has fewer than three corners",
                    remedy="Draw it again, or delete it.",
                )
            if _crosses_itself(polygon):
                raise SettingsError(
                    "an outline of the region crosses itself",
                    remedy="Move its corners apart, or draw it again without a loop.",
                )

    @property
    def bounds(self) -> Rect:
        """Smallest rectangle around the region, in level-0 pixels."""
        corners = np.concatenate(list(self.polygons))
        (x0, y0), (x1, y1) = corners.min(0), corners.max(0)
        return Rect(float(x0), float(y0), float(x1 - x0), float(y1 - y0))

    def contains(self, xy: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Return which of the points (n, 2), (x, y) in level-0 pixels, lie inside; (n,) bool."""
        points = np.asarray(xy, np.float64).reshape(-1, 2)
        inside = np.zeros(len(points), bool)
        for polygon in self.polygons:
            inside |= _inside(polygon, points)
        return inside


def _inside(polygon: FloatArray, points: FloatArray) -> npt.NDArray[np.bool_]:
    """Return which points are inside: a ray to the right crosses an odd number of edges."""
    x, y = points.T
    odd = np.zeros(len(points), bool)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if y0 != y1:
            odd ^= ((y0 > y) != (y1 > y)) & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return odd


def _crosses_itself(polygon: FloatArray) -> bool:
    """Return whether two edges of a polygon cross; edges that only touch do not count."""
    starts, ends = polygon, np.roll(polygon, -1, axis=0)
    for number in range(len(polygon) - 2):
        start, end = starts[number], ends[number]
        others, to = starts[number + 2 :], ends[number + 2 :]
        apart = _side(start, end, others) * _side(start, end, to) < 0
        across = _side(others, to, start) * _side(others, to, end) < 0
        if (apart & across).any():
            return True
    return False


def _side(start: FloatArray, end: FloatArray, point: FloatArray) -> FloatArray:
    """Return the side of the line from start to end on which points lie: 1, -1, or 0 on the line."""
    along, to = end - start, point - start
    return np.sign(along[..., 0] * to[..., 1] - along[..., 1] * to[..., 0])
