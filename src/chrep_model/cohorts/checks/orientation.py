"""Check that x and y are not swapped or mirrored, by the spots on tissue and the counts' correlation.

On nine sections of three laboratories at least 99 % of the spots were on tissue as given, and at most 84 % in
any other of the eight orientations. If tissue fills the picture, the counts are used instead: if they
correlate with the picture at all, they do so only in the correct orientation.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import sqrt

import numpy as np

from chrep_model.cohorts.checks.section_view import FEWEST_SPOTS, SectionView
from chrep_model.cohorts.findings import Finding
from chrep_model.geometry import FloatArray

#: Another orientation is better if the share of spots on tissue is larger by this.
_CLEARLY = 0.10
#: A better orientation is certainly the correct one if this share of the spots lies on tissue.
_RIGHT = 0.90
_FEW_ON_TISSUE = 0.80
_GIVEN, _SWAPPED = "as they are", "x and y swapped"
# Measured on thirteen sections of known orientation: the correct one scored better than all others by 0.13 to
# 0.28 (4 to 9 standard deviations) in olfactory bulbs and the sample data, and by less than 0.06 in tumours,
# where no wrong one scored best.
_AHEAD, _AHEAD_BY_CHANCE = 0.10, 1.2
_DEVIATIONS = 3.5
_CERTAIN_AHEAD, _CERTAIN_BY_CHANCE, _CERTAIN_DEVIATIONS = 0.15, 1.5, 5.0


def findings(view: SectionView) -> Iterator[Finding]:
    """Compare all eight orientations of the spots on the picture, and yield the problems found."""
    if not view.mask.mask.any():
        yield Finding(
            "warning", "No tissue was found on this picture.", "Look whether it is the H&E image at all."
        )
        return
    given = float(view.on_tissue(view.xy).mean())
    others = dict(turned(view.xy, view.shape))
    shares = {how: float(view.on_tissue(xy).mean()) for how, xy in others.items()}
    best = max(shares, key=lambda how: shares[how])
    if shares[best] >= given + _CLEARLY:
        yield Finding(
            "error" if shares[best] >= _RIGHT else "warning",
            f"{given:.0%} of the spots lie on tissue, but {shares[best]:.0%} would with {best}.",
            _remedy(best),
        )
        return
    if given < _FEW_ON_TISSUE:
        yield Finding(
            "warning",
            f"Only {given:.0%} of the spots lie on tissue.",
            "Keep the spots under tissue only, and check that this is their picture.",
        )
        return
    likely = {how: xy for how, xy in others.items() if shares[how] > given - _CLEARLY and view.inside(xy)}
    if not likely:
        return
    ahead = leading(view, others)
    if ahead is None:
        if _SWAPPED in likely and shares[_SWAPPED] > given - _CLEARLY / 2:
            yield Finding(
                "ok",
                "Neither tissue nor counts can tell whether x and y are swapped.",
                "Look at the picture with the spots.",
            )
        return
    how, certain = ahead
    if how in likely:
        yield Finding(
            "error" if certain else "warning",
            f"The counts follow the picture much better with {how}: colours and texture under the spots then "
            "go with what was counted there.",
            _remedy(how),
        )


def leading(view: SectionView, others: dict[str, FloatArray]) -> tuple[str, bool] | None:
    """Return the orientation in which the counts correlate with the picture far better than in all others.

    Returns
    -------
    (str, bool) or None
        Its name and whether it is certain; None if no orientation stands out.
    """
    if len(view.xy) < FEWEST_SPOTS:
        return None
    scores = {_GIVEN: view.correlation_with_picture(view.xy)}
    scores |= {how: view.correlation_with_picture(xy) for how, xy in others.items() if view.inside(xy)}
    ranked = sorted(scores, key=lambda how: -scores[how])
    rest = np.array([scores[how] for how in ranked[1:]])
    if len(rest) < 3:
        return None
    gap = scores[ranked[0]] - rest[0]
    deviations = (scores[ranked[0]] - rest.mean()) / max(rest.std(), 0.02)
    if gap < max(_AHEAD, _AHEAD_BY_CHANCE / sqrt(len(view.xy))) or deviations < _DEVIATIONS:
        return None
    certain = max(_CERTAIN_AHEAD, _CERTAIN_BY_CHANCE / sqrt(len(view.xy)))
    return ranked[0], bool(gap >= certain and deviations >= _CERTAIN_DEVIATIONS)


def turned(xy: FloatArray, shape: tuple[int, int]) -> Iterator[tuple[str, FloatArray]]:
    """Yield the name and positions of the seven other orientations of spots on an image of (rows, cols)."""
    x, y = xy.T
    right, down = shape[1] - x, shape[0] - y
    yield _SWAPPED, np.stack([y, x], axis=1)
    yield "left and right mirrored", np.stack([right, y], axis=1)
    yield "top and bottom mirrored", np.stack([x, down], axis=1)
    yield "the picture turned by 180°", np.stack([right, down], axis=1)
    yield "the picture turned by 90°", np.stack([shape[1] - y, x], axis=1)
    yield "the picture turned by 270°", np.stack([y, shape[0] - x], axis=1)
    yield "x and y swapped and both mirrored", np.stack([shape[1] - y, shape[0] - x], axis=1)


def _remedy(how: str) -> str:
    if how == _SWAPPED:
        return "Swap the columns of obsm['spatial']: it must hold (x, y)."
    return "Check whether the picture was mirrored or turned after the spots were placed on it."
