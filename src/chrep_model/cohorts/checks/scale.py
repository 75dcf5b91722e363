"""Check the µm per px against the slide, the distance between spots, and their diameter."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from chrep_model.cohorts.checks.section_view import SectionView
from chrep_model.cohorts.findings import Finding
from chrep_model.geometry import px_to_um

_MPP_DIFFERS = 0.05
#: At a coarser scale nuclei are not resolved.
_COARSE_MPP = 2.0
#: Plausible µm between neighbouring spots, from bins of 2 µm to the widest known array.
_PITCH_UM = (1.0, 500.0)
#: Relative error of a known array's pitch from which the scale is doubtful, or certainly wrong.
_PITCH_DOUBTFUL, _PITCH_WRONG = 0.08, 0.20
_HD_BIN = re.compile(r"s_(\d{3})um_")
_BARCODE = re.compile(r"[ACGT]{16}-\d")
_VISIUM_PITCH_UM = 100.0


def findings(view: SectionView) -> Iterator[Finding]:
    """Compare the µm per px in use with all other sources of the scale."""
    if view.mpp is None:
        return
    known = known_pitch(view)
    implied = None if known is None else known[1] / view.pitch
    off = None if implied is None else abs(view.mpp / implied - 1)
    if known is not None and implied is not None and off is not None and off > _PITCH_DOUBTFUL:
        pitch = px_to_um(view.pitch, view.mpp)
        agrees = (
            f" The slide's own {view.slide_mpp:.4g} would fit."
            if view.slide_mpp is not None and abs(view.slide_mpp / implied - 1) <= _PITCH_DOUBTFUL
            else ""
        )
        yield Finding(
            "error" if off > _PITCH_WRONG else "warning",
            f"At {view.mpp:.4g} µm/px ({view.mpp_source}) neighbouring spots are {pitch:.3g} µm apart, and "
            f"{known[0]} has {known[1]:g} µm.",
            f"By the spots the scale is {implied:.4g} µm/px: correct um_per_px, or the positions if they are "
            f"not in px of this picture.{agrees}",
        )
    if view.mpp_source == "scale factors":
        yield Finding(
            "warning",
            f"Only Space Ranger's scale factors say the µm per px: {view.mpp:.4g} are used.",
            "If the picture is of another scale, give um_per_px in a YAML manifest.",
        )
    yield from _disagreement(view, None if off is None else off <= _PITCH_DOUBTFUL)
    yield from _plausible(view)


def known_pitch(view: SectionView) -> tuple[str, float] | None:
    """Return the kind of array and the µm between its neighbouring spots; None unless that is certain."""
    if len(view.xy) < 10 or not view.pitch > 0:
        return None
    found = [_HD_BIN.search(name) for name in view.spot_ids[:20]]
    if is_visium_hd(view):
        um = {int(match.group(1)) for match in found if match is not None}
        if len(um) == 1:
            return f"Visium HD in bins of {min(um)} µm", float(um.pop())
    # In Visium every second column of a row is empty, so that row and column are both even or both odd.
    alternating = view.array is not None and not (view.array.sum(axis=1) % 2).any()
    barcodes = view.array is None and all(map(_BARCODE.search, view.spot_ids[:20]))
    if (alternating or barcodes) and view.regular and _six_neighbours(view):
        return "Visium", _VISIUM_PITCH_UM
    return None


def is_visium_hd(view: SectionView) -> bool:
    """Return whether the spots are Visium HD bins, by their names; their columns count from right to left."""
    return bool(view.spot_ids) and all(_HD_BIN.search(name) for name in view.spot_ids[:20])


def _six_neighbours(view: SectionView) -> bool:
    """Return whether inner spots have six nearest neighbours at one distance, as on a honeycomb."""
    from scipy.spatial import KDTree

    tree = KDTree(view.xy)
    within = tree.query_ball_point(view.xy, 1.25 * view.pitch, return_length=True) - 1
    return bool(within.max() == 6 and (within == 6).sum() >= 3)


def _disagreement(view: SectionView, fits: bool | None) -> Iterator[Finding]:
    """Find a µm per px in the slide or in Space Ranger's scale factors that differs from the one in use."""
    assert view.mpp is not None  # noqa: S101  (asked before)
    others = {
        "The slide says": view.slide_mpp,
        "The scale factors say": _number(view.facts, "microns_per_pixel"),
    }
    for who, value in others.items():
        if value is None or abs(value - view.mpp) <= _MPP_DIFFERS * view.mpp:
            continue
        right = " The distance between the spots fits it." if fits else ""
        yield Finding(
            "warning",
            f"{who} {value:.3g} µm/px, and {view.mpp:.3g} are used ({view.mpp_source}).{right}",
            "Make sure which one is right; the scale decides how much tissue a tile shows. "
            "um_per_px in a YAML manifest overrides both.",
        )


def _plausible(view: SectionView) -> Iterator[Finding]:
    assert view.mpp is not None  # noqa: S101  (asked before)
    pitch = px_to_um(view.pitch, view.mpp)
    low, high = _PITCH_UM
    if pitch < low or pitch > high:
        yield Finding(
            "warning",
            f"At {view.mpp:.3g} µm/px neighbouring spots would be {pitch:.3g} µm apart, which no array has.",
            "Check the µm per px of the full-resolution image.",
        )
    elif view.mpp > _COARSE_MPP:
        yield Finding(
            "warning",
            f"At {view.mpp:.3g} µm/px nuclei cannot be made out.",
            "Use the image at full resolution if there is one; expect little otherwise.",
        )


def _number(facts: object, key: str) -> float | None:
    try:
        value = float(facts[key])  # type: ignore[index]
    except (KeyError, TypeError, ValueError):
        return None
    return value if np.isfinite(value) and value > 0 else None
