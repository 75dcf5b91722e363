"""Random nuclei and red blood cells for each compartment of a section."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .blueprint import Blueprint
from .cells import KINDS, Array, Cells
from .fields import MAP_UM, step
from .points import draw_points, spread_out
from .tissue import Ring, Tissue


class _Placer:
    """Random generator and tissue maps of one section, and the list of cells placed so far."""

    def __init__(self, tissue: Tissue, rng: np.random.Generator) -> None:
        self.tissue = tissue
        self.rng = rng
        self.parts: list[Cells] = []
        gy, gx = (np.gradient(ndimage.gaussian_filter(tissue.across, 4), axis=i) for i in (0, 1))
        self.flow = np.arctan2(gx, -gy).astype(np.float32)

    def at(self, values: Array, xy: NDArray[np.float64]) -> Array:
        rows = np.clip((xy[:, 1] / MAP_UM).astype(int), 0, values.shape[0] - 1)
        cols = np.clip((xy[:, 0] / MAP_UM).astype(int), 0, values.shape[1] - 1)
        return values[rows, cols]

    def points(self, density: Array, spacing: float) -> NDArray[np.float64]:
        return draw_points(density, spacing, self.rng)

    def add(
        self,
        kind: str,
        xy: NDArray[np.float64],
        *,
        a: object,
        b: object,
        angle: object = None,
        bumpy: object = 0.04,
        dark: object = 0.8,
        rim: object = 0.1,
        clump: object = 0.15,
        nucleolus: object = 0.0,
    ) -> None:
        n, rng = len(xy), self.rng
        angle = rng.uniform(0, np.pi, n) if angle is None else angle

        def full(value: object) -> Array:
            return np.broadcast_to(np.asarray(value, np.float32), (n,)).copy()

        self.parts.append(
            Cells(
                full(xy[:, 0]),
                full(xy[:, 1]),
                np.full(n, KINDS.index(kind), np.uint8),
                full(a),
                full(b),
                full(angle),
                full(bumpy),
                full(dark),
                full(rim),
                full(clump),
                full(nucleolus),
                rng.integers(0, 2**32, n, dtype=np.uint32),
            )
        )

    def lognormal(self, n: int, middle: object, spread: object) -> NDArray[np.float64]:
        return np.asarray(middle) * np.exp(np.asarray(spread) * self.rng.standard_normal(n))


def _tumour(placer: _Placer, plan: Blueprint) -> None:
    tissue, rng = placer.tissue, placer.rng
    where = tissue.mask("tumour").astype(np.float32)
    xy = draw_points(where * 45000, 0, rng)
    pleo = plan.patient.pleomorphism
    grade, hypoxia = placer.at(tissue.grade, xy), placer.at(tissue.hypoxia, xy)
    radius = placer.lognormal(len(xy), 3.9 + 1.3 * grade * pleo, (0.12 + 0.13 * grade) * pleo) * (
        1 - 0.22 * hypoxia
    )
    kept = spread_out(xy, radius * rng.uniform(1.55, 2.3, len(xy)), rng)
    xy, grade, hypoxia, radius = xy[kept], grade[kept], hypoxia[kept], radius[kept]
    n = len(xy)
    ratio = np.exp(-np.abs(rng.normal(0.25, 0.18, n)))
    vesicular = rng.random(n) < 0.30 + 0.4 * grade - 0.3 * hypoxia
    # Neighbouring nuclei of a nest have similar directions.
    lean = placer.at(placer.flow, xy) + 0.9 * rng.standard_normal(n)
    placer.add(
        "tumour",
        xy,
        a=radius / np.sqrt(ratio),
        b=radius * np.sqrt(ratio),
        angle=lean,
        bumpy=rng.uniform(0.04, 0.13, n) * (0.7 + 0.6 * grade) * pleo,
        dark=np.where(vesicular, rng.normal(0.42, 0.07, n), rng.normal(0.66, 0.12, n)) + 0.28 * hypoxia,
        rim=np.where(vesicular, 0.30, 0.10),
        clump=np.where(vesicular, 0.36, 0.22),
        nucleolus=np.where(rng.random(n) < 0.25 + 0.5 * grade, rng.uniform(0.3, 0.6, n), 0) * vesicular,
    )
    xy = placer.points(where * (20 + 260 * tissue.grade**2), 20)
    n = len(xy)
    placer.add(
        "mitosis",
        xy,
        a=rng.uniform(3.4, 5.0, n),
        b=rng.uniform(1.3, 2.4, n),
        bumpy=0.16,
        dark=1.35,
        rim=0.0,
        clump=0.1,
    )


def _stroma(placer: _Placer) -> None:
    tissue, rng = placer.tissue, placer.rng
    stroma = tissue.mask("stroma").astype(np.float32)
    near = np.exp(-np.abs(tissue.margin) / 250).astype(np.float32)
    xy = placer.points(stroma * (900 + 1700 * near), 6)
    n = len(xy)
    # Fibroblasts near the tumour are plump and pale, the others thin and dark.
    plump = (rng.random(n) < 0.55 * placer.at(near, xy)).astype(np.float32)
    placer.add(
        "fibroblast",
        xy,
        a=rng.uniform(4.5, 9.5, n) - 1.0 * plump,
        b=rng.uniform(0.8, 1.5, n) + 0.9 * plump,
        angle=placer.at(placer.flow, xy) + rng.normal(0, 0.22, n),
        bumpy=rng.uniform(0.03, 0.16, n),
        dark=rng.normal(0.85, 0.13, n) - 0.30 * plump,
        rim=0.04 + 0.12 * plump,
        clump=0.2,
    )


def _immune(placer: _Placer) -> None:
    tissue, rng = placer.tissue, placer.rng
    stroma, tumour = (tissue.mask(name).astype(np.float32) for name in ("stroma", "tumour"))
    near = np.exp(-np.abs(tissue.margin) / 250).astype(np.float32)
    # Aggregates have no sharp border: lymphocytes thin out over some 40 µm beyond their edge.
    frayed = np.exp(np.minimum(tissue.lymphoid, 0) / 35)
    lonely = stroma * (60 + 3200 * tissue.interferon**2 * near + 15000 * frayed)
    lonely += tumour * (700 * tissue.interferon**3 + 3000 * frayed)
    _lymphocytes(placer, placer.points(lonely.astype(np.float32), 5.5))
    lymphoid = tissue.mask("lymphoid")
    centre = step(tissue.lymphoid, 42, 60)
    _lymphocytes(placer, placer.points((lymphoid * (1 - 0.85 * centre) * 110000).astype(np.float32), 4.9))
    xy = placer.points((lymphoid * centre * 30000).astype(np.float32), 7.6)
    n = len(xy)
    placer.add(
        "lymphocyte",
        xy,
        a=rng.uniform(3.4, 4.6, n),
        b=rng.uniform(3.0, 4.0, n),
        bumpy=0.06,
        dark=rng.normal(0.52, 0.1, n),
        rim=0.2,
        clump=0.35,
    )
    # Plasma cells: a round dark nucleus, off centre on a purple cytoplasm.
    xy = placer.points((stroma * near * tissue.interferon * 700).astype(np.float32), 9)
    n = len(xy)
    turn = rng.uniform(0, 2 * np.pi, n)
    shift = 1.9 * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    placer.add("plasma", xy, a=5.2, b=3.9, angle=turn, bumpy=0.04, dark=0.30, rim=0.0, clump=0.1)
    placer.add(
        "lymphocyte", xy + shift, a=2.9, b=2.7, bumpy=0.03, dark=rng.normal(1.0, 0.1, n), rim=0.12, clump=0.42
    )


def _lymphocytes(placer: _Placer, xy: NDArray[np.float64]) -> None:
    rng, n = placer.rng, len(xy)
    radius = placer.lognormal(n, 2.95, 0.10)
    ratio = np.exp(-np.abs(rng.normal(0.08, 0.10, n)))
    placer.add(
        "lymphocyte",
        xy,
        a=radius / np.sqrt(ratio),
        b=radius * np.sqrt(ratio),
        bumpy=rng.uniform(0.02, 0.07, n),
        dark=rng.normal(0.98, 0.14, n),
        rim=0.1,
        clump=0.30,
    )


def _necrosis(placer: _Placer) -> None:
    rng, where = placer.rng, placer.tissue.mask("necrosis").astype(np.float32)
    xy = placer.points(where * 5000, 7)
    n = len(xy)
    radius = placer.lognormal(n, 4.0, 0.25)
    placer.add(
        "ghost",
        xy,
        a=radius * 1.15,
        b=radius * 0.85,
        bumpy=0.10,
        dark=rng.uniform(0.02, 0.20, n),
        rim=0.05,
        clump=0.4,
    )
    # Debris of nuclei is densest next to living cells.
    shore = ndimage.distance_transform_edt(where).astype(np.float32) * MAP_UM
    xy = placer.points(where * (2500 + 9000 * np.exp(-shore / 25)), 0)
    n = len(xy)
    radius = np.clip(placer.lognormal(n, 0.8, 0.45), 0.35, 2.6)
    placer.add(
        "debris",
        xy,
        a=radius * 1.25,
        b=radius * 0.8,
        bumpy=0.16,
        dark=rng.uniform(0.25, 1.2, n),
        rim=0,
        clump=0.2,
    )


def _fat(placer: _Placer) -> None:
    gap, rng = placer.tissue.fat_gap, placer.rng
    wall = (placer.tissue.mask("adipose") & (gap < 2.0)).astype(np.float32)
    xy = placer.points(wall * 1500, 18)
    n = len(xy)
    gy, gx = (np.gradient(ndimage.gaussian_filter(gap, 2), axis=i) for i in (0, 1))
    angle = placer.at(np.arctan2(gx, -gy).astype(np.float32), xy)
    placer.add(
        "fat",
        xy,
        a=rng.uniform(3.5, 6, n),
        b=rng.uniform(0.9, 1.5, n),
        angle=angle,
        dark=rng.normal(0.85, 0.1, n),
        rim=0.05,
    )


def _around(
    ring: Ring, share: float, spacing: float, rng: np.random.Generator
) -> tuple[NDArray[np.float64], ...]:
    """Place points (n, 2) along a ring, at a share of its radius; also return the outward angle (n,)."""
    count = max(4, int(2 * np.pi * ring.radius * share / spacing))
    angle = (np.arange(count) + rng.uniform(-0.4, 0.4, count)) * 2 * np.pi / count
    r = ring.outline(angle) * ring.radius * share
    return np.stack([ring.x + r * np.cos(angle), ring.y + r * np.sin(angle)], axis=1), angle


def _walls(placer: _Placer) -> None:
    rng = placer.rng
    for duct in placer.tissue.ducts:
        middle = (duct.radius * 0.6 + duct.lumen * 0.4) / duct.radius
        xy, out = _around(duct, middle, 5.4, rng)
        n = len(xy)
        placer.add(
            "epithelium",
            xy + rng.normal(0, 1.0, (n, 2)),
            a=rng.uniform(3.6, 4.8, n),
            b=rng.uniform(2.4, 3.0, n),
            angle=out + rng.normal(0, 0.2, n),
            bumpy=0.05,
            dark=rng.normal(0.70, 0.09, n),
            rim=0.14,
            clump=0.22,
        )
        xy, out = _around(duct, 0.97, 12.0, rng)
        n = len(xy)
        placer.add(
            "epithelium",
            xy,
            a=rng.uniform(3, 5.5, n),
            b=rng.uniform(1.1, 1.8, n),
            angle=out + np.pi / 2,
            dark=rng.normal(0.82, 0.1, n),
            rim=0.05,
        )
    for vessel in placer.tissue.vessels:
        xy, out = _around(vessel, 0.93, 10.0, rng)
        n = len(xy)
        placer.add(
            "endothelium",
            xy,
            a=rng.uniform(3, 6, n),
            b=rng.uniform(0.9, 1.5, n),
            angle=out + np.pi / 2,
            dark=0.85,
            rim=0.05,
        )
        _red_cells(placer, vessel)


def _red_cells(placer: _Placer, vessel: Ring) -> None:
    rng = placer.rng
    fill = rng.beta(0.7, 0.7) if vessel.lumen > 4 else 0.0
    count = rng.poisson(fill * np.pi * vessel.lumen**2 / 9)
    r, angle = vessel.lumen * 0.88 * np.sqrt(rng.random(count)), rng.uniform(0, 2 * np.pi, count)
    r *= vessel.outline(angle)
    xy = np.stack([vessel.x + r * np.cos(angle), vessel.y + r * np.sin(angle)], axis=1)
    xy = xy[spread_out(xy, 4.2, rng)]
    n = len(xy)
    placer.add(
        "red cell",
        xy,
        a=rng.uniform(2.8, 3.6, n),
        b=rng.uniform(2.0, 3.1, n),
        dark=rng.uniform(0.36, 0.52, n),
        clump=0,
    )


def make_cells(plan: Blueprint, tissue: Tissue) -> Cells:
    """Place all nuclei and red blood cells of a section.

    Parameters
    ----------
    plan
        Seed, and pleomorphism of the tumour.
    tissue
        Maps of the section's compartments.
    """
    placer = _Placer(tissue, np.random.default_rng([plan.seed, 2]))
    # Cells are drawn in this order: later ones lie above earlier ones.
    _necrosis(placer)
    _fat(placer)
    _stroma(placer)
    _tumour(placer, plan)
    _immune(placer)
    _walls(placer)
    parts = [p for p in placer.parts if len(p)]
    return Cells(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Cells)))
