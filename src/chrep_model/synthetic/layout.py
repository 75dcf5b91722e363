"""Layout of a section: random maps of tumour, stroma, fat and the other compartments."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from .blueprint import Blueprint
from .fields import MAP_UM, Field, coarse_noise, step
from .points import draw_points
from .tissue import COMPARTMENTS, Ring, Tissue

USUAL_UM = 2200.0
"""Side in µm of a section with regions of the sizes given below; smaller sections have smaller regions."""


class _Layout:
    """Random generator, map size and coordinates shared by all functions that lay out one section."""

    def __init__(self, blueprint: Blueprint) -> None:
        self.plan = blueprint
        self.rng = np.random.default_rng([blueprint.seed, 1])
        height, width = blueprint.size_um
        self.shape = (int(np.ceil(height / MAP_UM)), int(np.ceil(width / MAP_UM)))
        self.scale = float(np.clip(min(height, width) / USUAL_UM, 0.3, 1.6))
        self.y, self.x = np.meshgrid(
            (np.arange(self.shape[0], dtype=np.float32) + 0.5) * MAP_UM,
            (np.arange(self.shape[1], dtype=np.float32) + 0.5) * MAP_UM,
            indexing="ij",
        )
        self.height, self.width = height, width
        self.warp = (self.noise(70 * self.scale), self.noise(70 * self.scale))

    def noise(self, scale_um: float) -> Field:
        """Draw a map of smooth, standard normal noise."""
        return coarse_noise(self.rng, self.shape, scale_um / MAP_UM)

    def blob(self, x: float, y: float, radius: float, rough: float = 0.18) -> Field:
        """Draw an irregular blob as a map of signed distances from its edge in µm, positive inside."""
        dx = self.x - x + self.warp[1] * radius * rough
        dy = self.y - y + self.warp[0] * radius * rough
        return (radius - np.hypot(dx, dy)).astype(np.float32)


def _outline(layout: _Layout) -> Field:
    """Draw the tissue's outline, a rounded block cut on one side, as signed distance, positive inside."""
    rng, scale = layout.rng, layout.scale
    cx, cy = layout.width / 2, layout.height / 2
    u, v = (layout.x - cx) / (0.455 * layout.width), (layout.y - cy) / (0.455 * layout.height)
    radius = (np.abs(u) ** 3 + np.abs(v) ** 3) ** np.float32(1 / 3)
    inside = (1 - radius) * min(cx, cy)
    angle = rng.uniform(0, 2 * np.pi)
    cut = 0.86 * min(cx, cy) - ((layout.x - cx) * np.cos(angle) + (layout.y - cy) * np.sin(angle))
    inside = np.minimum(inside + layout.noise(260 * scale) * 45 * scale, cut)
    return (inside + layout.noise(30) * 7 + layout.noise(8) * 2.5).astype(np.float32)


def _fibres(layout: _Layout) -> tuple[Field, Field]:
    """Draw collagen fibres: maps of the coordinates along and across them in µm."""
    rng = layout.rng
    angle = rng.uniform(0, np.pi)
    bend, sway = layout.noise(260 * layout.scale) * 110 * layout.scale, layout.noise(60) * 14
    along = layout.x * np.cos(angle) + layout.y * np.sin(angle) + layout.noise(200) * 60
    across = -layout.x * np.sin(angle) + layout.y * np.cos(angle) + bend + sway
    return along.astype(np.float32), across.astype(np.float32)


def _rings(
    layout: _Layout,
    where: NDArray[np.bool_],
    count: int,
    radius: tuple[float, float],
    wall: tuple[float, float],
    bumps: tuple[float, float, float],
    clear: float = 1.3,
) -> tuple[Ring, ...]:
    """Place ducts or vessels inside `where`, at a distance from its border and from each other."""
    rng = layout.rng
    room = ndimage.distance_transform_edt(where) * MAP_UM
    found: list[Ring] = []
    rows, cols = np.nonzero(room > radius[0] * 1.2)
    for pick in rng.permutation(len(rows))[:4000]:
        if len(found) == count:
            break
        x, y = (cols[pick] + 0.5) * MAP_UM, (rows[pick] + 0.5) * MAP_UM
        size = min(float(np.exp(rng.uniform(*np.log(radius)))), room[rows[pick], cols[pick]] / 1.2)
        if any(np.hypot(x - r.x, y - r.y) < clear * (size + r.radius) for r in found):
            continue
        harmonics = np.stack([rng.normal(0, 1, 3) * np.array(bumps), rng.uniform(0, 2 * np.pi, 3)], axis=1)
        lumen = max(size - rng.uniform(*wall), 0.22 * size)
        found.append(Ring(float(x), float(y), size, lumen, harmonics))
    return tuple(found)


