"""Locate the datasets of an h5ad file that a section needs, without trusting the file.

They are checked with `cohorts.hdf5` before any value is read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from chrep_model.cohorts.hdf5 import check_budget, member
from chrep_model.cohorts.tables import captures, counts, names, positions
from chrep_model.cohorts.tables.names import plain
from chrep_model.errors import CohortError

_FACTS = ("section", "patient", "individual", "um_per_px", "spot_diameter_px")
#: Entries of ``uns["spatial"][LIBRARY]["scalefactors"]``.
_SCALE_FACTORS = (
    *("tissue_hires_scalef", "tissue_lowres_scalef", "spot_diameter_fullres"),
    *("microns_per_pixel", "bin_size_um"),
)
_OBS_COLUMNS = ("intissue", "arrayrow", "arraycol")
_GENE_COLUMNS = (*names.ID_COLUMNS, *names.SYMBOL_COLUMNS)
_MOST_LIBRARIES = 1000
_WRITE_AGAIN = "Write the file again with a current anndata (adata.write_h5ad)."


def locate(file: Any, path: Path) -> dict[str, Any]:
    """Return the datasets of an h5ad that a section needs, by name.

    Counts are under ``X``, ``layers/NAME`` and ``raw/X``, names under ``obs_names``, ``var_names`` and
    ``raw/var_names``, positions under ``xy`` (an array) or ``xy/COLUMN`` (a table), columns under
    ``obs/NAME`` and ``var/NAME``, facts under ``uns/NAME`` and ``scale/LIBRARY/NAME``.

    Raises
    ------
    CohortError
        A dataset is missing, is a link to another file, or declares more than the file can hold.
    """
    obs, var = (_needed(file, name, path) for name in ("obs", "var"))
    pieces = _counts_pieces(file, path)
    pieces |= {"obs_names": _index(obs, path), "var_names": _index(var, path)}
    pieces |= _column_pieces(obs, "obs", (*captures.COLUMNS, *_OBS_COLUMNS), path)
    pieces |= _column_pieces(var, "var", _GENE_COLUMNS, path)
    pieces |= _position_pieces(file, obs, path)
    if (uns := member(file, "uns", path)) is not None:
        facts = {f"uns/{key}": member(uns, key, path) for key in _FACTS}
        pieces |= {key: stored for key, stored in facts.items() if stored is not None}
        pieces |= _scale_pieces(uns, path)
    check_budget(pieces.values(), path)
    return pieces


def _counts_pieces(file: Any, path: Path) -> dict[str, Any]:
    pieces = {}
    x = member(file, "X", path)
    if x is not None and x.attrs.get("encoding-type") != "null":
        pieces["X"] = x
    if _is_group(layers := member(file, "layers", path)):
        found = {plain(key): key for key in layers}
        for name in counts.LAYERS:
            if name in found:
                pieces[f"layers/{found[name]}"] = member(layers, found[name], path)
    if _is_group(raw := member(file, "raw", path)):
        x, var = member(raw, "X", path), member(raw, "var", path)
        if x is not None and _is_group(var):
            pieces |= {"raw/X": x, "raw/var_names": _index(var, path)}
            pieces |= _column_pieces(var, "raw/var", _GENE_COLUMNS, path)
    if not any(key == "X" or key.startswith(("layers/", "raw/X")) for key in pieces):
        raise CohortError(
            "'X' is missing: there are no raw counts in this file", path=path, remedy=_WRITE_AGAIN
        )
    return pieces


def _column_pieces(frame: Any, where: str, wanted: tuple[str, ...], path: Path) -> dict[str, Any]:
    """Find columns of a stored table by their plain names; old files store categories separately."""
    if not _is_group(frame):
        return {}
    pieces = {}
    for key in frame:
        if key == frame.attrs.get("_index", "_index"):
            continue
        if plain(key) not in wanted and not (where == "obs" and _may_name_captures(frame, key)):
            continue
        pieces[f"{where}/{key}"] = member(frame, key, path)
        beside = member(frame, "__categories", path)
        if _is_group(beside) and (categories := member(beside, key, path)) is not None:
            pieces[f"{where}/{key}/__categories"] = categories
    return pieces


def _may_name_captures(frame: Any, key: str) -> bool:
    """Return whether a column is stored in this file and has few enough categories to name captures."""
    import h5py

    if not isinstance(frame.get(key, getlink=True), h5py.HardLink) or not _is_group(frame[key]):
        return False
    parts = [frame[key].get(name, getlink=True) for name in ("categories", "codes")]
    if not all(isinstance(part, h5py.HardLink) for part in parts):
        return False
    categories, codes = frame[key]["categories"], frame[key]["codes"]
    if not all(isinstance(part, h5py.Dataset) for part in (categories, codes)):
        return False
    if any(part.is_virtual or part.external for part in (categories, codes)):
        return False
    return 2 <= int(categories.size or 0) <= captures.MOST_CAPTURES


def other_layers(file: Any, pieces: dict[str, Any]) -> list[str]:
    """Return the names of the layers that are not searched for counts."""
    layers = file.get("layers", ())
    return sorted(name for name in layers if f"layers/{name}" not in pieces)


def _position_pieces(file: Any, obs: Any, path: Path) -> dict[str, Any]:
    obsm = member(file, "obsm", path)
    stored = member(obsm, "spatial", path) if _is_group(obsm) else None
    if stored is None:
        raise positions.missing(obs if _is_group(obs) else (), obsm if _is_group(obsm) else (), path)
    if not _is_group(stored) or stored.attrs.get("encoding-type") != "dataframe":
        return {"xy": stored}
    index = stored.attrs.get("_index", "_index")
    return {f"xy/{name}": member(stored, name, path) for name in stored if name != index}


def _scale_pieces(uns: Any, path: Path) -> dict[str, Any]:
    spatial = member(uns, "spatial", path)
    if not _is_group(spatial):
        return {}
    pieces = {}
    for library in list(spatial)[:_MOST_LIBRARIES]:
        held = member(spatial, library, path)
        factors = member(held, "scalefactors", path) if _is_group(held) else None
        if not _is_group(factors):
            continue
        for key in _SCALE_FACTORS:
            if (stored := member(factors, key, path)) is not None:
                pieces[f"scale/{library}/{key}"] = stored
    return pieces


def _needed(file: Any, name: str, path: Path) -> Any:
    node = member(file, name, path)
    if node is not None:
        return node
    kind = {"obs": "spots", "var": "genes"}[name]
    raise CohortError(
        f"'{name}' is missing: there are no {kind} in this file", path=path, remedy=_WRITE_AGAIN
    )


def _index(frame: Any, path: Path) -> Any:
    """Return the dataset (or group) with the row names of a stored data frame."""
    key = frame.attrs.get("_index", "_index")
    index = member(frame, key, path) if hasattr(frame, "keys") else None
    if index is None:
        raise CohortError(
            "the file's layout is not that of AnnData 0.7 or later", path=path, remedy=_WRITE_AGAIN
        )
    return index


def _is_group(node: Any) -> bool:
    return hasattr(node, "keys")
