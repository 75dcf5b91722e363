"""Read Visium output folders of Space Ranger 1 to 3: spots of 55 µm, centres 100 µm apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from chrep_model.cohorts.findings import Finding
from chrep_model.cohorts.h5ad import CountsFile
from chrep_model.cohorts.readers.gene_features import gene_counts
from chrep_model.cohorts.readers.lattice import OtherArray, fit_lattice
from chrep_model.cohorts.readers.matrix import Matrix, find_matrix, read_matrix
from chrep_model.cohorts.readers.source import Options, Reader
from chrep_model.cohorts.readers.spot_folder import (
    Positions,
    find_section_picture,
    read_positions,
    read_scale_factors,
    spatial_folder,
)
from chrep_model.errors import CohortError

KIND = "Space Ranger folder"
_COPY_AGAIN = "Copy the folder 'spatial' of Space Ranger's output again."
FILTERED, RAW = "filtered_feature_bc_matrix", "raw_feature_bc_matrix"
SPOT_UM, PITCH_UM = 55.0, 100.0
# Space Ranger's spot_diameter_fullres includes the rim of a spot, according to its documentation.
RIM_UM = 65.0
# Distance of rows and columns of the hexagonal array; columns are counted in half steps.
_ROW_UM, _COL_UM = PITCH_UM * np.sqrt(3) / 2, PITCH_UM / 2
# Largest shares of barcodes off the tissue (filtered matrix), and without a position (raw matrix).
_MOST_BESIDE_TISSUE = 0.2
_MOST_WITHOUT_POSITION = 0.1
_DIAMETERS_DIFFER = 0.10


def _find(path: Path) -> Path | None:
    for folder in (path, path / "outs"):
        if folder.is_dir() and spatial_folder(folder) is not None and _matrix_of(folder) is not None:
            return folder
    return None


def _matrix_of(folder: Path) -> Path | None:
    for stem in (FILTERED, RAW):
        if (folder / f"{stem}.h5").is_file() or (folder / stem).is_dir():
            return find_matrix(folder, stem)
    for pattern in (f"*{FILTERED}.h5", f"*{RAW}.h5"):
        if any(folder.glob(pattern)):
            return find_matrix(folder, pattern[1:-3])
    return folder if any((folder / name).is_file() for name in ("matrix.mtx", "matrix.mtx.gz")) else None


def section_name(folder: Path) -> str:
    """Return the name of the section: the folder's, or the run's if the folder is its ``outs``."""
    folder = folder.absolute()
    return folder.parent.name if folder.name.lower() == "outs" else folder.name


def _picture(folder: Path, options: Options) -> Path:
    up = 2 if folder.name.lower() == "outs" else 1
    neither = "not tissue_hires_image.png"
    return find_section_picture(
        folder, section_name(folder), _spatial(folder), options, up=up, neither=neither
    )


def _read(folder: Path, options: Options) -> CountsFile:
    path = _matrix_of(folder)
    if path is None:  # deleted since it was found
        raise CohortError("the count matrix is missing", path=folder, remedy="Copy the folder again.")
    spatial = _spatial(folder)
    matrix, positions, scale = read_matrix(path), read_positions(spatial), read_scale_factors(spatial)
    spots, at, findings = match(matrix, positions)
    mpp, scale_findings = _scale(positions, scale)
    genes = gene_counts(matrix)
    return CountsFile(
        counts=genes.counts[spots],
        genes=genes.genes,
        spot_ids=tuple(matrix.barcodes[spot] for spot in spots),
        xy=positions.xy[at],
        gene_ids=genes.gene_ids,
        facts={"um_per_px": mpp, "spot_diameter_px": SPOT_UM / mpp},
        array=positions.array[at],
        findings=(*genes.findings, *findings, *scale_findings),
    )


def match(matrix: Matrix, positions: Positions) -> tuple[np.ndarray, np.ndarray, list[Finding]]:
    """Match the barcodes of counts and positions, and keep the spots under tissue.

    Returns
    -------
    spots, at : ndarray
        Matching rows of the matrix and of the positions, int64, in the matrix's order.
    findings : list of Finding

    Raises
    ------
    CohortError
        Counts and positions are of different sections, or no spot is under tissue.
    """
    filtered = FILTERED in matrix.path.name
    row = {barcode: number for number, barcode in enumerate(positions.barcodes)}
    at = np.array([row.get(barcode, -1) for barcode in matrix.barcodes], dtype=np.int64)
    unknown = int((at < 0).sum())
    if unknown > (0 if filtered else _MOST_WITHOUT_POSITION * len(at)):
        raise CohortError(
            f"{unknown:,} of its {len(at):,} barcodes are not in {positions.path.name}, such as "
            f"{matrix.barcodes[int(np.argmin(at))]}: counts and positions are of different sections",
            path=matrix.path,
            remedy="Put the 'spatial' folder of the same run beside it; for several runs that were joined "
            "(spaceranger aggr) give the folder of each.",
        )
    if not positions.in_tissue.any():
        raise CohortError(
            "no spot is marked as under tissue (in_tissue)",
            path=positions.path,
            remedy="Run Space Ranger with the tissue marked in Loupe, or correct in_tissue.",
        )
    kept = positions.in_tissue[at] & (at >= 0)
    findings: list[Finding] = []
    beside = int((~kept).sum())
    if filtered and beside > _MOST_BESIDE_TISSUE * len(kept):
        raise CohortError(
            f"{beside:,} of its {len(kept):,} barcodes are not under tissue in {positions.path.name}, though "
            "the filtered matrix holds such alone: counts and positions are of different sections",
            path=matrix.path,
            remedy="Put the 'spatial' folder of the same run beside it.",
        )
    if not kept.any():
        raise CohortError(
            f"none of its barcodes is under tissue in {positions.path.name}",
            path=matrix.path,
            remedy="Put the 'spatial' folder of the same run beside it.",
        )
    if beside:
        text = f"{beside:,} spots that are not under tissue were left out."
        findings.append(Finding("warning" if filtered else "ok", text))
    without = int(positions.in_tissue.sum()) - int(kept.sum())
    if without:
        findings.append(
            Finding(
                "warning" if without > 0.1 * positions.in_tissue.sum() else "ok",
                f"{without:,} spots under tissue have no counts in {matrix.path.name}, and were left out.",
                "Make sure that counts and positions are of the same run.",
            )
        )
    spots = np.flatnonzero(kept)
    return spots, at[spots], findings


def _scale(positions: Positions, scale: dict[str, float]) -> tuple[float, list[Finding]]:
    """Compute µm per px from the distance between spots, or else from their diameter; with findings."""
    diameter = scale.get("spot_diameter_fullres")
    why = "too few spots to measure the distance between them"
    lattice = None
    try:
        lattice = fit_lattice(positions.array, positions.xy, _ROW_UM, _COL_UM)
    except OtherArray:
        why = "the spots do not lie as on a Visium array"
    except ValueError as error:
        raise CohortError(
            f"array and positions do not belong together: {error}", path=positions.path, remedy=_COPY_AGAIN
        ) from None
    if lattice is None and diameter is None:
        raise CohortError(
            f"nothing tells the µm per px: {why}, and there is no spot_diameter_fullres",
            path=positions.path,
            remedy=_COPY_AGAIN,
        )
    if lattice is None:
        mpp = RIM_UM / float(diameter or 1)
        text = f"{mpp:.4g} µm per px by spot_diameter_fullres, which spans {RIM_UM:.0f} µm: {why}."
        return mpp, [Finding("warning", text, "Give the µm per px if you know it.")]
    mpp = lattice.mpp
    findings = [Finding("ok", f"{mpp:.4g} µm per px by the spots, which are {PITCH_UM:.0f} µm apart.")]
    if diameter is not None:
        spans = diameter * mpp
        if min(abs(spans / known - 1) for known in (SPOT_UM, RIM_UM)) > _DIAMETERS_DIFFER:
            findings.append(
                Finding(
                    "warning",
                    f"By spot_diameter_fullres a spot would be {spans:.3g} µm wide, and it is {SPOT_UM:.0f}.",
                    "Scale factors and positions may be of different sections: copy 'spatial' again.",
                )
            )
    return mpp, findings


def _spatial(folder: Path) -> Path:
    spatial = spatial_folder(folder)
    if spatial is None:
        raise CohortError("the folder 'spatial' is missing", path=folder, remedy="Copy it beside the counts.")
    return spatial


def _hdf5(folder: Path) -> list[Path]:
    path = _matrix_of(folder)
    return [path] if path is not None and path.is_file() else []


READER = Reader(kind=KIND, find=_find, name=section_name, picture=_picture, read=_read, hdf5=_hdf5)
