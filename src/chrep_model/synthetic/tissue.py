"""Maps of a section's compartments with pixels of 2 µm, the common source of picture and counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .fields import MAP_UM, Field

COMPARTMENTS = ("tumour", "stroma", "lymphoid", "adipose", "necrosis", "gland", "vessel")
"""Names of the compartments; number i has the value i + 1 in `Tissue.labels`, and 0 is glass."""


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
        (3, 2) amplitude and phase of the 2nd to 4th harmonic of the outline.
    """

    x: float
    y: float
    radius: float
    lumen: float
    bumps: NDArray[np.float64]

    def outline(self, angle: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the outline's distance from the centre at these angles, as a multiple of the mean radius."""
        orders = np.arange(2, 5)[:, None]
        amplitude, phase = self.bumps[:, :1], self.bumps[:, 1:]
        waves = amplitude * np.cos(orders * angle.ravel()[None, :] + phase)
        return (1 + waves.sum(axis=0)).reshape(angle.shape)


@dataclass(frozen=True)
class Tissue:
    """Maps of one section's tissue, float32 (rows, cols) with pixels of `MAP_UM`.

    Attributes
    ----------
    labels
        uint8: 0 = glass, otherwise index into `COMPARTMENTS` plus 1.
    along, across
        Coordinates in µm along and across the collagen fibres.
    hypoxia, interferon, grade, her2, density
        Fields in 0..1: lack of oxygen, interferon (a smooth gradient from one side), grade of the tumour,
        strength of the ERBB2 amplicon and density of the collagen.
    margin, lymphoid
        Signed distance in µm from the edge of the tumour and of lymphoid aggregates; positive inside.
    fat_gap
        Distance in µm from the wall between neighbouring fat cells; 0 outside fat.
    ducts, vessels
        Outlines of the ducts and vessels, from which `labels` was drawn.
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
        """Return the mask of the compartment `name`, bool (rows, cols)."""
        return self.labels == COMPARTMENTS.index(name) + 1

    def mean_under(
        self, values: Field, xy_um: NDArray[np.float64], diameter_um: float
    ) -> NDArray[np.float64]:
        """Compute the mean of a map over discs.

        Parameters
        ----------
        values
            Map (rows, cols) with pixels of `MAP_UM`.
        xy_um
            (n, 2) centres of the discs in µm.
        diameter_um
            Diameter of the discs in µm.

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
        """Compute the share of each compartment under discs; the remaining share is glass.

        Returns
        -------
        float64 (n, number of compartments).
        """
        return np.stack(
            [self.mean_under(self.mask(n).astype(np.float32), xy_um, diameter_um) for n in COMPARTMENTS],
            axis=1,
        )
