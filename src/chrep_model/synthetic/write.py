"""Generation of synthetic sections, and the files they are written to."""

from __future__ import annotations

import hashlib
import os
import string
import uuid
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image
from scipy import sparse

from chrep_model.errors import CohortError
from chrep_model.files import write_atomically
from chrep_model.progress import SILENT, Progress

from .blueprint import NEW_PATIENT, PATIENTS, SCANNERS, Blueprint
from .counts import Spots, draw_counts, place_spots
from .gene_programmes import FEW_GENES, GENES, PROGRAMME_OF
from .layout import make_tissue
from .place_cells import make_cells
from .render import render
from .tissue import COMPARTMENTS

if TYPE_CHECKING:
    from anndata import AnnData

NOTE = (
    "SYNTHETIC: picture, spots and counts were drawn by a program from one random seed. No patient, no tissue"
    " and no measurement is behind them; gene symbols are real, their values are invented."
)


@dataclass(frozen=True)
class SyntheticSection:
    """Picture, spots and counts of one synthetic section.

    Attributes
    ----------
    plan
        Description from which the section was generated.
    picture
        RGB image, uint8 (rows, cols, 3).
    counts
        int32 CSR (spots, genes).
    genes
        Gene symbols of the columns of `counts`.
    spots
        Positions of the spots and the tissue under each.
    """

    plan: Blueprint
    picture: NDArray[np.uint8]
    counts: sparse.csr_matrix
    genes: tuple[str, ...]
    spots: Spots

    @property
    def xy(self) -> NDArray[np.float64]:
        """Spot centres (x, y) in pixels, float64 (n, 2)."""
        return self.spots.xy_um / self.plan.mpp


def make_section(plan: Blueprint) -> SyntheticSection:
    """Generate one section: tissue, cells, picture, spots and counts.

    Parameters
    ----------
    plan
        Description of the section.
    """
    tissue = make_tissue(plan)
    cells = make_cells(plan, tissue)
    spots = place_spots(plan, tissue, cells)
    counts = draw_counts(plan, spots)
    picture = render(plan, tissue, cells)
    return SyntheticSection(plan, picture, counts, plan.genes or GENES, spots)


def write_section(
    section: SyntheticSection, folder: str | os.PathLike[str], quality: int = 88, suffix: str = ".jpg"
) -> None:
    """Write the picture NAME.jpg (or .tif) and the counts NAME.h5ad of a section.

    Parameters
    ----------
    section
        Section to write.
    folder
        Output folder; created if missing.
    quality
        JPEG quality, 1..100, for both formats.
    suffix
        ".jpg", or ".tif" for a TIFF with JPEG tiles.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    plan = section.plan
    with write_atomically(folder / f"{plan.name}{suffix}", CohortError) as path:
        if suffix == ".tif":
            _write_tiff(path, section.picture, plan.mpp, quality)
        else:
            Image.fromarray(section.picture).save(path, "JPEG", quality=quality, comment=NOTE.encode())
    with write_atomically(folder / f"{plan.name}.h5ad", CohortError) as path:
        _table(section).write_h5ad(path, compression="gzip")


def write_slide(plan: Blueprint, folder: str | os.PathLike[str], quality: int = 76) -> None:
    """Draw a section and write it as the pyramidal OME-TIFF NAME.ome.tif, without spots or counts.

    Parameters
    ----------
    plan
        Description of the section.
    folder
        Output folder; created if missing.
    quality
        JPEG quality, 1..100.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tissue = make_tissue(plan)
    picture = render(plan, tissue, make_cells(plan, tissue))
    with write_atomically(folder / f"{plan.name}.ome.tif", CohortError) as path:
        _write_tiff(path, picture, plan.mpp, quality, name=plan.name)


