"""Synthetic sections in memory and on disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import sparse

from .blueprint import PATIENTS, SCANNERS, Blueprint
from .cells import make_cells
from .counts import Spots, draw_counts, place_spots
from .genes import FEW_GENES, GENES
from .render import render
from .tissue import COMPARTMENTS, make_tissue

Progress = Callable[[float, str], None]
"""Called with the share that is done, 0..1, and with what is being made."""

NOTE = (
    "SYNTHETIC: picture, spots and counts were drawn by a program from one random seed. No patient, no tissue and no"
    " measurement is behind them; gene symbols are real, their values are invented."
)


@dataclass(frozen=True)
class SyntheticSection:
    """A section in memory.

    Attributes
    ----------
    plan
        What was asked for.
    picture
        uint8 (rows, cols, 3).
    counts
        int32 CSR (spots, genes).
    genes
        Symbols of the columns.
    spots
        Where the spots are and what lies under them.
    """

    plan: Blueprint
    picture: NDArray[np.uint8]
    counts: sparse.csr_matrix
    genes: tuple[str, ...]
    spots: Spots

    @property
    def xy(self) -> NDArray[np.float64]:
        """(x, y) of the spot centres in pixels, float64 (n, 2)."""
        return self.spots.xy_um / self.plan.mpp


def make_section(plan: Blueprint, progress: Callable[[float], None] | None = None) -> SyntheticSection:
    """Make one section: tissue, cells, picture, spots and counts.

    Parameters
    ----------
    plan
        What to make.
    progress
        Called with the share that is done, 0..1.
    """
    tissue = make_tissue(plan)
    cells = make_cells(plan, tissue)
    spots = place_spots(plan, tissue, cells)
    counts = draw_counts(plan, spots)
    picture = render(plan, tissue, cells, progress)
    return SyntheticSection(plan, picture, counts, plan.genes or GENES, spots)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name with the same suffix; on success the file is synced and takes its real name."""
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        yield partial
        with partial.open("rb+") as stream:
            os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_section(section: SyntheticSection, folder: str | os.PathLike[str], quality: int = 88) -> None:
    """Write NAME.jpg and NAME.h5ad of a section.

    Parameters
    ----------
    section
        What to write.
    folder
        Made when it is missing.
    quality
        Of the JPEG.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    plan = section.plan
    with _replacing(folder / f"{plan.name}.jpg") as path:
        dpi = 25400 / plan.mpp
        Image.fromarray(section.picture).save(path, quality=quality, dpi=(dpi, dpi), comment=NOTE.encode())
    with _replacing(folder / f"{plan.name}.h5ad") as path:
        _table(section).write_h5ad(path, compression="gzip")


def _table(section: SyntheticSection):  # type: ignore[no-untyped-def]  # anndata is imported late and untyped
    """The AnnData of a section."""
    import anndata
    import pandas as pd

    plan, spots = section.plan, section.spots
    obs = pd.DataFrame(
        {f"fraction_{name}": spots.fractions[:, i].astype(np.float32) for i, name in enumerate(COMPARTMENTS)}
        | {f"field_{name}": values.astype(np.float32) for name, values in spots.fields.items()}
        | {"array_col": spots.grid[:, 0], "array_row": spots.grid[:, 1]},
        index=[f"{col}x{row}" for col, row in spots.grid],
    )
    return anndata.AnnData(
        X=section.counts,
        obs=obs,
        var=pd.DataFrame(index=list(section.genes)),
        obsm={"spatial": section.xy},
        uns={
            "section": plan.name,
            "patient": plan.patient.name,
            "um_per_px": plan.mpp,
            "spot_diameter_px": plan.spot_um / plan.mpp,
            "scanner": plan.scanner.name,
            "note": NOTE,
        },
    )


def write_tiny_cohort(
    folder: str | os.PathLike[str], seed: int = 0, n_sections: int = 3, size_px: int = 768, mpp: float = 0.7
) -> None:
    """Write a cohort that is small enough for a test: two patients, about 50 spots and 60 genes a section.

    Parameters
    ----------
    folder
        Made when it is missing.
    seed
        Decides everything.
    n_sections
        Patients take turns, and so do the scanners.
    size_px, mpp
        Side of the square pictures and µm per pixel.
    """
    for number in range(n_sections):
        plan = _plan(number, seed, size_px, mpp)
        write_section(make_section(replace(plan, spot_um=55.0, pitch_um=72.0, genes=FEW_GENES)), folder)


def _plan(number: int, seed: int, size_px: int, mpp: float) -> Blueprint:
    """Plan of the n-th section of a cohort; each patient meets each scanner."""
    patient, scanner = number % 2, (number + number // 2) % 2
    name = f"SYNTHETIC_P{patient + 1}{'ABCDEFGHIJKLMNOPQRSTUVWXYZ'[number // 2]}"
    return Blueprint(
        name, PATIENTS[patient], SCANNERS[scanner], (size_px, size_px), mpp, seed * 1000 + number,
    )
