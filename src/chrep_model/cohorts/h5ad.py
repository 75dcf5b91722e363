"""Read counts, names and spot positions from an h5ad file, without trusting the file.

Graphs and results of analysis tools in the file are never read. The datasets are located by `tables.pieces`,
which refuses files with links to other files or with datasets larger than the file can hold.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from chrep_model.cohorts.findings import Finding
from chrep_model.cohorts.tables import captures, counts, names, positions
from chrep_model.cohorts.tables.names import plain
from chrep_model.cohorts.tables.pieces import locate, other_layers
from chrep_model.errors import CohortError, damage_as_error

if TYPE_CHECKING:
    from scipy import sparse

_COPY_AGAIN = "Copy or download the file again, or write it again with anndata."


@dataclass(frozen=True, eq=False)
class CountsFile:
    """The checked contents of one h5ad.

    Attributes
    ----------
    counts : scipy.sparse.csr_matrix
        Raw counts (n, G), float32, whole numbers >= 0, no duplicated entries.
    genes, spot_ids : tuple of str
        Unique names of columns and rows.
    xy : ndarray
        Spot centres (n, 2), float64, (x, y) in level-0 px.
    gene_ids : tuple of str or None
        Second names of the genes: usually Ensembl ids, or symbols if the names are ids; None if `var` has
        none.
    facts : dict
        The entries section, patient, individual, um_per_px and spot_diameter_px of ``uns``, and Space
        Ranger's scale factors tissue_hires_scalef, tissue_lowres_scalef, spot_diameter_fullres,
        microns_per_pixel and bin_size_um, as far as the file has them.
    array : ndarray or None
        (n, 2) int64, (row, col) of each spot on its array; None if unknown.
    findings : tuple of Finding
        Problems that were noticed or corrected while reading.
    """

    counts: sparse.csr_matrix
    genes: tuple[str, ...]
    spot_ids: tuple[str, ...]
    xy: np.ndarray
    gene_ids: tuple[str, ...] | None
    facts: dict[str, Any]
    array: np.ndarray | None = None
    findings: tuple[Finding, ...] = ()


def read_counts_file(path: str | os.PathLike[str], *, library: str | None = None) -> CountsFile:
    """Read and check one h5ad file.

    Parameters
    ----------
    path : path-like
        An AnnData file: raw counts in ``X``, or in a layer or ``raw`` if ``X`` holds something else; gene
        names in ``var_names``; ``obsm["spatial"]`` = (x, y) in level-0 px.
    library : str, optional
        Capture to read from a file that holds several, as ``obs`` names it.

    Raises
    ------
    CohortError
        The file is missing, damaged, or does not hold the counts of one capture's spots.
    """
    import h5py

    path = Path(path)
    if not path.is_file():
        raise CohortError("there is no such h5ad file", path=path, remedy="Check the name and the folder.")
    what = "this file is truncated, damaged or no h5ad"
    with damage_as_error(CohortError, what, path, _COPY_AGAIN), h5py.File(path, "r") as file:
        return _read(file, path, library)


def _read(file: Any, path: Path, library: str | None) -> CountsFile:
    # Takes about a second to import, and is only needed to read a file.
    from anndata.io import read_elem

    if "chrep" in file.get("uns", ()):
        raise CohortError(
            "this is a prediction, not what was measured", path=path, remedy="Give the h5ad of raw counts."
        )
    pieces = locate(file, path)
    values = {key: read_elem(piece) for key, piece in pieces.items() if _read_at_once(key)}
    spot_ids = names.unique_spots(values["obs_names"], path)
    if not spot_ids or not len(values["var_names"]):
        what = "genes" if spot_ids else "spots"
        raise CohortError(
            f"the file has no {what}", path=path, remedy="Check how it was filtered and written."
        )
    obs = _columns(values, "obs")
    xy = _positions(values, len(spot_ids), path)
    array = _array(obs, len(spot_ids))
    libraries = list(dict.fromkeys(key.split("/")[1] for key in values if key.startswith("scale/")))
    used, findings = _used_rows(obs, spot_ids, xy, array, libraries, library, path)
    positions.check_finite(xy[used], "obsm['spatial']", path)
    where, table, measured, noted = _choose_counts(
        pieces, values, used, path, other_layers=other_layers(file, pieces)
    )
    at = "raw/var" if where == "raw/X" else "var"
    genes = tuple(name.strip() for name in names.texts(values[f"{at}_names"]))
    ids = names.other_names(list(_columns(values, at).items()), genes)
    if not measured.all():
        columns = np.flatnonzero(measured)
        noted += (_unmeasured([genes[i] for i in np.flatnonzero(~measured)]),)
        genes = tuple(genes[i] for i in columns)
        ids = None if ids is None else tuple(ids[i] for i in columns)
    genes, table, ids, summed = names.summed_genes(genes, table, ids, path)
    return CountsFile(
        counts=table,
        genes=genes,
        spot_ids=tuple(name for name, kept in zip(spot_ids, used, strict=True) if kept),
        xy=xy[used],
        gene_ids=ids,
        facts=_facts(values, obs, used, libraries, library),
        array=None if array is None else array[used],
        findings=(*findings, *noted, *summed),
    )


def _read_at_once(key: str) -> bool:
    """Return whether a dataset is small enough to be read with all others; matrices are read one by one."""
    return key not in ("X", "raw/X") and not key.startswith("layers/")


def _columns(values: dict[str, Any], of: str) -> dict[str, Any]:
    """Return the columns of ``obs``, ``var`` or ``raw/var``; AnnData 0.7 stored categories separately."""
    found = {}
    for key, column in values.items():
        if not key.startswith(f"{of}/") or key.endswith("/__categories"):
            continue
        categories = values.get(f"{key}/__categories")
        if categories is not None:
            kinds = np.append(np.asarray(categories, dtype=object), np.array([""], dtype=object))
            column = kinds[np.asarray(column)]  # the code of a missing value is -1: the last
        found[key.removeprefix(f"{of}/")] = column
    return found


def _positions(values: dict[str, Any], n_spots: int, path: Path) -> np.ndarray:
    if "xy" in values:
        return positions.from_array(values["xy"], n_spots, "obsm['spatial']", path)
    table = {key.removeprefix("xy/"): column for key, column in values.items() if key.startswith("xy/")}
    return positions.from_array(positions.by_name(table, "obsm['spatial']", path), n_spots, "it", path)


def _array(obs: dict[str, Any], n_spots: int) -> np.ndarray | None:
    named = {plain(name): column for name, column in obs.items()}
    if "arrayrow" not in named or "arraycol" not in named:
        return None
    return positions.array_indices(named["arrayrow"], named["arraycol"], n_spots)


def _used_rows(
    obs: dict[str, Any],
    spot_ids: tuple[str, ...],
    xy: np.ndarray,
    array: np.ndarray | None,
    libraries: list[str],
    library: str | None,
    path: Path,
) -> tuple[np.ndarray, tuple[Finding, ...]]:
    """Select the rows of one capture that are under tissue."""
    places = ("intissue", "arrayrow", "arraycol")
    may_name = {name: column for name, column in obs.items() if plain(name) not in places}
    found = captures.groupings(may_name, spot_ids)
    used, findings = captures.choose_rows(found, library, xy, array, libraries, path)
    for name, column in obs.items():
        if plain(name) == "intissue":
            kept, said = captures.under_tissue(np.asarray(column, dtype=object)[used], path)
            findings += said
            if kept is not None:
                used = used.copy()
                used[used] = kept
    return used, findings


def _unmeasured(genes: list[str]) -> Finding:
    shown = ", ".join(genes[:5]) + (", ..." if len(genes) > 5 else "")
    text = f"{len(genes):,} genes are NaN for every spot ({shown}): they are taken as not measured."
    return Finding("ok", text)


def _choose_counts(
    pieces: dict[str, Any], values: dict[str, Any], used: np.ndarray, path: Path, *, other_layers: list[str]
) -> tuple[str, sparse.csr_matrix, np.ndarray, tuple[Finding, ...]]:
    """Read the raw counts from X, or, if X cannot be counts, from the first layer that can, or from ``raw``.

    Returns
    -------
    where, counts, measured, findings
        The name of their place in the file, the counts (used spots, measured genes), which genes were
        measured (G,) bool (those that are not NaN everywhere), and findings.

    Raises
    ------
    CohortError
        None of these matrices can be raw counts.
    """
    wrong: dict[str, str] = {}
    unsure: tuple[str, sparse.csr_matrix, np.ndarray] | None = None
    for key in (key for key in pieces if not _read_at_once(key)):
        genes = values["raw/var_names" if key == "raw/X" else "var_names"]
        stored = _stored_counts(pieces[key], key, (len(used), len(genes)), used, path)
        measured = counts.measured(stored)
        if not measured.all() and measured.any():
            stored = stored[:, measured]
        if (fault := counts.impossible(stored)) is not None:
            wrong[key] = fault
            continue
        table = counts.as_counts(stored)
        if (fault := counts.multiplied(table)) is not None:
            wrong[key] = fault
        elif (fault := counts.doubtful(table)) is not None:
            wrong[key] = fault
            unsure = unsure or (key, table, measured)
        elif key == "X":
            return key, table, measured, ()
        else:
            why = next((f"{_called(first)} {fault}" for first, fault in wrong.items()), "there is no X")
            text = f"{why}; the counts are taken from {_called(key)}."
            return key, table, measured, (Finding("ok", text),)
    if unsure is not None:
        text = f"{_called(unsure[0])} {wrong[unsure[0]]}."
        remedy = "Make sure that these are raw counts; write them into X if they are elsewhere."
        return *unsure, (Finding("warning", text, remedy),)
    first = next(iter(wrong), None)
    if first is None:
        raise CohortError("there is no X", path=path, remedy=counts.REMEDY)
    elsewhere = ", ".join(_called(key) for key in wrong if key != first)
    remedy = counts.REMEDY + (f" Nor are they in {elsewhere}." if elsewhere else "")
    if other_layers:
        listed = ", ".join(f"layers['{name}']" for name in other_layers[:4])
        remedy += f" {listed} were not looked at: copy the one with raw counts into X, if there is one."
    raise CohortError(f"{_called(first)} {wrong[first]}: these are not counts", path=path, remedy=remedy)


def _stored_counts(piece: Any, key: str, shape: tuple[int, int], used: np.ndarray, path: Path) -> Any:
    """Read a stored matrix (n, G), and return the rows in use; CohortError for another shape."""
    from anndata.io import read_elem
    from scipy import sparse

    stored = read_elem(piece)
    if sparse.issparse(stored):
        # The readers do not check index arrays, and a wrong one crashes compiled code later.
        stored.check_format(full_check=True)
    else:
        stored = np.asarray(stored)
    counts.check_shape(stored, shape, _called(key), path)
    return stored if used.all() else stored[np.flatnonzero(used)]


def _called(key: str) -> str:
    """Return AnnData's expression for a stored matrix, such as ``layers['counts']`` or ``raw.X``."""
    kind, _, name = key.partition("/")
    return f"layers['{name}']" if kind == "layers" else key.replace("/", ".")


def _facts(
    values: dict[str, Any],
    obs: dict[str, Any],
    used: np.ndarray,
    libraries: list[str],
    library: str | None,
) -> dict[str, Any]:
    """Return the facts in ``uns`` and the scale factors of the capture."""
    facts = {key[4:]: _scalar(value) for key, value in values.items() if key.startswith("uns/")}
    if library not in libraries:
        named = {text for column in obs.values() for text in set(names.texts(column)) if text in libraries}
        present = [
            name for name in named
            if any(name in np.array(names.texts(column), dtype=object)[used] for column in obs.values())
        ]  # fmt: skip
        choices = libraries if len(libraries) == 1 else present
        library = choices[0] if len(choices) == 1 else None
    if library is not None:
        prefix = f"scale/{library}/"
        facts |= {
            key.removeprefix(prefix): _scalar(value)
            for key, value in values.items()
            if key.startswith(prefix)
        }
    return facts


def _scalar(value: Any) -> Any:
    """Convert a value that anndata stored as bytes or as an array of length one to a plain value."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if isinstance(value, np.generic) else value