def _write_tiff(path: Path, picture: NDArray[np.uint8], mpp: float, quality: int, name: str = "") -> None:
    """Write a TIFF with JPEG tiles; given a name, an OME-TIFF with coarser levels as SubIFDs."""
    levels = [picture]
    while name and max(levels[-1].shape[:2]) > 1024:
        levels.append(_halved(levels[-1]))
    metadata: dict[str, object] | None = None
    if name:
        size: dict[str, object] = {"PhysicalSizeX": mpp, "PhysicalSizeY": mpp}
        units: dict[str, object] = {"PhysicalSizeXUnit": "µm", "PhysicalSizeYUnit": "µm"}
        # The UUID is computed from the content, so that the same seed gives the same file.
        unique = uuid.uuid5(uuid.NAMESPACE_URL, hashlib.sha256(picture.tobytes()).hexdigest())
        metadata = {"UUID": str(unique), "axes": "YXS", "Name": name, "Description": NOTE, **size, **units}
    with tifffile.TiffWriter(path, ome=bool(name)) as tiff:
        for number, level in enumerate(levels):
            pixels_per_cm = 1e4 / (mpp * picture.shape[1] / level.shape[1])
            tiff.write(
                level,
                subifds=len(levels) - 1 if number == 0 else 0,
                subfiletype=0 if number == 0 else 1,
                photometric="rgb",
                tile=(256, 256),
                compression="jpeg",
                compressionargs={"level": quality},
                resolution=(pixels_per_cm, pixels_per_cm),
                resolutionunit="CENTIMETER",
                software="chrep_model.cohorts.synthetic",
                description=NOTE if number == 0 and not name else None,
                metadata=metadata if number == 0 else None,
            )


def _halved(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Average blocks of 2 x 2 pixels; an odd last row or column is dropped."""
    rows, cols = picture.shape[0] // 2, picture.shape[1] // 2
    blocks = picture[: 2 * rows, : 2 * cols].reshape(rows, 2, cols, 2, 3)
    total = blocks.sum(axis=(1, 3), dtype=np.uint16)
    return ((total + 2) // 4).astype(np.uint8)


def _table(section: SyntheticSection) -> AnnData:
    """Collect a section's counts and spots in one AnnData."""
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
        var=pd.DataFrame(
            {"programme": [PROGRAMME_OF[gene] for gene in section.genes]}, index=list(section.genes)
        ),
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


def _plan(number: int, seed: int, size_px: int, mpp: float) -> Blueprint:
    """Describe section `number` of a cohort, such that each patient is combined with each scanner."""
    patient, scanner = number % 2, (number + number // 2) % 2
    name = f"SYNTHETIC_P{patient + 1}{string.ascii_uppercase[number // 2]}"
    return Blueprint(
        name, PATIENTS[patient], SCANNERS[scanner], (size_px, size_px), mpp, seed * 1000 + number
    )


def write_tiny_cohort(
    folder: str | os.PathLike[str], seed: int = 0, n_sections: int = 3, size_px: int = 768, mpp: float = 0.7
) -> None:
    """Write a small cohort for tests: two patients, about 50 spots and 60 genes per section.

    Parameters
    ----------
    folder
        Output folder; created if missing.
    seed
        Random seed; the same seed gives the same files.
    n_sections
        Number of sections; patients and scanners alternate.
    size_px, mpp
        Side of the square pictures and µm per pixel.
    """
    for number in range(n_sections):
        plan = replace(_plan(number, seed, size_px, mpp), spot_um=55.0, pitch_um=72.0, genes=FEW_GENES)
        write_section(make_section(plan), folder)


def write_sample_data(folder: str | os.PathLike[str], seed: int = 0, progress: Progress = SILENT) -> None:
    """Write the sample data: a cohort of four sections, and a slide of a third patient without counts.

    Sections of the first scanner are JPEG at 0.68 µm per pixel, those of the second tiled TIFF at 0.5; the
    slide is a pyramidal OME-TIFF.

    Parameters
    ----------
    folder
        Output folder; created if missing.
    seed
        Random seed; the same seed gives the same files.
    progress
        Receives the share of the work that is done, and the name of the file in work.
    """
    slide = Blueprint("SYNTHETIC_slide", NEW_PATIENT, SCANNERS[1], (6144, 6400), 0.5, seed * 1000 + 900)
    *work, total = accumulate((0, 12, 16, 16, 12, 39))
    for number in range(4):
        first = (number + number // 2) % 2 == 0
        plan = _plan(number, seed, 3400 if first else 3800, 0.68 if first else 0.5)
        progress.advance(work[number], total, plan.name)
        write_section(make_section(plan), folder, suffix=".jpg" if first else ".tif")
    progress.advance(work[4], total, slide.name)
    write_slide(slide, folder)
    progress.advance(total, total, "done")
