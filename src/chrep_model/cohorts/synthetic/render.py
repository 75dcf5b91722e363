"""The picture of a synthetic section: stains in optical density, then light, blur and grain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from .blueprint import Blueprint, Scanner
from .cells import Cells, fat_cells
from .fields import Field, coarse_noise, noise, step
from .nuclei import draw
from .tissue import COMPARTMENTS, MAP_UM, Tissue, upsampled

_BAND = 384
_HALO = 8
_TILE = 1024  # side of the periodic noise in pixels
_FIBRE_UM = (0.35, 4.0)  # size of a pixel of the fibres' texture across and along them


@dataclass(frozen=True)
class _Stage:
    """All that the bands of one picture share."""

    plan: Blueprint
    tissue: Tissue
    cells: Cells
    soft: dict[str, Field]
    fat: Field
    relief: Field
    fibrils: Field
    bundles: Field
    fine: Field
    medium: Field
    chromatin: Field


def _fat_gap(tissue: Tissue, rng: np.random.Generator) -> Field:
    """Distance in µm from the wall between neighbouring fat cells, on the maps' grid; 0 outside of fat."""
    gap = np.zeros(tissue.labels.shape, np.float32)
    where = ndimage.binary_dilation(tissue.mask("adipose"), iterations=3)
    centres = fat_cells(tissue, rng)
    if len(centres) < 2 or not where.any():
        return gap
    rows, cols = np.nonzero(where)
    xy = np.stack([(cols + 0.5) * MAP_UM, (rows + 0.5) * MAP_UM], axis=1)
    first, second = cKDTree(centres).query(xy, k=2)[0].T
    # Close to a corner of three cells the wall is thicker: fat cells are round there.
    gap[rows, cols] = (second - first) * 0.5 - np.maximum(first - 26, 0) * 0.28
    return gap


def _set_stage(plan: Blueprint, tissue: Tissue, cells: Cells) -> _Stage:
    rng = np.random.default_rng([plan.seed, 3])
    soft = {
        name: ndimage.gaussian_filter(tissue.mask(name).astype(np.float32), 0.8) for name in COMPARTMENTS
    }
    pixel = 1 / plan.mpp
    fibre = (2048, 1024)
    return _Stage(
        plan=plan,
        tissue=tissue,
        cells=cells,
        soft=soft,
        fat=_fat_gap(tissue, rng),
        relief=coarse_noise(rng, tissue.labels.shape, 170 / MAP_UM),
        fibrils=noise(rng, fibre, (0.55 / _FIBRE_UM[0], 6 / _FIBRE_UM[1])),
        bundles=noise(rng, fibre, (2.2 / _FIBRE_UM[0], 22 / _FIBRE_UM[1])),
        fine=noise(rng, (_TILE, _TILE), 0.45 * pixel),
        medium=noise(rng, (_TILE, _TILE), 1.8 * pixel),
        chromatin=noise(rng, (_TILE, _TILE), 0.5 * pixel),
    )


def _tiled(texture: Field, top: int, rows: int, cols: int, shift: int = 0) -> Field:
    """A band of a periodic texture."""
    r = (np.arange(top, top + rows) + shift) % texture.shape[0]
    c = (np.arange(cols) + 3 * shift) % texture.shape[1]
    return texture[np.ix_(r, c)]


def _sampled(texture: Field, across: Field, along: Field) -> Field:
    """A periodic texture at coordinates in its own pixels (nearest)."""
    r = np.floor(across).astype(np.int32) % texture.shape[0]
    c = np.floor(along).astype(np.int32) % texture.shape[1]
    return texture[r, c]


def _background(stage: _Stage, top: int, rows: int) -> tuple[Field, Field, Field, Field]:
    """Haematoxylin, eosin and blood of a band without its nuclei, and how much of it is tissue."""
    plan, tissue, mpp = stage.plan, stage.tissue, stage.plan.mpp
    cols = plan.shape[1]

    def up(values: Field, smooth: bool = False) -> Field:
        return upsampled(values, top, rows, cols, mpp, smooth=smooth)

    fine = _tiled(stage.fine, top, rows, cols)
    medium = _tiled(stage.medium, top, rows, cols, 311)
    share = {name: up(field) for name, field in stage.soft.items()}
    wobble = medium * np.float32(0.12)
    for name in share:
        share[name] = step(share[name] + wobble * (share[name] > 0.02), 0.3, 0.7)
    total = sum(share.values())
    present = np.clip(total, 0, 1).astype(np.float32)
    total = np.maximum(total, 1)

    along, across = up(tissue.along, True), up(tissue.across, True)
    crimp = np.sin(along * np.float32(2 * np.pi / 34) + np.float32(0.02) * across + medium * np.float32(0.15))
    across = across + crimp * np.float32(1.6)
    v, u = across / np.float32(_FIBRE_UM[0]), along / np.float32(_FIBRE_UM[1])
    bundles = _sampled(stage.bundles, v, u)
    fibrils = _sampled(stage.fibrils, v, u)
    dense = up(tissue.density)
    cleft = step(bundles - (np.float32(0.9) - np.float32(1.9) * dense), -0.6, 0.1)
    stroma_e = (0.16 + 0.34 * cleft) * (1 + 0.16 * fibrils + 0.10 * bundles) * (0.75 + 0.45 * dense)
    stroma_h = 0.03 + 0.05 * (1 - dense) * (1 - cleft)

    hypoxia = up(tissue.hypoxia)
    tumour_e = 0.24 + 0.10 * hypoxia + 0.035 * medium + 0.03 * fine
    tumour_h = 0.20 - 0.08 * hypoxia + 0.03 * medium

    lymph_e = 0.12 + 0.02 * medium
    lymph_h = 0.12 + 0.04 * medium

    wall = 1 - step(up(stage.fat), 1.0, 2.2)
    fat_e = 0.34 * wall * (1 + 0.2 * fine)
    fat_h = 0.03 * wall

    dirt = np.abs(medium)
    necrosis_e = 0.27 + 0.07 * medium + 0.07 * fine + 0.05 * dirt
    necrosis_h = 0.04 + 0.05 * step(medium, 0.5, 2.0)

    gland_e, gland_h = 0.26 + 0.03 * medium, 0.16 + 0.02 * medium
    vessel_e, vessel_h = np.full_like(fine, 0.33), np.full_like(fine, 0.03)

    eosin, haem = np.zeros_like(fine), np.zeros_like(fine)
    for name, e, h in (
        ("tumour", tumour_e, tumour_h),
        ("stroma", stroma_e, stroma_h),
        ("lymphoid", lymph_e, lymph_h),
        ("adipose", fat_e, fat_h),
        ("necrosis", necrosis_e, necrosis_h),
        ("gland", gland_e, gland_h),
        ("vessel", vessel_e, vessel_h),
    ):
        weight = share[name] / total
        eosin += weight * e
        haem += weight * h
    _open_lumens(stage, top, eosin, haem)
    return haem.astype(np.float32), eosin.astype(np.float32), np.zeros_like(fine), present


