"""Where each compartment of a section lies: maps of 2 µm that both the picture and the counts read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .fields import MAP_UM, Field

COMPARTMENTS = ("tumour", "stroma", "lymphoid", "adipose", "necrosis", "gland", "vessel")
"""Compartment i has the value i + 1 in `Tissue.labels`; 0 is glass."""


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
    margin, lymphoid
        Signed distance in µm from the edge of the tumour's region, of lymphoid aggregates; positive inside.
    fat_gap
        Distance in µm from the wall between neighbouring fat cells; 0 outside of fat.
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
    lymphoid: Field
    fat_gap: Field
    ducts: tuple[Ring, ...]
    vessels: tuple[Ring, ...]

    def mask(self, name: str) -> NDArray[np.bool_]:
        """Where a compartment is."""
        return self.labels == COMPARTMENTS.index(name) + 1

    def mean_under(
        self, values: Field, xy_um: NDArray[np.float64], diameter_um: float
    ) -> NDArray[np.float64]:
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
            [self.mean_under(self.mask(n).astype(np.float32), xy_um, diameter_um) for n in COMPARTMENTS],
            axis=1,
        )
