"""Where each compartment of a synthetic section lies: maps of 2 µm that both the picture and the counts read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .blueprint import Blueprint
from .fields import Field, coarse_noise, resample, step

MAP_UM = 2.0
"""µm per pixel of the maps."""

COMPARTMENTS = ("tumour", "stroma", "lymphoid", "adipose", "necrosis", "gland", "vessel")
"""Compartment i has the value i + 1 in `Tissue.labels`; 0 is glass."""

USUAL_UM = 2200.0
"""Side of a section for which the sizes of regions below are meant; smaller sections get smaller regions."""


@dataclass(frozen=True)
class Ring:
    """A duct or a vessel: a closed wall around a lumen.

    Attributes
    ----------
    x, y
        Centre in µm.
    radius, lumen
        Outer radius of the wall and radius of the lumen, in µm.
    bumps
        (3, 2) amplitude and phase of the outline's 2nd to 4th harmonic.
    """

    x: float
    y: float
    radius: float
    lumen: float
    bumps: NDArray[np.float64]

    def outline(self, angle: NDArray[np.float64]) -> NDArray[np.float64]:
        """Distance of the outline from the centre as a multiple of the mean radius."""
        orders = np.arange(2, 5)[:, None]
        amplitude, phase = self.bumps[:, :1], self.bumps[:, 1:]
        waves = amplitude * np.cos(orders * angle.ravel()[None, :] + phase)
        return (1 + waves.sum(axis=0)).reshape(angle.shape)


@dataclass(frozen=True)
class Tissue:
    """A section before it is cut into cells: float32 maps (rows, cols) of `MAP_UM`.

    Attributes
    ----------
    labels
        uint8; 0 = glass, else index into `COMPARTMENTS` plus 1.
    along, across
        Coordinates in µm along and across the collagen fibres.
    hypoxia, interferon, grade, her2, density
        0..1: distance from the oxygen supply, the smooth gradient from one side, the tumour's grade, the
        amplicon's strength and how dense the collagen is.
    margin
        Score of the tumour's region: positive inside, in µm.
    ducts, vessels
        What was drawn from a list and not from a map.
    """

    labels: NDArray[np.uint8]
    along: Field
    across: Field
    hypoxia: Field
    interferon: Field
    grade: Field
    her2: Field
    density: Field
    margin: Field
    ducts: tuple[Ring, ...]
    vessels: tuple[Ring, ...]

    def mask(self, name: str) -> NDArray[np.bool_]:
        """Where a compartment is."""
        return self.labels == COMPARTMENTS.index(name) + 1

    def mean_under(self, values: Field, xy_um: NDArray[np.float64], diameter_um: float) -> NDArray[np.float64]:
        """Mean of a map over discs.

        Parameters
        ----------
        values
            (rows, cols) of `MAP_UM`.
        xy_um
            (n, 2) centres of the discs in µm.
        diameter_um
            Of the discs.

        Returns
        -------
        float64 (n,).
        """
        reach = int(np.ceil(diameter_um / 2 / MAP_UM))
        offsets = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1)
        offsets = offsets[:, np.hypot(*offsets) * MAP_UM <= diameter_um / 2]
        rows = np.floor(xy_um[:, 1:] / MAP_UM).astype(int) + offsets[0]
        cols = np.floor(xy_um[:, :1] / MAP_UM).astype(int) + offsets[1]
        rows = np.clip(rows, 0, values.shape[0] - 1)
        cols = np.clip(cols, 0, values.shape[1] - 1)
        return values[rows, cols].mean(axis=1, dtype=np.float64)

    def fractions(self, xy_um: NDArray[np.float64], diameter_um: float) -> NDArray[np.float64]:
        """Share of each compartment under discs; the rest is glass.

        Returns
        -------
        float64 (n, number of compartments).
        """
        return np.stack(
            [self.mean_under(self.mask(n).astype(np.float32), xy_um, diameter_um) for n in COMPARTMENTS], axis=1
        )


class _Layout:
    """Fields that share a random generator, a shape and a scale while a section is laid out."""

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

    def noise(self, scale_um: float) -> Field:
        return coarse_noise(self.rng, self.shape, scale_um / MAP_UM)

    def blob(self, x: float, y: float, radius: float, rough: float = 0.18) -> Field:
        """Signed distance in µm from the edge of an irregular blob, positive inside."""
        dx = self.x - x + self.warp[1] * radius * rough
        dy = self.y - y + self.warp[0] * radius * rough
        return (radius - np.hypot(dx, dy)).astype(np.float32)

    def prepare(self) -> None:
        self.warp = (self.noise(70 * self.scale), self.noise(70 * self.scale))


def _outline(layout: _Layout) -> Field:
    """Signed distance (about µm) from the tissue's edge, positive inside: a rounded block with one cut side."""
    rng, scale = layout.rng, layout.scale
    cx, cy = layout.width / 2, layout.height / 2
    u, v = (layout.x - cx) / (0.47 * layout.width), (layout.y - cy) / (0.47 * layout.height)
    radius = (np.abs(u) ** 3 + np.abs(v) ** 3) ** np.float32(1 / 3)
    inside = (1 - radius) * min(cx, cy)
    angle = rng.uniform(0, 2 * np.pi)
    cut = 0.86 * min(cx, cy) - ((layout.x - cx) * np.cos(angle) + (layout.y - cy) * np.sin(angle))
    inside = np.minimum(inside + layout.noise(260 * scale) * 45 * scale, cut)
    return (inside + layout.noise(30) * 7 + layout.noise(8) * 2.5).astype(np.float32)