def _ducts(layout: _Layout, stroma: NDArray[np.bool_], glands: float) -> tuple[Ring, ...]:
    """Place ducts and lobules of small acini in the stroma outside the tumour."""
    ducts = _rings(layout, stroma, round(4 * glands), (34, 70), (15, 22), (0.2, 0.08, 0.05))
    free = stroma.copy()
    for duct in ducts:
        free &= np.hypot(layout.x - duct.x, layout.y - duct.y) > 1.4 * duct.radius
    acini: tuple[Ring, ...] = ()
    for centre in _rings(layout, free, round(3 * glands), (70, 110), (10, 11), (0, 0, 0)):
        near = free & (np.hypot(layout.x - centre.x, layout.y - centre.y) < centre.radius)
        acini += _rings(layout, near, 14, (15, 25), (11, 15), (0.16, 0.08, 0.05), clear=1.12)
    return ducts + acini


def _stamp_rings(layout: _Layout, labels: NDArray[np.uint8], rings: tuple[Ring, ...], value: int) -> None:
    """Write the discs of ducts or vessels into the label map."""
    for ring in rings:
        reach = ring.radius * 1.6
        rows = slice(max(int((ring.y - reach) / MAP_UM), 0), int((ring.y + reach) / MAP_UM) + 1)
        cols = slice(max(int((ring.x - reach) / MAP_UM), 0), int((ring.x + reach) / MAP_UM) + 1)
        dx, dy = layout.x[rows, cols] - ring.x, layout.y[rows, cols] - ring.y
        edge = ring.outline(np.arctan2(dy, dx).astype(np.float64)) * ring.radius
        labels[rows, cols][np.hypot(dx, dy) < edge] = value


def _unit(values: Field) -> Field:
    """Map standard normal values to 0..1."""
    return (1 / (1 + np.exp(-1.7 * values))).astype(np.float32)


def _nests(layout: _Layout, along: Field, across: Field, margin: Field, necrosis: Field) -> Field:
    """Draw the tumour's nests as signed distance from their edge (about µm), positive inside."""
    size = layout.plan.patient.nest_um * np.sqrt(layout.scale)
    # Noise in the fibres' coordinates makes nests longer along the fibres than across.
    span = [int(np.ptp(f) / MAP_UM) + 8 for f in (across, along / 1.6)]
    rows = (across - across.min()) / MAP_UM
    cols = (along - along.min()) / 1.6 / MAP_UM

    def flowing(scale_um: float) -> Field:
        source = coarse_noise(layout.rng, (span[0], span[1]), scale_um / MAP_UM)
        return ndimage.map_coordinates(source, [rows, cols], order=1, mode="nearest")

    rough = layout.noise(14) * 0.10 + layout.noise(5) * 0.05
    solid = np.clip(margin / (150 * layout.scale), -6, 0.5)
    nest = (flowing(size / 2) + rough + solid - 0.25) * size * 0.5
    # Thin septa with vessels run through solid tumour: the zero lines of another field, of uneven width.
    septum = np.abs(flowing(size * 0.55)) * size * 0.75 - 5 - 4 * layout.noise(40)
    nest = np.minimum(nest, septum)
    # Single cells and short cords of tumour lie in the stroma around it.
    cords = (flowing(7) - 2.0 - np.clip(-margin / (90 * layout.scale), 0, 9)) * 9
    nest = np.maximum(nest, np.where(margin < 40, cords, -99))
    shell = necrosis + 65 * np.sqrt(layout.scale) + layout.noise(25) * 14
    return np.maximum(nest, shell).astype(np.float32)


def _aggregates(layout: _Layout, inside: Field, margin: Field, interferon: Field) -> Field:
    """Draw lymphoid aggregates at the tumour's margin as signed distance from their edge."""
    rng, scale = layout.rng, layout.scale
    result = np.full(layout.shape, -1e4, np.float32)
    rows, cols = np.nonzero((np.abs(margin + 30 * scale) < 70 * scale) & (inside > 110 * scale))
    if not len(rows):
        return result
    p = interferon[rows, cols].astype(np.float64) ** 2 + 0.05
    picks = rng.choice(len(rows), round(7 * layout.plan.patient.lymphoid), p=p / p.sum())
    for pick in picks:
        x, y = (cols[pick] + 0.5) * MAP_UM, (rows[pick] + 0.5) * MAP_UM
        result = np.maximum(result, layout.blob(x, y, rng.uniform(45, 130) * scale, 0.35))
    return result + layout.noise(12) * 6


def _fat_cells(layout: _Layout, fat: NDArray[np.bool_], inside: Field) -> tuple[NDArray[np.bool_], Field]:
    """Fill the fat region with round fat cells; only whole cells are kept.

    Returns
    -------
    Mask of the fat cells, and each pixel's distance in µm from the nearest cell wall (0 outside).
    """
    gap = np.zeros(layout.shape, np.float32)
    taken = np.zeros(layout.shape, bool)
    around = ndimage.binary_dilation(fat, iterations=int(50 / MAP_UM))
    centres = draw_points(around.astype(np.float32) * 2500, layout.rng.uniform(40, 54), layout.rng)
    if len(centres) < 3 or not fat.any():
        return taken, gap
    rows, cols = (np.clip((centres[:, i] / MAP_UM).astype(int), 0, layout.shape[1 - i] - 1) for i in (1, 0))
    whole = fat[rows, cols] & (inside[rows, cols] > 12)
    rows, cols = np.nonzero(around)
    xy = np.stack([(cols + 0.5) * MAP_UM, (rows + 0.5) * MAP_UM], axis=1)
    distance, which = cKDTree(centres).query(xy, k=2)
    taken[rows, cols] = whole[which[:, 0]] & (distance[:, 0] < 46)
    # Round the corners where three cells meet.
    between = (distance[:, 1] - distance[:, 0]) * 0.5 - np.maximum(distance[:, 0] - 30, 0) * 0.10
    edge = ndimage.distance_transform_edt(taken) * MAP_UM
    gap[rows, cols] = np.minimum(np.minimum(between, edge[rows, cols]), 12)
    return taken, ndimage.gaussian_filter(gap, 0.8)


