"""Nuclei and red cells of a section: where they lie, what shape and chromatin they have."""

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
"""`Cells.kind` is an index into this."""


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
        """Choose some of the cells."""
        return Cells(*(getattr(self, f.name)[which] for f in fields(self)))
