"""Positions, shapes and stain of a section's nuclei and red blood cells."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
KINDS = (
    "tumour",
    "mitosis",
    "fibroblast",
    "lymphocyte",
    "fat",
    "ghost",
    "debris",
    "epithelium",
    "endothelium",
    "red cell",
    "plasma",
)
"""Kinds of cells; `Cells.kind` is an index into this tuple."""


@dataclass(frozen=True)
class Cells:
    """Nuclei and red blood cells, one array entry per cell; every array is (n,).

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
        Irregularity of the outline: amplitude of its harmonics as a fraction of the radius.
    dark
        Amount of haematoxylin in the body of the nucleus.
    rim
        Additional amount of haematoxylin in the nuclear membrane.
    clump
        Contrast of the chromatin.
    nucleolus
        Amount of haematoxylin in the nucleoli; 0 = no nucleoli.
    key
        uint32 seed of the nucleus's other random properties.
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
        """Return the cells of an index array or a mask."""
        return Cells(*(getattr(self, f.name)[which] for f in fields(self)))
