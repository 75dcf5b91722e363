"""Check that positions are px of this picture, and not px of a reduced copy, µm, or array positions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from chrep_model.cohorts.checks import orientation
from chrep_model.cohorts.checks.scale import is_visium_hd
from chrep_model.cohorts.checks.section_view import FEWEST_SPOTS, SectionView
from chrep_model.cohorts.findings import Finding
from chrep_model.geometry import FloatArray

#: Positions with neighbours closer than this, in px, are array positions.
_FEWEST_PX = 2.5
#: Whole numbers that cover a smaller fraction of the picture's longer side are array positions.
_CORNER = 0.25
#: Diameters above this multiple of the spots' distance mean overlapping spots; measuring errors are smaller.
_OVERLAP = 1.2
#: Diameters below this multiple of the distance are too small; known arrays have at least 0.5.
_NARROW = 0.35
#: Overlap (intersection over union) of the boxes around tissue and spots at the correct and at a wrong scale.
_FITS, _MISFITS = 0.75, 0.45
_CLEARLY_BETTER = 0.12
#: Longer sides in px of Space Ranger's reduced pictures.
_HIRES_PX, _LOWRES_PX = 2000.0, 600.0
#: Share of the positions' variance explained by the array positions.
_SAME, _UNRELATED = 0.97, 0.5


def findings(view: SectionView) -> Iterator[Finding]:
    """Check that positions can be px of this picture, and that they agree with the array positions."""
    scaled = _array_positions(view) or _other_scale(view)
    if scaled is not None:
        yield scaled
    elif view.diameter is not None and view.pitch > 0 and view.diameter > _OVERLAP * view.pitch:
        yield Finding(
            "error" if view.regular else "warning",
            f"Spots are {view.diameter:.4g} px across and {view.pitch:.4g} px apart: they would overlap.",
            "Positions and spot diameter must both be px of the full-resolution image: one of them is of "
            "another scale.",
        )
    elif view.diameter is not None and view.regular and view.diameter < _NARROW * view.pitch:
        yield Finding(
            "warning",
            f"Spots are {view.diameter:.4g} px across and {view.pitch:.4g} px apart: no array has spots so "
            "narrow.",
            "The spot diameter must be px of the full-resolution image, not µm or px of a reduced one.",
        )
    yield from _duplicates(view)
    yield from _compare_with_array(view)


def _duplicates(view: SectionView) -> Iterator[Finding]:
    """Find spots with the same position as another spot."""
    repeated = len(view.xy) - len(np.unique(view.xy, axis=0))
    if repeated:
        yield Finding(
            "warning",
            f"{repeated:,} of {len(view.xy):,} spots lie exactly where another does.",
            "Leave out what is in the table twice: such spots count twice in training.",
        )


def _array_positions(view: SectionView) -> Finding | None:
    """Find array rows and columns given instead of pixels: small whole numbers in a corner."""
    whole = bool((view.xy == np.round(view.xy)).all())
    if not (whole and len(view.xy) >= 10 and view.pitch <= _FEWEST_PX):
        return None
    if view.xy.max() > _CORNER * max(view.shape):
        return None
    return Finding(
        "error",
        f"Spots are {view.pitch:.3g} px apart in a corner of the picture: these are places on the array "
        "(rows and columns), not px.",
        "Store the (x, y) of the spot centres, in px of the full-resolution image, in obsm['spatial'].",
    )


def _other_scale(view: SectionView) -> Finding | None:
    """Find positions that fit the tissue far better when multiplied by one of the known factors."""
    tissue = _box_of_tissue(view)
    if tissue is None or len(view.xy) < 10:
        return None
    given = _overlap(_box(view.xy), tissue)
    off_tissue = view.on_tissue(view.xy).mean() < 0.5
    for what, factor in _factors(view):
        xy = view.xy * factor
        if 0.9 < factor < 1.1 or not view.inside(xy):
            continue
        fits = _overlap(_box(xy), tissue)
        if fits < _FITS or fits < given + 0.25 or view.on_tissue(xy).mean() < 0.8:
            continue
        overlaps = view.diameter is not None and view.diameter > _OVERLAP * view.pitch
        followed = _counts_fit_better(view, xy)
        if not (overlaps or off_tissue or followed or given <= _MISFITS):
            continue
        certain = overlaps or off_tissue or followed
        return Finding(
            "error" if certain else "warning",
            f"The spots cover {_share(view.xy, view):.0%} of the picture; times {factor:.4g} they would "
            f"cover {_share(xy, view):.0%}, over the tissue: they look like {what}.",
            "obsm['spatial'] must be px of exactly this picture at full resolution.",
        )
    return None


def _factors(view: SectionView) -> Iterator[tuple[str, float]]:
    for key, what in (("tissue_hires_scalef", "hires"), ("tissue_lowres_scalef", "lowres")):
        factor = view.facts.get(key)
        if isinstance(factor, (int, float)) and factor > 0:
            yield f"coordinates of the {what} picture (scaled by {key})", 1 / float(factor)
    if view.mpp is not None:
        yield "coordinates in µm", 1 / view.mpp
    longest = max(view.shape)
    if longest > _HIRES_PX:
        yield "coordinates of the hires picture", longest / _HIRES_PX
    if longest > _LOWRES_PX:
        yield "coordinates of the lowres picture", longest / _LOWRES_PX
    # For an unknown scale: the factor that moves the spots' lower right edges to those of the tissue.
    tissue = _box_of_tissue(view)
    if tissue is not None and (far := view.xy.max(axis=0)).min() > 0:
        yield "scaled coordinates", float(np.mean(tissue[2:] / far))


def _counts_fit_better(view: SectionView, xy: FloatArray) -> bool:
    """Return whether the counts correlate far better with the picture at `xy` than at the given positions."""
    if len(view.xy) < FEWEST_SPOTS:
        return False
    there = view.correlation_with_picture(xy)
    turned = [
        view.correlation_with_picture(other)
        for _, other in orientation.turned(xy, view.shape)
        if view.inside(other)
    ]
    return bool(
        turned
        and there > view.correlation_with_picture(view.xy) + _CLEARLY_BETTER
        and there > max(turned) + _CLEARLY_BETTER / 2
    )


def _box(xy: FloatArray) -> FloatArray:
    """Return left, top, right and bottom of the positions, without the outermost percent on each side."""
    return np.concatenate([np.percentile(xy, 1, axis=0), np.percentile(xy, 99, axis=0)])


def _box_of_tissue(view: SectionView) -> FloatArray | None:
    rows, cols = np.nonzero(view.mask.mask)
    if not len(rows):
        return None
    return _box(np.column_stack([cols + 0.5, rows + 0.5]) * view.mask.downsample)


def _overlap(one: FloatArray, other: FloatArray) -> float:
    """Return the intersection of two boxes divided by their union."""
    shared = np.prod(np.clip(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0, None))
    both = sum(np.prod(box[2:] - box[:2]) for box in (one, other)) - shared
    return float(shared / both) if both > 0 else 0.0


def _share(xy: FloatArray, view: SectionView) -> float:
    return float(np.prod(np.ptp(xy, axis=0)) / np.prod(view.shape))


def _compare_with_array(view: SectionView) -> Iterator[Finding]:
    """Check that a linear map without mirroring converts the array positions to the positions."""
    if view.array is None or len(view.xy) < 10 or (np.ptp(view.array, axis=0) == 0).any():
        return
    col_row = view.array[:, ::-1].astype(np.float64)
    centred, places = view.xy - view.xy.mean(axis=0), col_row - col_row.mean(axis=0)
    spread = (centred**2).sum()
    if spread == 0:
        return
    turn = np.linalg.lstsq(places, centred, rcond=None)[0]
    explained = 1 - ((centred - places @ turn) ** 2).sum() / spread
    if explained < _SAME:
        yield Finding(
            "error" if explained < _UNRELATED else "warning",
            f"The positions do not go with array_row and array_col ({explained:.0%} of them is explained).",
            "See that every row of obsm['spatial'] belongs to the spot of that row.",
        )
    elif np.linalg.det(turn) < 0 and not is_visium_hd(view):
        yield Finding(
            "warning",
            "Against array_row and array_col the positions are mirrored, as they are with x and y swapped.",
            "obsm['spatial'] must hold (x, y): look at the picture with the spots.",
        )
