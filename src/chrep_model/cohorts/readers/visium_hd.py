"""Read Visium HD output of Space Ranger 3 and later: square bins of 2, 8 and 16 µm without gaps."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from chrep_model.cohorts.findings import Finding
from chrep_model.cohorts.h5ad import CountsFile
from chrep_model.cohorts.readers.gene_features import gene_counts
from chrep_model.cohorts.readers.lattice import Lattice, fit_lattice
from chrep_model.cohorts.readers.matrix import find_matrix, read_matrix
from chrep_model.cohorts.readers.source import Options, Reader
from chrep_model.cohorts.readers.spaceranger import FILTERED, RAW, match, section_name
from chrep_model.cohorts.readers.spot_folder import (
    Positions,
    find_section_picture,
    read_positions,
    read_scale_factors,
)
from chrep_model.cohorts.readers.squares import sum_rows
from chrep_model.errors import CohortError

KIND = "Visium HD folder"
#: Side in µm; bins of 2 µm are mostly empty, and 16 µm are the coarsest that Space Ranger writes.
DEFAULT_BIN_UM = 16.0
_BIN = re.compile(r"square_(\d{3})um")
_LEAST_COVERED = 0.5
_SCALES_DIFFER = 0.02


def _find(path: Path) -> Path | None:
    for folder in (path, path / "outs"):
        if _BIN.fullmatch(folder.name) and (folder / "spatial").is_dir():
            return folder
        binned = folder if folder.name == "binned_outputs" else folder / "binned_outputs"
        if _bins(binned):
            return binned
    return None


def _bins(binned: Path) -> dict[float, Path]:
    """Map the side of the bins in µm to their folder, finest first."""
    if not binned.is_dir():
        return {}
    folders = [folder for folder in sorted(binned.iterdir()) if (folder / "spatial").is_dir()]
    matched = [(_BIN.fullmatch(folder.name), folder) for folder in folders]
    return {float(found[1]): folder for found, folder in matched if found}


def _name(place: Path) -> str:
    place = place.absolute()
    for folder in (place, *place.parents):
        if folder.name not in ("binned_outputs", "segmented_outputs") and not _BIN.fullmatch(folder.name):
            return section_name(folder)
    return place.name


def _choose(place: Path, bin_um: float | None) -> tuple[Path, float, int]:
    """Choose the bins to read: their folder, their side, and the number of bins to sum along a side."""
    found = _BIN.fullmatch(place.name)
    bins = {float(found[1]): place} if found else _bins(place)
    if bin_um is None:
        bin_um = max((side for side in bins if side <= DEFAULT_BIN_UM), default=min(bins))
    for side in sorted(bins, reverse=True):
        times = bin_um / side
        if times >= 1 and abs(times - round(times)) < 1e-6:
            return bins[side], side, round(times)
    listed = ", ".join(f"{side:g}" for side in bins)
    raise CohortError(
        f"bins of {bin_um:g} µm cannot be made of those that are here ({listed} µm)",
        path=place,
        remedy=f"Give a multiple of {min(bins):g} as --bin-um.",
    )


def _picture(place: Path, options: Options) -> Path:
    folder, _, _ = _choose(place, options.bin_um)
    up = 4 if _BIN.fullmatch(place.name) else 3
    neither = "neither tissue_hires_image.png nor the one of the CytAssist"
    return find_section_picture(place, _name(place), folder / "spatial", options, up=up, neither=neither)


def _read(place: Path, options: Options) -> CountsFile:
    folder, side, times = _choose(place, options.bin_um)
    path = find_matrix(folder, FILTERED) or find_matrix(folder, RAW)
    if path is None:
        raise CohortError(f"{FILTERED}.h5 is missing", path=folder, remedy="Copy the folder again.")
    matrix, positions = read_matrix(path), read_positions(folder / "spatial")
    scale = read_scale_factors(folder / "spatial")
    _check_bin(scale, side, folder)
    rows, at, findings = match(matrix, positions)
    genes = gene_counts(matrix)
    lattice = _lattice(positions, side, scale)
    mpp = _scale(lattice, scale, positions)
    counts, xy, array = genes.counts[rows], positions.xy[at], positions.array[at]
    names = tuple(matrix.barcodes[row] for row in rows)
    findings.append(Finding("ok", f"Bins of {side * times:g} µm."))
    if times > 1:
        if lattice is None:
            raise CohortError("too few bins to be summed", path=folder, remedy="Give the whole folder.")
        covered = np.unique(positions.array[positions.in_tissue] // times, axis=0, return_counts=True)
        counts, array = sum_rows(counts, array // times)
        full = dict(zip(map(tuple, covered[0].tolist()), covered[1].tolist(), strict=True))
        share = np.array([full[tuple(square)] for square in array.tolist()]) / times**2
        kept = share >= _LEAST_COVERED
        if not kept.any():
            raise CohortError(
                f"no square of {side * times:g} µm is at least half under tissue",
                path=folder,
                remedy="Give smaller squares as --bin-um.",
            )
        counts, array = counts[kept], array[kept]
        xy = lattice.at(array * float(times) + (times - 1) / 2)
        names = tuple(f"s_{side * times:03.0f}um_{r:05d}_{c:05d}" for r, c in array.tolist())
        text = f"They were summed of bins of {side:g} µm"
        if left := int((~kept).sum()):
            text += f"; {left:,} that are less than half under tissue were left out"
        findings.append(Finding("ok", f"{text}."))
    return CountsFile(
        counts=counts,
        genes=genes.genes,
        spot_ids=names,
        xy=xy,
        gene_ids=genes.gene_ids,
        facts={"um_per_px": mpp, "spot_diameter_px": side * times / mpp},
        array=array,
        findings=(*genes.findings, *findings),
    )


def _check_bin(scale: dict[str, float], side: float, folder: Path) -> None:
    said = scale.get("bin_size_um", side)
    if abs(said - side) > 1e-6:
        raise CohortError(
            f"by its scale factors this folder has bins of {said:g} µm, and by its name of {side:g}",
            path=folder,
            remedy="Files of two folders were mixed: copy them again.",
        )


def _lattice(positions: Positions, side: float, scale: dict[str, float]) -> Lattice | None:
    try:
        return fit_lattice(positions.array, positions.xy, side, side)
    except ValueError as error:
        raise CohortError(
            f"these are not positions of bins of {side:g} µm: {error}",
            path=positions.path,
            remedy="Copy the folder 'spatial' again.",
        ) from None


def _scale(lattice: Lattice | None, scale: dict[str, float], positions: Positions) -> float:
    said = scale.get("microns_per_pixel")
    if said is not None and lattice is not None and abs(said / lattice.mpp - 1) > _SCALES_DIFFER:
        raise CohortError(
            f"the scale factors say {said:.4g} µm per px, and the bins {lattice.mpp:.4g}",
            path=positions.path,
            remedy="Positions and scale factors are of different runs: copy the folder 'spatial' again.",
        )
    if said is not None:
        return said
    if lattice is None:
        raise CohortError(
            "nothing says the µm per px (microns_per_pixel)",
            path=positions.path,
            remedy="Copy the folder 'spatial' again.",
        )
    return lattice.mpp


def _hdf5(place: Path) -> list[Path]:
    folders = [place] if _BIN.fullmatch(place.name) else list(_bins(place).values())
    found = [find_matrix(folder, FILTERED) or find_matrix(folder, RAW) for folder in folders]
    return [path for path in found if path is not None and path.is_file()]


READER = Reader(kind=KIND, find=_find, name=_name, picture=_picture, read=_read, hdf5=_hdf5, binned=True)