def _fibres(layout: _Layout) -> tuple[Field, Field]:
    """Coordinates in µm along and across the fibres, which run in one main direction and wander."""
    rng = layout.rng
    angle = rng.uniform(0, np.pi)
    bend, sway = layout.noise(260 * layout.scale) * 110 * layout.scale, layout.noise(60) * 14
    along = layout.x * np.cos(angle) + layout.y * np.sin(angle) + layout.noise(200) * 60
    across = -layout.x * np.sin(angle) + layout.y * np.cos(angle) + bend + sway
    return along.astype(np.float32), across.astype(np.float32)


def _rings(
    layout: _Layout, where: NDArray[np.bool_], count: int, radius: tuple[float, float], wall: tuple[float, float]
) -> tuple[Ring, ...]:
    """Choose places inside `where` for ducts or vessels that keep clear of its border and of each other."""
    rng = layout.rng
    room = ndimage.distance_transform_edt(where) * MAP_UM
    found: list[Ring] = []
    rows, cols = np.nonzero(room > radius[0] * 1.15)
    for pick in rng.permutation(len(rows))[:4000]:
        if len(found) == count:
            break
        x, y = (cols[pick] + 0.5) * MAP_UM, (rows[pick] + 0.5) * MAP_UM
        size = float(np.exp(rng.uniform(*np.log(radius))))
        size = min(size, room[rows[pick], cols[pick]] / 1.15)
        if any(np.hypot(x - r.x, y - r.y) < 1.35 * (size + r.radius) for r in found):
            continue
        amplitude = rng.normal(0, 1, 3) * np.array([0.12, 0.06, 0.035])
        bumps = np.stack([amplitude, rng.uniform(0, 2 * np.pi, 3)], axis=1)
        found.append(Ring(float(x), float(y), size, max(size - rng.uniform(*wall), 0.25 * size), bumps))
    return tuple(found)


def _stamp_rings(layout: _Layout, labels: NDArray[np.uint8], rings: tuple[Ring, ...], value: int) -> None:
    """Write the discs of ducts or vessels into the map of labels."""
    for ring in rings:
        reach = ring.radius * 1.4
        rows = slice(max(int((ring.y - reach) / MAP_UM), 0), int((ring.y + reach) / MAP_UM) + 1)
        cols = slice(max(int((ring.x - reach) / MAP_UM), 0), int((ring.x + reach) / MAP_UM) + 1)
        dx, dy = layout.x[rows, cols] - ring.x, layout.y[rows, cols] - ring.y
        edge = ring.outline(np.arctan2(dy, dx).astype(np.float64)) * ring.radius
        labels[rows, cols][np.hypot(dx, dy) < edge] = value


def _unit(values: Field) -> Field:
    """Squeeze standard normal values into 0..1."""
    return (1 / (1 + np.exp(-1.7 * values))).astype(np.float32)


