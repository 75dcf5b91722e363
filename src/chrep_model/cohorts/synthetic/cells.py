"""Where the nuclei lie and what shape and chromatin they have."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from .blueprint import Blueprint
from .tissue import MAP_UM, Ring, Tissue

Array = NDArray[np.float32]
KINDS = (
    "tumour", "mitosis", "fibroblast", "lymphocyte", "fat", "ghost", "debris", "epithelium", "endothelium", "red cell",
)
"""Cell.kind is an index into this."""


@dataclass(frozen=True)
class Cells:
    """Nuclei (and red cells), one row for each; every array is (n,).

    Attributes
    ----------
    x, y
        Centre in µm.
    kind
        Index into `KINDS`.
    a, b
        Half axes in µm; a along `angle`.
    angle
        Direction of the long axis in radians, x towards y.
    bumpy
        Amplitude of the outline's harmonics as a share of the radius.
    dark
        Haematoxylin of the body.
    rim
        Additional haematoxylin of the nuclear membrane.
    clump
        Contrast of the chromatin.
    nucleolus
        Haematoxylin of the nucleoli; 0 = none.
    key
        uint32 that decides everything else that is random about the nucleus.
    """

    x: Array
    y: Array
    kind: NDArray[np.uint8]
    a: Array
    b: Array
    angle: Array
    bumpy: Array
    dark: Array
    rim: Array
    clump: Array
    nucleolus: Array
    key: NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.x)

    def take(self, which: NDArray[np.int64] | NDArray[np.bool_]) -> Cells:
        """Some of the cells."""
        return Cells(*(getattr(self, f.name)[which] for f in fields(self)))


def spread_out(
    xy: NDArray[np.float64], distance: float | NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Choose points so that none is closer to another than the mean of their two distances.

    Random sequential packing in parallel: in each round a point stays when it comes before all undecided
    neighbours in a random order, and removes them.

    Returns
    -------
    int64 indices into `xy`, ascending.
    """
    n = len(xy)
    if n == 0:
        return np.zeros(0, np.int64)
    reach = np.broadcast_to(np.asarray(distance, np.float64), (n,))
    pairs = cKDTree(xy).query_pairs(float(reach.max()), output_type="ndarray")
    gap = np.hypot(*(xy[pairs[:, 0]] - xy[pairs[:, 1]]).T)
    pairs = pairs[gap < (reach[pairs[:, 0]] + reach[pairs[:, 1]]) / 2]
    order = rng.permutation(n)
    first = np.where(order[pairs[:, 0]] < order[pairs[:, 1]], pairs[:, 0], pairs[:, 1])
    second = pairs.sum(axis=1) - first
    kept, undecided = np.zeros(n, bool), np.ones(n, bool)
    while undecided.any():
        blocked = np.zeros(n, bool)
        blocked[second] = True
        chosen = undecided & ~blocked
        kept |= chosen
        lost = np.zeros(n, bool)
        lost[second[chosen[first]]] = True
        undecided &= ~(chosen | lost)
        alive = undecided[first] & undecided[second]
        first, second = first[alive], second[alive]
    return np.flatnonzero(kept)


