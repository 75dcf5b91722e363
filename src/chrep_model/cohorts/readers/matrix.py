"""Read the count matrices of 10x Genomics' programs: one HDF5 file, or a folder of three (MEX)."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from chrep_model.cohorts.hdf5 import check_budget, dataset
from chrep_model.cohorts.readers.untrusted_files import inside, only_one, read_bytes, read_table
from chrep_model.cohorts.tables.names import texts
from chrep_model.errors import CohortError, damage_as_error

if TYPE_CHECKING:
    from scipy import sparse

_NEEDED = ("barcodes", "data", "indices", "indptr", "shape", "features/name")
_OPTIONAL = ("features/id", "features/feature_type")
_COPY_AGAIN = "Copy or download the file again."


@dataclass(frozen=True, eq=False)
class Matrix:
    """A count matrix as stored in a file, before its features are checked.

    Attributes
    ----------
    counts : scipy.sparse.csr_matrix
        (barcodes, features), in the file's data type.
    barcodes, names : tuple of str
        Names of the rows, and of the features.
    ids, types : tuple of str or None
        Ids and kinds of the features ("Gene Expression"), if the file has them.
    path : Path
    """

    counts: sparse.csr_matrix
    barcodes: tuple[str, ...]
    names: tuple[str, ...]
    ids: tuple[str, ...] | None
    types: tuple[str, ...] | None
    path: Path


def find_matrix(folder: Path, stem: str) -> Path | None:
    """Return the matrix of this name in a folder: the HDF5 file, else the MEX folder, else None.

    Parameters
    ----------
    folder : Path
    stem : str
        Name such as ``filtered_feature_bc_matrix``; that of the HDF5 file may have a prefix.
    """
    file = folder / f"{stem}.h5"
    if file.is_file():
        return file
    if (folder / stem).is_dir():
        return folder / stem
    return only_one(inside(folder, f"*{stem}.h5"), "count matrices", folder)


def read_matrix(path: Path) -> Matrix:
    """Read a count matrix from an HDF5 file or a MEX folder.

    Raises
    ------
    CohortError
        A file is missing, damaged, or declares more than it can hold.
    """
    with damage_as_error(CohortError, "this count matrix is truncated or damaged", path, _COPY_AGAIN):
        matrix = _read_mex(path) if path.is_dir() else _read_h5(path)
        matrix.counts.check_format(full_check=True)
    shape = (len(matrix.barcodes), len(matrix.names))
    if matrix.counts.shape != shape or 0 in shape:
        raise CohortError(
            f"the matrix has the shape {matrix.counts.shape[::-1]}, but there are {shape[1]} features and "
            f"{shape[0]} barcodes",
            path=path,
            remedy="Its files may be of different sections: copy them again.",
        )
    twice = [barcode for barcode, times in Counter(matrix.barcodes).items() if times > 1]
    if twice:
        raise CohortError(
            f"{len(twice)} barcodes occur more than once ({', '.join(twice[:3])})",
            path=path,
            remedy=_COPY_AGAIN,
        )
    return matrix


def locate_h5(file: Any, path: Path) -> dict[str, Any]:
    """Return the datasets of an open HDF5 matrix by their names.

    Raises
    ------
    CohortError
        A dataset is missing, is a link to another file, or declares more than the file can hold.
    """
    known = {key: dataset(file, f"matrix/{key}", path) for key in (*_NEEDED, *_OPTIONAL)}
    pieces = {key: found for key, found in known.items() if found is not None}
    missing = [key for key in _NEEDED if key not in pieces]
    if missing:
        raise CohortError(
            f"this is no count matrix of Space Ranger: 'matrix/{missing[0]}' is missing",
            path=path,
            remedy="Give the folder with filtered_feature_bc_matrix.h5 as Space Ranger 1 or later writes it.",
        )
    check_budget(pieces.values(), path)
    return pieces


def _read_h5(path: Path) -> Matrix:
    import h5py
    from scipy import sparse

    with h5py.File(path, "r") as file:
        values = {key: piece[()] for key, piece in locate_h5(file, path).items()}
    n_features, n_barcodes = (int(side) for side in values["shape"])
    indices, indptr = (_as_integers(values[key], key) for key in ("indices", "indptr"))
    return Matrix(
        counts=sparse.csr_matrix((values["data"], indices, indptr), shape=(n_barcodes, n_features)),
        barcodes=texts(values["barcodes"]),
        names=texts(values["features/name"]),
        ids=texts(values["features/id"]) if "features/id" in values else None,
        types=texts(values["features/feature_type"]) if "features/feature_type" in values else None,
        path=path,
    )


def _as_integers(values: np.ndarray, key: str) -> np.ndarray:
    whole = values.astype(np.int64)
    if (whole != values).any():
        raise ValueError(f"{key} holds numbers that are not whole")
    return whole


def _read_mex(folder: Path) -> Matrix:
    from scipy import io as scipy_io
    from scipy import sparse

    def part(*names: str) -> Path:
        found = [file for name in names for file in (folder / name, folder / f"{name}.gz") if file.is_file()]
        if not found:
            raise CohortError(f"{names[0]} is missing", path=folder, remedy="Copy the whole folder again.")
        return found[0]

    matrix_file = part("matrix.mtx")
    text = read_bytes(matrix_file)
    _check_header(text, matrix_file)
    barcodes = read_table(part("barcodes.tsv"), sep="\t", header=None, dtype=str, keep_default_na=False)
    features = read_table(
        part("features.tsv", "genes.tsv"), sep="\t", header=None, dtype=str, keep_default_na=False
    )
    counts = sparse.csr_matrix(sparse.csc_matrix(scipy_io.mmread(io.BytesIO(text))).T)
    columns = [tuple(features[column]) for column in features]
    return Matrix(
        counts=counts,
        barcodes=tuple(barcodes[0]),
        names=columns[1] if len(columns) > 1 else columns[0],
        ids=columns[0] if len(columns) > 1 else None,
        types=columns[2] if len(columns) > 2 else None,
        path=folder,
    )


def _check_header(text: bytes, path: Path) -> None:
    """Check that a Matrix Market file holds counts, and as many entries as it declares."""
    lines = iter(io.BytesIO(text))
    kind = next(lines, b"").split()
    sizes = next((line for line in lines if line.strip() and not line.startswith(b"%")), b"").split()
    coordinates = kind[:3] == [b"%%MatrixMarket", b"matrix", b"coordinate"] and len(kind) == 5
    if not coordinates or kind[3] not in (b"integer", b"real") or kind[4] != b"general":
        raise CohortError("this is no Matrix Market file of counts", path=path, remedy=_COPY_AGAIN)
    if len(sizes) != 3 or not all(size.isdigit() for size in sizes):
        raise CohortError("the sizes in its header are missing", path=path, remedy=_COPY_AGAIN)
    entries = int(sizes[2])
    # An entry takes at least six bytes: "1 1 1" and the end of its line.
    if entries * 6 > len(text) + 1:
        raise CohortError(
            f"it declares {entries:,} entries and holds fewer: it is truncated",
            path=path,
            remedy=_COPY_AGAIN,
        )
