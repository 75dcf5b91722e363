"""Picture of a synthetic section: stains in optical density, then illumination, blur and camera noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .blueprint import Blueprint, Scanner
from .cells import KINDS, Cells
from .fields import MAP_UM, Field, coarse_noise, noise, step, upsampled
from .nuclei import draw
from .tissue import COMPARTMENTS, Tissue

_BAND = 384
_HALO = 8
_TILE = 1024  # side of the periodic noise in pixels
_MOSAIC_UM = 1.0
_FIBRE_UM = (0.35, 1.0)  # pixel size of the fibres' texture in µm, across and along the fibres


@dataclass(frozen=True)
class _Stage:
    """Maps (pixel size `MAP_UM`) and periodic textures used by all bands of one picture."""

    plan: Blueprint
    tissue: Tissue
    cells: Cells
    soft: dict[str, Field]
    inside: Field
    kink: Field
    relief: Field
    lamp: Field
    mosaic: Field
    fibrils: Field
    bundles: Field
    clefts: Field
    fine: Field
    medium: Field
    large: Field


def _mosaic(tissue: Tissue, cells: Cells, rng: np.random.Generator) -> Field:
    """Draw a random tint for each epithelial cell, with cell borders: about -1..1, pixels of `_MOSAIC_UM`."""
    shape = tuple(int(side * MAP_UM / _MOSAIC_UM) for side in tissue.labels.shape)
    epithelial = cells.take(np.isin(cells.kind, [KINDS.index("tumour"), KINDS.index("epithelium")]))
    free = np.ones(shape, bool)
    rows = np.clip((epithelial.y / _MOSAIC_UM).astype(int), 0, shape[0] - 1)
    cols = np.clip((epithelial.x / _MOSAIC_UM).astype(int), 0, shape[1] - 1)
    free[rows, cols] = False
    if free.all():
        return np.zeros(shape, np.float32)
    nearest = ndimage.distance_transform_edt(free, return_distances=False, return_indices=True)
    owner = nearest[0] * np.int32(shape[1]) + nearest[1]
    tint = rng.standard_normal(4096, dtype=np.float32)[
        (owner * np.int64(2654435761) >> 7) % 4096
    ] * np.float32(0.4)
    border = np.zeros(shape, np.float32)
    border[:-1] = owner[1:] != owner[:-1]
    border[:, :-1] = np.maximum(border[:, :-1], owner[:, 1:] != owner[:, :-1])
    return ndimage.gaussian_filter(tint - 1.5 * border, 0.8).astype(np.float32)


def _set_stage(plan: Blueprint, tissue: Tissue, cells: Cells) -> _Stage:
    rng = np.random.default_rng([plan.seed, 3])
    shape, pixel, fibre = tissue.labels.shape, 1 / plan.mpp, (2048, 2560)
    across, along = _FIBRE_UM
    return _Stage(
        plan=plan,
        tissue=tissue,
        cells=cells,
        soft={
            name: ndimage.gaussian_filter(tissue.mask(name).astype(np.float32), 0.8)
            for name in COMPARTMENTS
            if name != "stroma"
        },
        inside=ndimage.gaussian_filter((tissue.labels > 0).astype(np.float32), 0.8),
        kink=coarse_noise(rng, shape, 42 / MAP_UM),
        relief=coarse_noise(rng, shape, 170 / MAP_UM),
        lamp=coarse_noise(rng, shape, 700 / MAP_UM),
        mosaic=_mosaic(tissue, cells, rng),
        fibrils=noise(rng, fibre, (0.5 / across, 7 / along)),
        bundles=noise(rng, fibre, (1.7 / across, 24 / along)),
        clefts=noise(rng, fibre, (3.2 / across, 20 / along)),
        fine=noise(rng, (_TILE, _TILE), 0.55 * pixel),
        medium=noise(rng, (_TILE, _TILE), 1.8 * pixel),
        large=noise(rng, (_TILE, _TILE), 6.0 * pixel),
    )


def _tiled(texture: Field, top: int, rows: int, cols: int, shift: int = 0) -> Field:
    """Cut a band out of a periodic texture."""
    r = (np.arange(top, top + rows) + shift) % texture.shape[0]
    c = (np.arange(cols) + 3 * shift) % texture.shape[1]
    return texture[np.ix_(r, c)]


def _stroma(stage: _Stage, top: int, rows: int, medium: Field) -> tuple[Field, Field]:
    """Draw collagen, wavy bundles of fibrils with clefts between them; return haematoxylin and eosin."""
    tissue, mpp, cols = stage.tissue, stage.plan.mpp, stage.plan.shape[1]
    along, across, dense, kink = (
        upsampled(values, top, rows, cols, mpp, smooth=True)
        for values in (tissue.along, tissue.across, tissue.density, stage.kink)
    )
    # Crimp: fibres are wavy, more in some places than in others, with a phase shift between neighbours.
    crimp = np.sin(along * np.float32(2 * np.pi / 31) + np.float32(2.2) * kink + np.float32(0.035) * across)
    across = across + crimp * (np.float32(1.1) + np.float32(0.7) * kink) + np.float32(0.35) * medium
    r = np.floor(across / np.float32(_FIBRE_UM[0])).astype(np.int32) % stage.fibrils.shape[0]
    c = np.floor(along / np.float32(_FIBRE_UM[1])).astype(np.int32) % stage.fibrils.shape[1]
    bundles, fibrils, clefts = (texture[r, c] for texture in (stage.bundles, stage.fibrils, stage.clefts))
    loose = 1 - dense
    # Clefts lie along the zero lines of their texture and are wider in loose stroma.
    width = np.float32(0.05) + np.float32(0.85) * loose * loose
    open_ = np.exp(-((clefts / width) ** 2)) * (np.float32(0.50) + np.float32(0.45) * loose)
    body = (0.17 + 0.17 * dense) * (1 + 0.17 * fibrils + 0.24 * np.tanh(bundles))
    eosin = body * (1 - open_)
    haem = (0.025 + 0.035 * loose) * (1 - 0.7 * open_) + 0.012 * np.maximum(fibrils, 0)
    return haem, eosin


def _epithelium(
    stage: _Stage, top: int, rows: int, medium: Field, fine: Field
) -> dict[str, tuple[Field, Field]]:
    """Draw the cytoplasm of tumour and of glands; return haematoxylin and eosin of each."""
    mpp, cols = stage.plan.mpp, stage.plan.shape[1]
    hypoxia = upsampled(stage.tissue.hypoxia, top, rows, cols, mpp)
    grade = upsampled(stage.tissue.grade, top, rows, cols, mpp)
    cell = upsampled(stage.mosaic, top, rows, cols, mpp, map_um=_MOSAIC_UM)
    grain = 1 + 0.09 * medium + 0.08 * fine
    return {
        "tumour": (
            (0.13 + 0.07 * grade - 0.07 * hypoxia) * grain + 0.035 * cell,
            (0.20 + 0.13 * hypoxia) * grain + 0.055 * cell,
        ),
        "gland": (0.10 * grain + 0.02 * cell, 0.24 * grain + 0.05 * cell),
    }


def _necrosis(medium: Field, fine: Field, large: Field) -> tuple[Field, Field]:
    """Draw dead tissue, smudged and grainy with a few cracks; return haematoxylin and eosin."""
    crack = step(-large + 0.35 * medium, 1.5, 2.0)
    eosin = (0.235 + 0.050 * np.tanh(large) + 0.035 * medium + 0.030 * fine) * (1 - 0.75 * crack)
    haem = 0.035 + 0.045 * step(large - 0.4 * medium, 0.4, 1.8)
    return haem * (1 - crack), eosin


def _background(stage: _Stage, top: int, rows: int) -> tuple[Field, Field, Field, Field]:
    """Draw a band without nuclei; return haematoxylin, eosin, blood and the share of tissue per pixel."""
    tissue, mpp, cols = stage.tissue, stage.plan.mpp, stage.plan.shape[1]
    fine = _tiled(stage.fine, top, rows, cols)
    medium = _tiled(stage.medium, top, rows, cols, 311)
    large = _tiled(stage.large, top, rows, cols, 173)
    wobble = medium * np.float32(0.12)
    parts = _epithelium(stage, top, rows, medium, fine)
    parts["lymphoid"] = (0.085 + 0.03 * medium, 0.13 + 0.03 * medium)
    wall = 1 - step(upsampled(tissue.fat_gap, top, rows, cols, mpp), 0.9, 1.9)
    parts["adipose"] = (0.02 * wall, 0.30 * wall * (1 + 0.15 * medium))
    parts["necrosis"] = _necrosis(medium, fine, large)
    parts["vessel"] = (np.full_like(fine, 0.03), 0.25 + 0.02 * medium)

    share, drawn = {}, np.zeros_like(fine)
    for name in parts:
        soft = upsampled(stage.soft[name], top, rows, cols, mpp)
        frayed = wobble * 1.6 + 0.1 * large if name == "necrosis" else wobble
        share[name] = step(soft + frayed * (soft > 0.02) * (soft < 0.98), 0.38, 0.62)
        drawn += share[name]
    present = step(upsampled(stage.inside, top, rows, cols, mpp) + wobble, 0.35, 0.65)
    haem, eosin = _stroma(stage, top, rows, medium)
    left_over = np.clip(1 - drawn, 0, 1)
    # Some nests are separated from the stroma by a thin gap.
    rim = np.exp(-(((share["tumour"] - 0.42) / 0.3) ** 2)) * step(large, 0.2, 1.2) * (share["tumour"] < 0.99)
    left_over *= 1 - 0.9 * rim * (share["tumour"] > 0.01)
    haem, eosin = haem * left_over, eosin * left_over
    total = np.maximum(drawn, 1)
    for name, (h, e) in parts.items():
        weight = share[name] / total
        haem += weight * h
        eosin += weight * e
    _open_lumens(stage, top, eosin, haem, large)
    present = np.maximum(present, share["adipose"])
    clip = (np.maximum(field * present, 0).astype(np.float32) for field in (haem, eosin))
    return next(clip), next(clip), np.zeros_like(fine), present.astype(np.float32)


def _open_lumens(stage: _Stage, top: int, eosin: Field, haem: Field, large: Field) -> None:
    """Clear the lumens of ducts and vessels in a band, in place; some ducts contain a little secretion."""
    mpp = stage.plan.mpp
    rows, cols = eosin.shape
    for number, ring in enumerate((*stage.tissue.ducts, *stage.tissue.vessels)):
        reach = ring.radius * 1.4
        r0, r1 = max(int((ring.y - reach) / mpp) - top, 0), min(int((ring.y + reach) / mpp) + 1 - top, rows)
        c0, c1 = max(int((ring.x - reach) / mpp), 0), min(int((ring.x + reach) / mpp) + 1, cols)
        if r0 >= r1 or c0 >= c1:
            continue
        dy = ((np.arange(r0, r1) + top + 0.5) * mpp - ring.y)[:, None]
        dx = ((np.arange(c0, c1) + 0.5) * mpp - ring.x)[None, :]
        depth = ring.outline(np.arctan2(dy, dx)) * ring.lumen - np.hypot(dx, dy)
        keep = (1 - np.clip(depth / 1.2, 0, 1)).astype(np.float32)
        eosin[r0:r1, c0:c1] *= keep
        if number < len(stage.tissue.ducts) and number % 3 == 0:
            curd = np.clip((depth - 7) / 9 + 0.55 * large[r0:r1, c0:c1], 0, 1)
            eosin[r0:r1, c0:c1] += (0.10 * curd * (depth > 1.5)).astype(np.float32)
        haem[r0:r1, c0:c1] *= keep


def _expose(
    scanner: Scanner, stains: tuple[Field, Field, Field], mpp: float, rng: np.random.Generator, light: Field
) -> NDArray[np.float32]:
    """Turn amounts of stain into blurred grey levels (rows, cols, 3) by the Beer-Lambert law."""
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


def render(plan: Blueprint, tissue: Tissue, cells: Cells) -> NDArray[np.uint8]:
    """Draw the picture of a section.

    The picture is drawn in horizontal bands that overlap, so that it needs little memory; apart from camera
    noise a band depends only on the maps and the cells.

    Parameters
    ----------
    plan, tissue, cells
        Size and scanner of the picture, and maps and cells of the section.

    Returns
    -------
    uint8 (rows, cols, 3).
    """
    stage = _set_stage(plan, tissue, cells)
    height, width = plan.shape
    picture = np.empty((height, width, 3), np.uint8)
    rng = np.random.default_rng([plan.seed, 4])
    for start in range(0, height, _BAND):
        stop = min(start + _BAND, height)
        top, bottom = max(start - _HALO, 0), min(stop + _HALO, height)
        rows = bottom - top
        haem, eosin, blood, present = _background(stage, top, rows)
        draw(stage.cells, top, haem, eosin, blood, plan.mpp, stage.fine)
        thick = present * (1 + np.float32(0.10) * upsampled(stage.relief, top, rows, width, plan.mpp))
        light = 1 + np.float32(0.008) * upsampled(stage.lamp, top, rows, width, plan.mpp)
        stains = (haem * thick, eosin * thick, blood * thick)
        seen = _expose(plan.scanner, stains, plan.mpp, rng, light)[start - top : stop - top]
        seen += plan.scanner.grain * rng.standard_normal(seen.shape, dtype=np.float32)
        picture[start:stop] = np.clip(np.rint(seen), 0, 255)
    return picture
