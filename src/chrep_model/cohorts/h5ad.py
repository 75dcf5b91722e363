"""What a section needs from an h5ad file, read without trusting the file.

Only the counts, the names, the spot positions and a handful of facts are read, never the layers or graphs
that analysis tools leave beside them. Before any value is read the pieces are looked over: a file must not
lead to other files (HDF5 links, external and virtual datasets) and must not declare far more data than it
can hold.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from chrep_model.cohorts.findings import Finding
from chrep_model.errors import ChrepError, CohortError

if TYPE_CHECKING:
    from scipy import sparse

# Counts compress well (mostly zeros), but not beyond this; more is a damaged or a hostile file.
MAX_EXPANSION = 200
ALWAYS_ALLOWED_BYTES = 1 << 30

# Columns of var that name the genes once more: by an id, or by a symbol where the names are ids.
_ID_COLUMNS = (
    *("gene_ids", "ensembl_id", "ensembl_gene_id", "feature_id", "gene_id"),
    *("gene_symbols", "feature_name", "gene_name"),
)
_FACTS = ("section", "patient", "individual", "um_per_px", "spot_diameter_px")
_COPY_AGAIN = "Copy or download the file again, or write it again with anndata."
_WRITE_AGAIN = "Write the file again with a current anndata (adata.write_h5ad)."


@dataclass(frozen=True, eq=False)
class CountsFile:
    """The contents of one h5ad, checked.

    Attributes
    ----------
    counts : scipy.sparse.csr_matrix
        Raw counts (n, G), float32, whole numbers >= 0, no duplicated entries.
    genes, spot_ids : tuple of str
        Unique names of columns and rows.
    xy : ndarray
        Spot centres (n, 2), float64, (x, y) in level-0 px.
    gene_ids : tuple of str or None
        What else the genes are called, an Ensembl id as a rule; None where `var` does not say.
    facts : dict
        Those of ``uns``' section, patient, individual, um_per_px, spot_diameter_px that are there.
    array : ndarray or None
        (n, 2) int64, (row, col) of each spot on its array; None where the source does not say.
    findings : tuple of Finding
        What was noticed, left out or put right while reading.
    """

    counts: sparse.csr_matrix
    genes: tuple[str, ...]
    spot_ids: tuple[str, ...]
    xy: np.ndarray
    gene_ids: tuple[str, ...] | None
    facts: dict[str, Any]
    array: np.ndarray | None = None
    findings: tuple[Finding, ...] = ()


def read_counts_file(path: str | os.PathLike[str]) -> CountsFile:
    """Read and check one h5ad file.

    Parameters
    ----------
    path : path-like
        An AnnData file: raw counts in ``X`` (dense or sparse, any integer or float type), gene names in
        ``var_names``, ``obsm["spatial"]`` = (x, y) in level-0 px.

    Raises
    ------
    CohortError
        The file is missing, damaged, or says something that cannot be counts of spots.
    """
    import h5py

    path = Path(path)
    if not path.is_file():
        raise CohortError("there is no such h5ad file", path=path, remedy="Check the name and the folder.")
    try:
        with h5py.File(path, "r") as file:
            return _read(file, path)
    except ChrepError:
        raise
    # A damaged file can fail in any layer below (h5py, anndata, numpy) and with any exception.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise CohortError(
            f"this file is truncated, damaged or no h5ad ({reason})", path=path, remedy=_COPY_AGAIN
        ) from error


def locate(file: Any, path: Path) -> dict[str, Any]:
    """Find the stored pieces that are read: counts, spots, genes, xy, and by their names gene_ids and facts.

    Raises
    ------
    CohortError
        One is missing, leads out of the file, or declares more than the file can hold.
    """
    x, obs, var = (_needed(file, name, path) for name in ("X", "obs", "var"))
    obsm = _member(file, "obsm", path)
    spatial = None if obsm is None else _member(obsm, "spatial", path)
    if spatial is None:
        raise CohortError(
            "obsm['spatial'] is missing: nothing says where the spots are",
            path=path,
            remedy="Store the (x, y) of every spot centre, in px of the full-resolution image, there.",
        )
    pieces = {"counts": x, "spots": _index(obs, path), "genes": _index(var, path), "xy": spatial}
    ids = next((stored for key in _ID_COLUMNS if (stored := _member(var, key, path)) is not None), None)
    if ids is not None:
        pieces["gene_ids"] = ids
    uns = _member(file, "uns", path)
    facts = {} if uns is None else {key: _member(uns, key, path) for key in _FACTS}
    pieces |= {key: stored for key, stored in facts.items() if stored is not None}
    _check_budget(list(pieces.values()), path)
    return pieces


def _read(file: Any, path: Path) -> CountsFile:
    # Heavy (about a second), and only needed where a file is really read.
    from anndata.io import read_elem

    pieces = locate(file, path)
    spot_ids = _names(read_elem(pieces["spots"]), "spot", "obs_names", path)
    genes = _names(read_elem(pieces["genes"]), "gene", "var_names", path)
    if not spot_ids or not genes:
        what = "spots" if not spot_ids else "genes"
        raise CohortError(
            f"the file has no {what}", path=path, remedy="Check how it was filtered and written."
        )
    return CountsFile(
        counts=_counts(read_elem(pieces["counts"]), (len(spot_ids), len(genes)), path),
        genes=genes,
        spot_ids=spot_ids,
        xy=_positions(read_elem(pieces["xy"]), len(spot_ids), path),
        gene_ids=_ids(read_elem(pieces["gene_ids"]), genes) if "gene_ids" in pieces else None,
        facts={key: _scalar(read_elem(pieces[key])) for key in _FACTS if key in pieces},
    )


def _member(group: Any, key: str, path: Path) -> Any:
    """Give a member of an HDF5 group, None where there is none; links that lead elsewhere are refused."""
    import h5py

    link = group.get(key, getlink=True)
    if link is None:
        return None
    if not isinstance(link, h5py.HardLink):
        raise CohortError(
            f"'{group.name.rstrip('/')}/{key}' is a link to another place, which is not followed",
            path=path,
            remedy="Write the file again with its data inside.",
        )
    return group[key]


def _needed(file: Any, name: str, path: Path) -> Any:
    node = _member(file, name, path)
    if node is not None:
        return node
    kind = {"X": "raw counts", "obs": "spots", "var": "genes"}[name]
    layers = _member(file, "layers", path) if name == "X" else None
    remedy = _WRITE_AGAIN
    if layers is not None and "counts" in layers:
        remedy = "Put layers['counts'] into X and write the file again."
    raise CohortError(f"'{name}' is missing: there are no {kind} in this file", path=path, remedy=remedy)


def _index(frame: Any, path: Path) -> Any:
    """Give the dataset (or group) with the row names of a stored data frame."""
    key = frame.attrs.get("_index", "_index")
    index = _member(frame, key, path) if hasattr(frame, "keys") else None
    if index is None:
        raise CohortError(
            "the file's layout is not that of AnnData 0.7 or later", path=path, remedy=_WRITE_AGAIN
        )
    return index


def _datasets(node: Any, seen: set[int], path: Path) -> Iterator[Any]:
    import h5py

    address = h5py.h5o.get_info(node.id).addr
    if address in seen:  # hard links can go round in circles
        return
    seen.add(address)
    if isinstance(node, h5py.Dataset):
        yield node
        return
    for key in node:
        yield from _datasets(_member(node, key, path), seen, path)


def _check_budget(pieces: list[Any], path: Path) -> None:
    """Refuse values kept in other files, and more of them than this file can reasonably hold."""
    seen: set[int] = set()
    declared = 0
    for dataset in (d for piece in pieces for d in _datasets(piece, seen, path)):
        if dataset.is_virtual or dataset.external:
            raise CohortError(
                f"'{dataset.name}' keeps its values in other files, which are not opened",
                path=path,
                remedy="Write the file again with its data inside.",
            )
        declared += int(dataset.size or 0) * dataset.dtype.itemsize
    size = path.stat().st_size
    if declared > max(ALWAYS_ALLOWED_BYTES, MAX_EXPANSION * size):
        raise CohortError(
            f"it declares {declared / 1e9:.1f} GB of values in a file of {size / 1e9:.3f} GB",
            path=path,
            remedy="It is damaged, or holds dense counts: write it again with a sparse X.",
        )


def _names(values: Any, kind: str, where: str, path: Path) -> tuple[str, ...]:
    names = tuple(v.decode() if isinstance(v, bytes) else str(v) for v in np.asarray(values).ravel())
    if len(set(names)) != len(names):
        counted: dict[str, int] = {}
        for name in names:
            counted[name] = counted.get(name, 0) + 1
        twice = [name for name, count in counted.items() if count > 1]
        shown = ", ".join(twice[:5]) + (", ..." if len(twice) > 5 else "")
        how = "Sum the columns of the same gene" if kind == "gene" else "Give every spot its own name"
        raise CohortError(
            f"{len(twice)} {kind} names occur more than once ({shown})",
            path=path,
            remedy=f"{how}, or call {where}_make_unique(), and write the file again.",
        )
    return names


def _ids(values: Any, genes: tuple[str, ...]) -> tuple[str, ...] | None:
    """Take a column of other names; what cannot be one is passed over, as nothing depends on it."""
    column = np.asarray(values, dtype=object).ravel()
    if len(column) != len(genes) or not all(isinstance(value, (str, bytes)) for value in column):
        return None
    names = tuple(value.decode() if isinstance(value, bytes) else str(value) for value in column)
    return None if names == genes else names


def _counts(values: Any, shape: tuple[int, int], path: Path) -> sparse.csr_matrix:
    from scipy import sparse

    if sparse.issparse(values):
        # The readers believe index arrays blindly; a wrong one crashes compiled code later on.
        values.check_format(full_check=True)
    else:
        values = np.asarray(values)
    if values.shape != shape:
        raise CohortError(
            f"X has the shape {values.shape}, but there are {shape[0]} spots and {shape[1]} genes",
            path=path,
            remedy=_WRITE_AGAIN,
        )
    _check_whole(values.data if sparse.issparse(values) else values, path)
    counts = sparse.csr_matrix(values, dtype=np.float32)
    counts.sum_duplicates()
    counts.eliminate_zeros()
    return counts


def _check_whole(data: np.ndarray, path: Path) -> None:
    if data.dtype.kind not in "iubf":
        raise CohortError(f"X holds {data.dtype}, not numbers", path=path, remedy="Put raw counts into X.")
    if data.size == 0 or data.dtype.kind in "ub":
        return
    if data.dtype.kind == "f" and not np.isfinite(data).all():
        wrong = int((~np.isfinite(data)).sum())
        fault = f"X has {wrong} values that are NaN or infinite"
    elif data.min() < 0:
        fault = f"X has {int((data < 0).sum())} negative values, down to {data.min():g}"
    elif data.dtype.kind == "f" and (data != np.floor(data)).any():
        fault = f"X has values that are not whole numbers, such as {data[data != np.floor(data)][0]:g}"
    else:
        return
    raise CohortError(
        f"{fault}: these are not counts",
        path=path,
        remedy="Put raw counts into X (not normalised, not log-transformed, not scaled).",
    )


def _positions(values: Any, n_spots: int, path: Path) -> np.ndarray:
    remedy = "It must hold one (x, y) per spot, in px of the full-resolution image."
    try:
        xy = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise CohortError("obsm['spatial'] does not hold numbers", path=path, remedy=remedy) from None
    if xy.shape != (n_spots, 2):
        raise CohortError(
            f"obsm['spatial'] has the shape {xy.shape}, not ({n_spots}, 2)", path=path, remedy=remedy
        )
    wrong = int((~np.isfinite(xy)).any(axis=1).sum())
    if wrong:
        raise CohortError(
            f"obsm['spatial'] is NaN or infinite for {wrong} of {n_spots} spots", path=path, remedy=remedy
        )
    return xy


def _scalar(value: Any) -> Any:
    """Unwrap what anndata stored as an array of one, or as bytes."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if isinstance(value, np.generic) else value