def make_tissue(blueprint: Blueprint) -> Tissue:
    """Lay out a section.

    The tumour's region has nests that follow the fibres, necrosis in its core and lymphoid aggregates at its
    margin, most of them on the side that interferon comes from; fat lies on the side away from the tumour.
    """
    layout = _Layout(blueprint)
    layout.prepare()
    rng, patient, scale = layout.rng, blueprint.patient, layout.scale
    inside = _outline(layout)
    along, across = _fibres(layout)
    half = min(layout.width, layout.height) / 2
    cx, cy = layout.width / 2, layout.height / 2
    side = rng.uniform(0, 2 * np.pi)

    tumour_radius = half * 0.68 * np.sqrt(patient.tumour)
    tx, ty = cx + np.cos(side) * half * 0.22, cy + np.sin(side) * half * 0.22
    margin = layout.blob(tx, ty, tumour_radius, 0.12) + layout.noise(130 * scale) * 70 * scale
    fat_line = (layout.x - cx) * np.cos(side + np.pi) + (layout.y - cy) * np.sin(side + np.pi)
    fat = fat_line - half * (0.66 - 0.16 * patient.adipose) + layout.noise(120 * scale) * 95 * scale

    necrosis = np.full(layout.shape, -1e4, np.float32)
    for _ in range(max(1, round(2 * patient.necrosis))):
        r, a = rng.uniform(0, 0.5) * tumour_radius, rng.uniform(0, 2 * np.pi)
        size = rng.uniform(110, 190) * scale * np.sqrt(patient.necrosis)
        necrosis = np.maximum(necrosis, layout.blob(tx + r * np.cos(a), ty + r * np.sin(a), size, 0.35))

    interferon_side = rng.uniform(0, 2 * np.pi)
    slope = (layout.x - cx) * np.cos(interferon_side) + (layout.y - cy) * np.sin(interferon_side)
    interferon = _unit(slope / (half * 0.6) + 0.35 * layout.noise(150 * scale))

    nest = _nests(layout, along, across, margin, necrosis)
    lymphoid = _aggregates(layout, inside, margin, interferon)

    labels = np.full(layout.shape, COMPARTMENTS.index("stroma") + 1, np.uint8)
    for name, where in (
        ("adipose", (fat > 0) & (margin < 0)),
        ("tumour", nest > 0),
        ("lymphoid", lymphoid > 0),
        ("necrosis", necrosis > 0),
    ):
        labels[where] = COMPARTMENTS.index(name) + 1
    stroma = (labels == COMPARTMENTS.index("stroma") + 1) & (inside > 30)
    ducts = _rings(layout, stroma & (margin < 60), round(7 * patient.glands), (32, 75), (16, 24))
    _stamp_rings(layout, labels, ducts, COMPARTMENTS.index("gland") + 1)
    stroma &= labels == COMPARTMENTS.index("stroma") + 1
    vessels = _rings(layout, stroma, round(26 * scale**2) + 3, (9, 38), (3, 5))
    _stamp_rings(layout, labels, vessels, COMPARTMENTS.index("vessel") + 1)
    labels[inside <= 0] = 0

    core = np.maximum(necrosis, -400 * scale) / (400 * scale)
    hypoxia = np.clip(1 + core, 0, 1).astype(np.float32) ** 2 * step(margin, -80, 80)
    return Tissue(
        labels=labels,
        along=along,
        across=(across + 24 * np.tanh(ndimage.gaussian_filter(nest, 10) / 40)).astype(np.float32),
        hypoxia=hypoxia.astype(np.float32),
        interferon=interferon,
        grade=_unit(layout.noise(220 * scale)),
        her2=_unit(layout.noise(260 * scale)),
        density=_unit(layout.noise(110 * scale)),
        margin=margin.astype(np.float32),
        ducts=ducts,
        vessels=vessels,
    )


def _nests(layout: _Layout, along: Field, across: Field, margin: Field, necrosis: Field) -> Field:
    """Signed distance (about µm) from the edge of the tumour's nests, positive inside."""
    size = layout.plan.patient.nest_um * np.sqrt(layout.scale)
    # Noise in the fibres' own coordinates: nests come out longer along the fibres than across.
    span = [int(np.ptp(f) / MAP_UM) + 8 for f in (across, along / 1.6)]
    source = coarse_noise(layout.rng, (span[0], span[1]), size / 2 / MAP_UM)
    rows = (across - across.min()) / MAP_UM
    cols = (along - along.min()) / 1.6 / MAP_UM
    pattern = ndimage.map_coordinates(source, [rows, cols], order=1, mode="nearest")
    rough = layout.noise(14) * 0.10 + layout.noise(5) * 0.04
    solid = np.clip(margin / (160 * layout.scale), -6, 0.75)
    nest = (pattern + rough + solid - 0.15) * size * 0.5
    shell = necrosis + 70 * np.sqrt(layout.scale) + layout.noise(25) * 12
    return np.maximum(nest, shell).astype(np.float32)


def _aggregates(layout: _Layout, inside: Field, margin: Field, interferon: Field) -> Field:
    """Signed distance from the edge of lymphoid aggregates at the tumour's margin."""
    rng, scale = layout.rng, layout.scale
    result = np.full(layout.shape, -1e4, np.float32)
    weight = (np.abs(margin + 30 * scale) < 70 * scale) & (inside > 110 * scale)
    rows, cols = np.nonzero(weight)
    if not len(rows):
        return result
    p = interferon[rows, cols].astype(np.float64) ** 2 + 0.05
    picks = rng.choice(len(rows), round(6 * layout.plan.patient.lymphoid), p=p / p.sum())
    for pick in picks:
        x, y = (cols[pick] + 0.5) * MAP_UM, (rows[pick] + 0.5) * MAP_UM
        result = np.maximum(result, layout.blob(x, y, rng.uniform(55, 140) * scale, 0.3))
    return result + layout.noise(12) * 5


def upsampled(
    values: Field, top: int, rows: int, cols: int, mpp: float, *, smooth: bool = False
) -> Field:
    """Bring the part of a map that lies under a band of pixels to the picture's resolution.

    Parameters
    ----------
    values
        Map of `MAP_UM`.
    top, rows, cols
        First row and size of the band, in pixels of the picture.
    mpp
        µm per pixel of the picture.
    smooth
        Bicubic instead of bilinear.

    Returns
    -------
    float32 (rows, cols).
    """
    k = mpp / MAP_UM
    return resample(values, (rows, cols), (0.0, top * k, cols * k, (top + rows) * k), smooth=smooth)
