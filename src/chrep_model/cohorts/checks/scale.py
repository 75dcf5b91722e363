"""Check the µm per px against the slide, the distance between spots, and their diameter."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from chrep_model.cohorts.checks.look import Look
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


def findings(look: Look) -> Iterator[Finding]:
    """Compare the µm per px in use with all other sources of the scale."""
    if look.mpp is None:
        return
    known = known_pitch(look)
    implied = None if known is None else known[1] / look.pitch
    off = None if implied is None else abs(look.mpp / implied - 1)
    if known is not None and implied is not None and off is not None and off > _PITCH_DOUBTFUL:
        pitch = px_to_um(look.pitch, look.mpp)
        agrees = (
            f" The slide's own {look.slide_mpp:.4g} would fit."
            if look.slide_mpp is not None and abs(look.slide_mpp / implied - 1) <= _PITCH_DOUBTFUL
            else ""
        )
        yield Finding(
            "error" if off > _PITCH_WRONG else "warning",
            f"At {look.mpp:.4g} µm/px ({look.mpp_source}) neighbouring spots are {pitch:.3g} µm apart, and "
            f"{known[0]} has {known[1]:g} µm.",
            f"By the spots the scale is {implied:.4g} µm/px: correct um_per_px, or the positions if they are "
            f"not in px of this picture.{agrees}",
        )
    if look.mpp_source == "scale factors":
        yield Finding(
            "warning",
            f"Only Space Ranger's scale factors say the µm per px: {look.mpp:.4g} are used.",
            "If the picture is of another scale, give um_per_px in a YAML manifest.",
        )
    yield from _disagreement(look, None if off is None else off <= _PITCH_DOUBTFUL)
    yield from _plausible(look)


def known_pitch(look: Look) -> tuple[str, float] | None:
    """Return the kind of array and the µm between its neighbouring spots; None unless that is certain."""
    if len(look.xy) < 10 or not look.pitch > 0:
        return None
    found = [_HD_BIN.search(name) for name in look.spot_ids[:20]]
    if is_visium_hd(look):
        um = {int(match.group(1)) for match in found if match is not None}
        if len(um) == 1:
            return f"Visium HD in bins of {min(um)} µm", float(um.pop())
    # In Visium every second column of a row is empty, so that row and column are both even or both odd.
    alternating = look.array is not None and not (look.array.sum(axis=1) % 2).any()
    barcodes = look.array is None and all(map(_BARCODE.search, look.spot_ids[:20]))
    if (alternating or barcodes) and look.regular and _six_neighbours(look):
        return "Visium", _VISIUM_PITCH_UM
    return None


def is_visium_hd(look: Look) -> bool:
    """Return whether the spots are Visium HD bins, by their names; their columns count from right to left."""
    return bool(look.spot_ids) and all(_HD_BIN.search(name) for name in look.spot_ids[:20])


def _six_neighbours(look: Look) -> bool:
    """Return whether inner spots have six nearest neighbours at one distance, as on a honeycomb."""
    from scipy.spatial import KDTree

    tree = KDTree(look.xy)
    within = tree.query_ball_point(look.xy, 1.25 * look.pitch, return_length=True) - 1
    return bool(within.max() == 6 and (within == 6).sum() >= 3)


def _disagreement(look: Look, fits: bool | None) -> Iterator[Finding]:
    """Find a µm per px in the slide or in Space Ranger's scale factors that differs from the one in use."""
    assert look.mpp is not None  # noqa: S101  (asked before)
    others = {
        "The slide says": look.slide_mpp,
        "The scale factors say": _number(look.facts, "microns_per_pixel"),
    }
    for who, value in others.items():
        if value is None or abs(value - look.mpp) <= _MPP_DIFFERS * look.mpp:
            continue
        right = " The distance between the spots fits it." if fits else ""
        yield Finding(
            "warning",
            f"{who} {value:.3g} µm/px, and {look.mpp:.3g} are used ({look.mpp_source}).{right}",
            "Make sure which one is right; the scale decides how much tissue a tile shows. "
            "um_per_px in a YAML manifest overrides both.",
        )


def _plausible(look: Look) -> Iterator[Finding]:
    assert look.mpp is not None  # noqa: S101  (asked before)
    pitch = px_to_um(look.pitch, look.mpp)
    low, high = _PITCH_UM
    if pitch < low or pitch > high:
        yield Finding(
            "warning",
            f"At {look.mpp:.3g} µm/px neighbouring spots would be {pitch:.3g} µm apart, which no array has.",
            "Check the µm per px of the full-resolution image.",
        )
    elif look.mpp > _COARSE_MPP:
        yield Finding(
            "warning",
            f"At {look.mpp:.3g} µm/px nuclei cannot be made out.",
            "Use the image at full resolution if there is one; expect little otherwise.",
        )


def _number(facts: object, key: str) -> float | None:
    try:
        value = float(facts[key])  # type: ignore[index]
    except (KeyError, TypeError, ValueError):
        return None
    return value if np.isfinite(value) and value > 0 else None
