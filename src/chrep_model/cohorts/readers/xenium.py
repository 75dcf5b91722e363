"""Read Xenium output folders: cells, summed into squares of the H&E picture of the same section."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from chrep_model.cohorts.findings import Finding
from chrep_model.cohorts.h5ad import CountsFile
from chrep_model.cohorts.readers.gene_features import gene_counts
from chrep_model.cohorts.readers.matrix import find_matrix, read_matrix
from chrep_model.cohorts.readers.pictures import Size, find_picture, nearby, size_of
from chrep_model.cohorts.readers.source import Options, Reader
from chrep_model.cohorts.readers.spaceranger import section_name
from chrep_model.cohorts.readers.squares import sum_rows
from chrep_model.cohorts.readers.untrusted_files import inside, read_json, read_table
from chrep_model.errors import CohortError
from chrep_model.geometry import FloatArray

KIND = "Xenium folder"
#: Side of a square in µm: about the centre of a tile, with enough cells for meaningful counts.
DEFAULT_BIN_UM = 100.0
#: µm per px of the pictures taken by Xenium instruments.
XENIUM_MPP = 0.2125
_MATRIX = "cell_feature_matrix"
_CELLS = ("cells.parquet", "cells.csv.gz", "cells.csv")
_COLUMNS = ("cell_id", "x_centroid", "y_centroid")
_MAX_DISTORTION = 0.05
_LEAST_INSIDE = 0.5
_ALIGNMENT = (
    "the H&E picture's alignment (..._he_imagealignment.csv, which Xenium Explorer exports: 3 x 3 numbers "
    "that bring px of the H&E onto px of the Xenium picture)"
)


def _find(path: Path) -> Path | None:
    for folder in (path, path / "outs"):
        if folder.is_dir() and ((folder / f"{_MATRIX}.h5").is_file() or (folder / _MATRIX).is_dir()):
            return folder
    return None


def _picture(folder: Path, options: Options) -> Path:
    pictures = [file for file in nearby(folder, up=1) if inside(file.parent, *_alignment_names(file))]
    picture = find_picture(
        folder,
        section_name(folder),
        options,
        among=pictures,
        fits=lambda _: "",
        wanted=f"the H&E picture of the same section, with {_ALIGNMENT} beside it,",
    )
    _alignment(folder, picture)
    return picture


def _alignment_names(picture: Path) -> tuple[str, ...]:
    stem = picture.name.split(".")[0]
    return f"{stem}alignment.csv", f"{stem}_imagealignment.csv", f"{stem}_alignment.csv"


def _alignment(folder: Path, picture: Path) -> Path:
    names = _alignment_names(picture)
    own = [file for place in (picture.parent, folder) for file in inside(place, *names)]
    found = own or [file for place in (picture.parent, folder) for file in inside(place, "*alignment*.csv")]
    found = list(dict.fromkeys(found))
    if len(found) > 1 and not own:
        listed = ", ".join(file.name for file in found[:3])
        raise CohortError(
            f"several files could be its alignment ({listed})", path=picture, remedy=f"Call it {names[1]}."
        )
    if not found:
        raise CohortError(
            "nothing says where the cells lie in this picture",
            path=picture,
            remedy=f"Put {_ALIGNMENT} beside it as {names[1]}.",
        )
    return found[0]


def _read(folder: Path, options: Options) -> CountsFile:
    picture = options.image or _picture(folder, options)
    path = find_matrix(folder, _MATRIX)
    if path is None:  # deleted since it was found
        raise CohortError("the count matrix is missing", path=folder, remedy="Copy the folder again.")
    xenium_mpp, bin_um = _own_mpp(folder), options.bin_um or DEFAULT_BIN_UM
    matrix, cells = read_matrix(path), _cells(folder)
    unknown = [barcode for barcode in matrix.barcodes if barcode not in cells]
    if unknown:
        raise CohortError(
            f"{len(unknown):,} of its {len(matrix.barcodes):,} cells have no position, such as {unknown[0]}: "
            "counts and cells are of different sections",
            path=path,
            remedy="Put the cells.parquet of the same run beside it.",
        )
    um = np.array([cells[barcode] for barcode in matrix.barcodes])
    xy, mpp = _onto_picture(um, xenium_mpp, _alignment(folder, picture))
    size = size_of(picture)
    kept = (xy >= 0).all(axis=1) & (xy[:, 0] < size.width) & (xy[:, 1] < size.height)
    findings = _outside(kept, size, picture)
    side = bin_um / mpp
    squares = np.floor(xy[kept][:, ::-1] / side).astype(np.int64)
    whole = ((squares + 1) * side <= (size.height, size.width)).all(axis=1)
    genes = gene_counts(matrix)
    counts, array = sum_rows(genes.counts[np.flatnonzero(kept)[whole]], squares[whole])
    centres = (array[:, ::-1] + 0.5) * side
    text = f"{int(whole.sum()):,} cells were summed into {len(array):,} squares of {bin_um:g} µm."
    return CountsFile(
        counts=counts,
        genes=genes.genes,
        spot_ids=tuple(f"square_{bin_um:g}um_{row}_{col}" for row, col in array.tolist()),
        xy=centres,
        gene_ids=genes.gene_ids,
        facts={"um_per_px": mpp, "spot_diameter_px": side},
        array=array,
        findings=(*genes.findings, *findings, Finding("ok", text)),
    )


def _own_mpp(folder: Path) -> float:
    """Return the µm per px of the instrument's pictures, to which alignments refer."""
    path = folder / "experiment.xenium"
    if not path.is_file():
        return XENIUM_MPP
    size = read_json(path).get("pixel_size", XENIUM_MPP)
    if not isinstance(size, int | float) or not 0.01 < size < 10:
        raise CohortError(f"its pixel_size is {size!r}", path=path, remedy="Copy the file again.")
    return float(size)