def draw_points(density: Array, spacing: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw points on a map.

    Parameters
    ----------
    density
        Expected number of points per mm² before packing, (rows, cols) of `MAP_UM`.
    spacing
        Least distance in µm; 0 = none.
    rng
        Source of randomness.

    Returns
    -------
    float64 (n, 2), (x, y) in µm.
    """
    hits = rng.poisson(density.astype(np.float64).ravel() * (MAP_UM * 1e-3) ** 2)
    rows, cols = np.divmod(np.repeat(np.arange(hits.size), hits), density.shape[1])
    xy = (np.stack([cols, rows], axis=1) + rng.random((len(rows), 2))) * MAP_UM
    return xy[spread_out(xy, spacing, rng)] if spacing > 0 else xy


class _Sower:
    """Collects cells of one section."""

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
        self, kind: str, xy: NDArray[np.float64], *, a: object, b: object, angle: object = None, bumpy: object = 0.04,
        dark: object = 0.8, rim: object = 0.1, clump: object = 0.15, nucleolus: object = 0.0,
    ) -> None:
        n, rng = len(xy), self.rng
        angle = rng.uniform(0, np.pi, n) if angle is None else angle

        def full(value: object) -> Array:
            return np.broadcast_to(np.asarray(value, np.float32), (n,)).copy()

        self.parts.append(
            Cells(
                full(xy[:, 0]), full(xy[:, 1]), np.full(n, KINDS.index(kind), np.uint8), full(a), full(b), full(angle),
                full(bumpy), full(dark), full(rim), full(clump), full(nucleolus),
                rng.integers(0, 2**32, n, dtype=np.uint32),
            )
        )

    def lognormal(self, n: int, middle: object, spread: object) -> NDArray[np.float64]:
        return np.asarray(middle) * np.exp(np.asarray(spread) * self.rng.standard_normal(n))


def _tumour(sow: _Sower, plan: Blueprint) -> None:
    tissue, rng = sow.tissue, sow.rng
    where = tissue.mask("tumour").astype(np.float32)
    xy = sow.points(where * 26000, 8.6)
    n = len(xy)
    grade, hypoxia = sow.at(tissue.grade, xy), sow.at(tissue.hypoxia, xy)
    pleo = plan.patient.pleomorphism
    radius = sow.lognormal(n, 4.3 + 1.3 * grade * pleo, (0.10 + 0.12 * grade) * pleo) * (1 - 0.22 * hypoxia)
    ratio = np.exp(-np.abs(rng.normal(0.18, 0.14, n)))
    vesicular = rng.random(n) < 0.35 + 0.4 * grade - 0.3 * hypoxia
    sow.add(
        "tumour", xy, a=radius / np.sqrt(ratio), b=radius * np.sqrt(ratio),
        bumpy=rng.uniform(0.03, 0.11, n) * (0.7 + 0.6 * grade) * pleo,
        dark=np.where(vesicular, rng.normal(0.42, 0.07, n), rng.normal(0.68, 0.10, n)) + 0.28 * hypoxia,
        rim=np.where(vesicular, 0.32, 0.12), clump=np.where(vesicular, 0.34, 0.22),
        nucleolus=np.where(rng.random(n) < 0.25 + 0.5 * grade, rng.uniform(0.3, 0.6, n), 0) * vesicular,
    )
    xy = sow.points(where * (20 + 260 * tissue.grade**2), 20)
    n = len(xy)
    sow.add(
        "mitosis", xy, a=rng.uniform(3.4, 5.0, n), b=rng.uniform(1.3, 2.4, n), bumpy=0.16, dark=1.35, rim=0.0,
        clump=0.1,
    )


def _stroma(sow: _Sower) -> None:
    tissue, rng = sow.tissue, sow.rng
    stroma = tissue.mask("stroma").astype(np.float32)
    near = np.exp(-np.abs(tissue.margin) / 250).astype(np.float32)
    xy = sow.points(stroma * (700 + 1100 * near), 7)
    n = len(xy)
    b = rng.uniform(1.1, 1.9, n)
    sow.add(
        "fibroblast", xy, a=rng.uniform(5.5, 10.5, n), b=b, angle=sow.at(sow.flow, xy) + rng.normal(0, 0.16, n),
        bumpy=0.05, dark=rng.normal(0.72, 0.13, n), rim=0.05, clump=0.15,
    )
    # Small holes in the fibres' direction are filled with single lymphocytes where interferon is high.
    lonely = stroma * (60 + 2600 * tissue.interferon**2 * near) + tissue.mask("tumour") * (500 * tissue.interferon**3)
    _lymphocytes(sow, sow.points(lonely.astype(np.float32), 6.2))
    _lymphocytes(sow, sow.points(tissue.mask("lymphoid") * np.float32(46000), 6.0))


def _lymphocytes(sow: _Sower, xy: NDArray[np.float64]) -> None:
    rng, n = sow.rng, len(xy)
    radius = sow.lognormal(n, 3.05, 0.09)
    ratio = np.exp(-np.abs(rng.normal(0.06, 0.07, n)))
    sow.add(
        "lymphocyte", xy, a=radius / np.sqrt(ratio), b=radius * np.sqrt(ratio), bumpy=rng.uniform(0.01, 0.05, n),
        dark=rng.normal(1.02, 0.12, n), rim=0.1, clump=0.30,
    )


def _necrosis(sow: _Sower) -> None:
    rng, where = sow.rng, sow.tissue.mask("necrosis").astype(np.float32)
    xy = sow.points(where * 2600, 6)
    n = len(xy)
    radius = sow.lognormal(n, 4.2, 0.2)
    sow.add("ghost", xy, a=radius * 1.1, b=radius * 0.9, bumpy=0.08, dark=rng.uniform(0.02, 0.16, n), rim=0.05, clump=0.3)
    xy = sow.points(where * 5200, 0)
    n = len(xy)
    xy = xy + rng.normal(0, 1.5, (n, 2))
    radius = np.clip(sow.lognormal(n, 0.85, 0.4), 0.4, 2.4)
    sow.add("debris", xy, a=radius * 1.2, b=radius * 0.85, bumpy=0.12, dark=rng.uniform(0.4, 1.25, n), rim=0, clump=0.2)


def _around(ring: Ring, distance: float, spacing: float, rng: np.random.Generator) -> tuple[NDArray[np.float64], ...]:
    """Points (n, 2) along a ring at a share `distance` of its radius, and the direction outwards (n,)."""
    count = max(4, int(2 * np.pi * ring.radius * distance / spacing))
    angle = (np.arange(count) + rng.uniform(-0.3, 0.3, count)) * 2 * np.pi / count
    r = ring.outline(angle) * ring.radius * distance
    return np.stack([ring.x + r * np.cos(angle), ring.y + r * np.sin(angle)], axis=1), angle


def _rings(sow: _Sower) -> None:
    rng = sow.rng
    for duct in sow.tissue.ducts:
        middle = (duct.radius * 0.55 + duct.lumen * 0.45) / duct.radius
        xy, out = _around(duct, middle, 5.6, rng)
        n = len(xy)
        sow.add(
            "epithelium", xy + rng.normal(0, 0.8, (n, 2)), a=rng.uniform(4.0, 5.0, n), b=rng.uniform(2.5, 3.0, n),
            angle=out, bumpy=0.03, dark=rng.normal(0.72, 0.06, n), rim=0.14, clump=0.18,
        )
        xy, out = _around(duct, 0.97, 13.0, rng)
        sow.add("epithelium", xy, a=4.5, b=1.5, angle=out + np.pi / 2, dark=0.85, rim=0.05)
    for vessel in sow.tissue.vessels:
        xy, out = _around(vessel, 0.93, 11.0, rng)
        n = len(xy)
        sow.add("endothelium", xy, a=rng.uniform(4, 6.5, n), b=1.2, angle=out + np.pi / 2, dark=0.85, rim=0.05)
        _red_cells(sow, vessel)


def _red_cells(sow: _Sower, vessel: Ring) -> None:
    rng = sow.rng
    fill = rng.uniform(0, 0.9) if vessel.lumen > 4 else 0
    count = rng.poisson(fill * np.pi * vessel.lumen**2 / 22)
    r, angle = vessel.lumen * 0.85 * np.sqrt(rng.random(count)), rng.uniform(0, 2 * np.pi, count)
    r *= vessel.outline(angle)
    xy = np.stack([vessel.x + r * np.cos(angle), vessel.y + r * np.sin(angle)], axis=1)
    xy = xy[spread_out(xy, 4.6, rng)]
    n = len(xy)
    sow.add("red cell", xy, a=rng.uniform(2.9, 3.6, n), b=rng.uniform(2.3, 3.2, n), dark=rng.uniform(0.4, 0.6, n), clump=0)


def fat_cells(tissue: Tissue, rng: np.random.Generator) -> NDArray[np.float64]:
    """Centres (n, 2) of fat cells in µm, some of them beyond the fat so that its border has cells too."""
    where = ndimage.binary_dilation(tissue.mask("adipose"), iterations=int(40 / MAP_UM))
    return draw_points(where.astype(np.float32) * 1500, 52, rng)


def make_cells(plan: Blueprint, tissue: Tissue) -> Cells:
    """Put all nuclei and red cells of a section where its compartments want them.

    Parameters
    ----------
    plan
        Says how pleomorphic the tumour is and gives the seed.
    tissue
        The maps.
    """
    sow = _Sower(tissue, np.random.default_rng([plan.seed, 2]))
    # The order is the order in which they are drawn: later ones lie above earlier ones.
    _necrosis(sow)
    _stroma(sow)
    _tumour(sow, plan)
    _rings(sow)
    parts = [p for p in sow.parts if len(p)]
    return Cells(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Cells)))