def _necrosis(layout: _Layout, x: float, y: float, radius: float) -> Field:
    """Draw necrosis around the tumour's core as signed distance from its edge, positive inside."""
    rng, patient = layout.rng, layout.plan.patient
    result = np.full(layout.shape, -1e4, np.float32)
    for _ in range(max(1, round(3 * patient.necrosis))):
        r, a = rng.uniform(0, 0.6) * radius, rng.uniform(0, 2 * np.pi)
        size = rng.uniform(75, 150) * layout.scale * np.sqrt(patient.necrosis)
        result = np.maximum(result, layout.blob(x + r * np.cos(a), y + r * np.sin(a), size, 0.4))
    return result + layout.noise(22) * 7


def _regions(layout: _Layout) -> tuple[Field, Field, Field, Field]:
    """Draw the large regions: signed distances of tumour, fat and necrosis, and the interferon gradient."""
    rng, patient, scale = layout.rng, layout.plan.patient, layout.scale
    half = min(layout.width, layout.height) / 2
    cx, cy = layout.width / 2, layout.height / 2
    side, interferon_side = rng.uniform(0, 2 * np.pi, 2)
    radius = half * 0.66 * np.sqrt(patient.tumour)
    tx, ty = cx + np.cos(side) * half * 0.2, cy + np.sin(side) * half * 0.2
    margin = layout.blob(tx, ty, radius, 0.14) + layout.noise(130 * scale) * 75 * scale
    away = (cx - layout.x) * np.cos(side) + (cy - layout.y) * np.sin(side)
    fat = away - half * (0.70 - 0.18 * patient.adipose) + layout.noise(120 * scale) * 95 * scale
    necrosis = _necrosis(layout, tx, ty, radius)
    slope = (layout.x - cx) * np.cos(interferon_side) + (layout.y - cy) * np.sin(interferon_side)
    interferon = _unit(slope / (half * 0.6) + 0.35 * layout.noise(150 * scale))
    return margin.astype(np.float32), fat.astype(np.float32), necrosis, interferon


def make_tissue(blueprint: Blueprint) -> Tissue:
    """Lay out the compartments of a section at random.

    The tumour has nests along the fibres, necrosis in its core and lymphoid aggregates at its margin, most of
    them where interferon is high; fat lies on the side opposite the tumour.

    Parameters
    ----------
    blueprint
        Size, seed and patient of the section.
    """
    layout = _Layout(blueprint)
    scale = layout.scale
    inside = _outline(layout)
    along, across = _fibres(layout)
    margin, fat, necrosis, interferon = _regions(layout)
    nest = _nests(layout, along, across, margin, necrosis)
    lymphoid = _aggregates(layout, inside, margin, interferon)
    fat_here, fat_gap = _fat_cells(layout, (fat > 0) & (margin < -20) & (nest < 0) & (lymphoid < 0), inside)

    value = {name: i + 1 for i, name in enumerate(COMPARTMENTS)}
    labels = np.full(layout.shape, value["stroma"], np.uint8)
    labels[nest > 0] = value["tumour"]
    labels[lymphoid > 0] = value["lymphoid"]
    labels[necrosis > 0] = value["necrosis"]
    labels[fat_here] = value["adipose"]
    labels[(inside <= 0) & ~fat_here] = 0
    stroma = (labels == value["stroma"]) & (inside > 30)
    ducts = _ducts(layout, stroma & (margin < 30), blueprint.patient.glands)
    _stamp_rings(layout, labels, ducts, value["gland"])
    stroma &= labels == value["stroma"]
    vessels = _rings(layout, stroma, round(30 * scale**2) + 3, (6, 34), (2.5, 5), (0.3, 0.08, 0.04))
    _stamp_rings(layout, labels, vessels, value["vessel"])

    core = np.clip(1 + necrosis / (400 * scale), 0, 1) ** 2
    return Tissue(
        labels=labels,
        along=along,
        across=(across + 24 * np.tanh(ndimage.gaussian_filter(nest, 10) / 40)).astype(np.float32),
        hypoxia=(core * step(margin, -80, 80)).astype(np.float32),
        interferon=interferon,
        grade=_unit(layout.noise(220 * scale)),
        her2=_unit(layout.noise(260 * scale)),
        density=_unit(layout.noise(110 * scale) + 0.25),
        margin=margin,
        lymphoid=lymphoid.astype(np.float32),
        fat_gap=fat_gap,
        ducts=ducts,
        vessels=vessels,
    )