def _cells(folder: Path) -> dict[str, tuple[float, float]]:
    path = next((folder / name for name in _CELLS if (folder / name).is_file()), None)
    if path is None:
        raise CohortError(
            "cells.parquet (or cells.csv.gz) is missing: it says where the cells lie",
            path=folder,
            remedy="Copy it from Xenium's output.",
        )
    table = read_table(path, usecols=lambda name: name in _COLUMNS)
    missing = [name for name in _COLUMNS if name not in table]
    if missing:
        raise CohortError(
            f"it has no column {', '.join(missing)}", path=path, remedy="Copy it from Xenium's output."
        )
    ids = [cell.decode() if isinstance(cell, bytes) else str(cell) for cell in table["cell_id"]]
    try:
        xy = table[["x_centroid", "y_centroid"]].to_numpy(np.float64)
    except (TypeError, ValueError):
        xy = np.full((len(table), 2), np.nan)
    if not np.isfinite(xy).all() or len(set(ids)) != len(ids):
        what = "a cell occurs twice" if np.isfinite(xy).all() else "some positions are no numbers"
        raise CohortError(what, path=path, remedy="Copy it from Xenium's output.")
    return dict(zip(ids, map(tuple, xy.tolist()), strict=True))


def _onto_picture(um: FloatArray, xenium_mpp: float, alignment: Path) -> tuple[FloatArray, float]:
    """Convert positions in µm to px of the H&E picture by its alignment; also return the µm per px."""
    table = read_table(alignment, header=None)
    remedy = f"Export {_ALIGNMENT} again."
    try:
        matrix = table.to_numpy(np.float64)
    except (TypeError, ValueError):
        matrix = np.zeros((0, 0))
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all() or not np.allclose(matrix[2], [0, 0, 1]):
        raise CohortError("this is no alignment of 3 x 3 numbers", path=alignment, remedy=remedy)
    along = np.linalg.svd(matrix[:2, :2], compute_uv=False)
    if along[1] <= 0 or along[0] / along[1] - 1 > _MAX_DISTORTION:
        raise CohortError("it stretches or flattens the picture", path=alignment, remedy=remedy)
    pixels = np.column_stack([um / xenium_mpp, np.ones(len(um))])
    xy = (pixels @ np.linalg.inv(matrix).T)[:, :2]
    return xy, xenium_mpp * float(np.sqrt(along[0] * along[1]))


def _outside(kept: np.ndarray, size: Size, picture: Path) -> list[Finding]:
    if kept.mean() < _LEAST_INSIDE:
        raise CohortError(
            f"only {kept.mean():.0%} of the cells lie in this picture ({size})",
            path=picture,
            remedy="Give the H&E picture at full resolution, of the same section, with its own alignment.",
        )
    if kept.all():
        return []
    return [Finding("warning", f"{int((~kept).sum()):,} cells beyond the picture were left out.")]


def _hdf5(folder: Path) -> list[Path]:
    path = find_matrix(folder, _MATRIX)
    return [path] if path is not None and path.is_file() else []


READER = Reader(
    kind=KIND, find=_find, name=section_name, picture=_picture, read=_read, hdf5=_hdf5, binned=True
)