def _open_lumens(stage: _Stage, top: int, eosin: Field, haem: Field) -> None:
    """Empty the lumens of ducts and vessels in a band, in place."""
    mpp = stage.plan.mpp
    rows, cols = eosin.shape
    for ring in (*stage.tissue.ducts, *stage.tissue.vessels):
        reach = ring.radius * 1.3
        r0, r1 = max(int((ring.y - reach) / mpp) - top, 0), min(int((ring.y + reach) / mpp) + 1 - top, rows)
        c0, c1 = max(int((ring.x - reach) / mpp), 0), min(int((ring.x + reach) / mpp) + 1, cols)
        if r0 >= r1 or c0 >= c1:
            continue
        dy = ((np.arange(r0, r1) + top + 0.5) * mpp - ring.y)[:, None]
        dx = ((np.arange(c0, c1) + 0.5) * mpp - ring.x)[None, :]
        edge = ring.outline(np.arctan2(dy, dx)) * ring.lumen
        keep = (1 - np.clip((edge - np.hypot(dx, dy)) / 1.2, 0, 1)).astype(np.float32)
        eosin[r0:r1, c0:c1] *= keep
        haem[r0:r1, c0:c1] *= keep


def _expose(
    scanner: Scanner, stains: tuple[Field, Field, Field], mpp: float, rng: np.random.Generator, light: Field
) -> NDArray[np.float32]:
    """Beer-Lambert: amounts of stain to grey levels (rows, cols, 3), blurred, before the camera's noise."""
    vectors = np.array([scanner.haematoxylin, scanner.eosin, scanner.blood], np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[:2] *= np.array(scanner.strength, np.float32)[:, None]
    haem, eosin, blood = stains
    out = np.empty((*haem.shape, 3), np.float32)
    for channel in range(3):
        density = haem * vectors[0, channel] + eosin * vectors[1, channel] + blood * vectors[2, channel]
        seen = np.float32(scanner.white[channel]) * np.exp(np.float32(-np.log(10)) * density) * light
        out[..., channel] = ndimage.gaussian_filter(seen, scanner.blur_um / mpp, truncate=3)
    return out


def render(
    plan: Blueprint, tissue: Tissue, cells: Cells, progress: Callable[[float], None] | None = None
) -> NDArray[np.uint8]:
    """Draw a section.

    The picture is drawn in horizontal bands with a halo, so that memory stays small; every band is a function
    of the maps and of the cells alone, apart from the camera's noise.

    Parameters
    ----------
    plan, tissue, cells
        What to draw.
    progress
        Called with the share that is done, 0..1.

    Returns
    -------
    uint8 (rows, cols, 3).
    """
    stage = _set_stage(plan, tissue, cells)
    height, width = plan.shape
    picture = np.empty((height, width, 3), np.uint8)
    rng = np.random.default_rng([plan.seed, 4])
    lamp = coarse_noise(rng, tissue.labels.shape, 700 / MAP_UM)
    for start in range(0, height, _BAND):
        stop = min(start + _BAND, height)
        top, bottom = max(start - _HALO, 0), min(stop + _HALO, height)
        rows = bottom - top
        haem, eosin, blood, present = _background(stage, top, rows)
        draw(stage.cells, top, haem, eosin, blood, plan.mpp, stage.chromatin)
        thick = present * (1 + np.float32(0.10) * upsampled(stage.relief, top, rows, width, plan.mpp))
        light = 1 + np.float32(0.008) * upsampled(lamp, top, rows, width, plan.mpp)
        stains = (haem * thick, eosin * thick, blood * thick)
        seen = _expose(plan.scanner, stains, plan.mpp, rng, light)[start - top : stop - top]
        seen += plan.scanner.grain * rng.standard_normal(seen.shape, dtype=np.float32)
        picture[start:stop] = np.clip(np.rint(seen), 0, 255)
        if progress is not None:
            progress(stop / height)
    return picture
