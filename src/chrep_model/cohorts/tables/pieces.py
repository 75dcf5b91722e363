"""Where in an h5ad file the pieces are that a section needs, found without trusting the file.

Before any value is read the pieces are looked over: a file must not lead to other files (HDF5 links, external
and virtual datasets) and must not declare far more data than it can hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chrep_model.cohorts.tables import captures, counts, names, positions
from chrep_model.cohorts.tables.names import plain
from chrep_model.errors import CohortError

# Counts compress well (mostly zeros), but not beyond this; more is a damaged or a hostile file.
MAX_EXPANSION = 200
ALWAYS_ALLOWED_BYTES = 1 << 30

_FACTS = ("section", "patient", "individual", "um_per_px", "spot_diameter_px")
#: Of ``uns["spatial"][LIBRARY]["scalefactors"]``.
_SCALE_FACTORS = (
    *("tissue_hires_scalef", "tissue_lowres_scalef", "spot_diameter_fullres"),
    *("microns_per_pixel", "bin_size_um"),
)
_OBS_COLUMNS = ("intissue", "arrayrow", "arraycol")
_GENE_COLUMNS = (*names.ID_COLUMNS, *names.SYMBOL_COLUMNS)
_MOST_LIBRARIES = 1000
_WRITE_AGAIN = "Write the file again with a current anndata (adata.write_h5ad)."


def locate(file: Any, path: Path) -> dict[str, Any]:
    """Find the stored pieces that are read, by where they lie in the file.

    Counts are under ``X``, ``layers/NAME`` and ``raw/X``, names under ``obs_names``, ``var_names`` and
    ``raw/var_names``, positions under ``xy`` (an array) or ``xy/COLUMN`` (a table), columns under
    ``obs/NAME`` and ``var/NAME``, facts under ``uns/NAME`` and ``scale/LIBRARY/NAME``.

    Raises
    ------
    CohortError
        One is missing, leads out of the file, or declares more than the file can hold.
    """
    obs, var = (_needed(file, name, path) for name in ("obs", "var"))
    pieces = _counts_pieces(file, path)
    pieces |= {"obs_names": _index(obs, path), "var_names": _index(var, path)}
    pieces |= _column_pieces(obs, "obs", (*captures.COLUMNS, *_OBS_COLUMNS), path)
    pieces |= _column_pieces(var, "var", _GENE_COLUMNS, path)
    pieces |= _position_pieces(file, obs, path)
    if (uns := _member(file, "uns", path)) is not None:
        facts = {f"uns/{key}": _member(uns, key, path) for key in _FACTS}
        pieces |= {key: stored for key, stored in facts.items() if stored is not None}
        pieces |= _scale_pieces(uns, path)
    _check_budget(list(pieces.values()), path)
    return pieces


def _counts_pieces(file: Any, path: Path) -> dict[str, Any]:
    pieces = {}
    x = _member(file, "X", path)
    if x is not None and x.attrs.get("encoding-type") != "null":
        pieces["X"] = x
    if _is_group(layers := _member(file, "layers", path)):
        found = {plain(key): key for key in layers}
        for name in counts.LAYERS:
            if name in found:
                pieces[f"layers/{found[name]}"] = _member(layers, found[name], path)
    if _is_group(raw := _member(file, "raw", path)):
        x, var = _member(raw, "X", path), _member(raw, "var", path)
        if x is not None and _is_group(var):
            pieces |= {"raw/X": x, "raw/var_names": _index(var, path)}
            pieces |= _column_pieces(var, "raw/var", _GENE_COLUMNS, path)
    if not any(key == "X" or key.startswith(("layers/", "raw/X")) for key in pieces):
        raise CohortError(
            "'X' is missing: there are no raw counts in this file", path=path, remedy=_WRITE_AGAIN
        )
    return pieces


def _column_pieces(frame: Any, where: str, wanted: tuple[str, ...], path: Path) -> dict[str, Any]:
    """Find columns of a stored table by their plain names, with the categories that old files keep beside."""
    if not _is_group(frame):
        return {}
    pieces = {}
    for key in frame:
        if key == frame.attrs.get("_index", "_index"):
            continue
        if plain(key) not in wanted and not (where == "obs" and _may_name_captures(frame, key)):
            continue
        pieces[f"{where}/{key}"] = _member(frame, key, path)
        beside = _member(frame, "__categories", path)
        if _is_group(beside) and (categories := _member(beside, key, path)) is not None:
            pieces[f"{where}/{key}/__categories"] = categories
    return pieces


def _may_name_captures(frame: Any, key: str) -> bool:
    """Whether a column of unknown name has categories, few enough to be captures, and lies in this file."""
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
    """Give the names of the layers that are not looked at for counts; none of them is read."""
    layers = file.get("layers", ())
    return sorted(name for name in layers if f"layers/{name}" not in pieces)


def _position_pieces(file: Any, obs: Any, path: Path) -> dict[str, Any]:
    obsm = _member(file, "obsm", path)
    stored = _member(obsm, "spatial", path) if _is_group(obsm) else None
    if stored is None:
        raise positions.missing(obs if _is_group(obs) else (), obsm if _is_group(obsm) else (), path)
    if not _is_group(stored) or stored.attrs.get("encoding-type") != "dataframe":
        return {"xy": stored}
    index = stored.attrs.get("_index", "_index")
    return {f"xy/{name}": _member(stored, name, path) for name in stored if name != index}


def _scale_pieces(uns: Any, path: Path) -> dict[str, Any]:
    spatial = _member(uns, "spatial", path)
    if not _is_group(spatial):
        return {}
    pieces = {}
    for library in list(spatial)[:_MOST_LIBRARIES]:
        held = _member(spatial, library, path)
        factors = _member(held, "scalefactors", path) if _is_group(held) else None
        if not _is_group(factors):
            continue
        for key in _SCALE_FACTORS:
            if (stored := _member(factors, key, path)) is not None:
                pieces[f"scale/{library}/{key}"] = stored
    return pieces


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
    kind = {"obs": "spots", "var": "genes"}[name]
    raise CohortError(
        f"'{name}' is missing: there are no {kind} in this file", path=path, remedy=_WRITE_AGAIN
    )


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


def _is_group(node: Any) -> bool:
    return hasattr(node, "keys")
