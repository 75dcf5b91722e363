"""Read HEST samples: an h5ad, a picture, and a JSON file of metadata, in three folders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from chrep_model.cohorts.findings import Finding
from chrep_model.cohorts.h5ad import CountsFile, read_counts_file
from chrep_model.cohorts.hdf5 import check_budget, dataset, member
from chrep_model.cohorts.readers.gene_features import gene_counts
from chrep_model.cohorts.readers.matrix import Matrix
from chrep_model.cohorts.readers.pictures import Size, find_picture, size_of
from chrep_model.cohorts.readers.source import Options, Reader
from chrep_model.cohorts.readers.untrusted_files import read_json
from chrep_model.cohorts.slide_names import slide_stem
from chrep_model.cohorts.tables.names import texts
from chrep_model.errors import ChrepError, CohortError, damage_as_error
from chrep_model.geometry import FloatArray
from chrep_model.slides.slide import open_slide

KIND = "HEST sample"
# Names of the folders of tables, metadata and pictures in HEST-1k and in programs that use it.
_TABLES, _JSON, _PICTURES = ("st", "h5ad"), ("metadata", "meta"), ("wsis", "image", "images")
_KNOWN = ("pixel_size_um_estimated", "pixel_size_um_embedded", "st_technology", "dataset_title")
_POSITIONS = (("pxl_col_in_fullres", "pxl_row_in_fullres"), ("x_pixel", "y_pixel"))
_SPARSE = ("X/data", "X/indices", "X/indptr")
_CLEARLY = 0.10
_COPY_AGAIN = "Download the sample again."


def _find(path: Path) -> Path | None:
    if path.is_file():
        return path if path.suffix.lower() == ".h5ad" and _facts_file(path) is not None else None
    for folder in (path, *(path / name for name in _TABLES)):
        tables = sorted(folder.glob("*.h5ad")) if folder.is_dir() else []
        if len(tables) == 1 and _facts_file(tables[0]) is not None:
            return tables[0]
    return None


def _facts_file(table: Path) -> Path | None:
    for path in _partners(table, _JSON, (".json",)):
        try:
            if any(key in read_json(path) for key in _KNOWN):
                return path
        except ChrepError:
            continue
    return None


def _partners(table: Path, folders: tuple[str, ...], suffixes: tuple[str, ...] = ()) -> Iterator[Path]:
    """Yield the files with the table's name: beside it, in these subfolders, and in sibling folders."""
    home = table.absolute().parent
    for folder in (home, *(home / name for name in folders), *(home.parent / name for name in folders)):
        for file in sorted(folder.glob(f"{table.stem}.*")) if folder.is_dir() else ():
            known = file.suffix.lower() in suffixes if suffixes else slide_stem(file.name) == table.stem
            if file.is_file() and known:
                yield file


def _name(table: Path) -> str:
    return table.stem


def _facts(table: Path) -> dict[str, Any]:
    path = _facts_file(table)
    return {} if path is None else read_json(path)


def _picture(table: Path, options: Options) -> Path:
    facts = _facts(table)
    sides = [_number(facts.get(key)) for key in ("fullres_px_width", "fullres_px_height")]

    def why_not(size: Size) -> str:
        if None in sides or (size.width, size.height) == tuple(sides):
            return ""
        return f"it is {size}, and the positions are in px of one of {sides[0]:.0f} x {sides[1]:.0f}"

    return find_picture(
        table.parent,
        table.stem,
        options,
        among=_partners(table, _PICTURES),
        fits=why_not,
        wanted=f"the sample's picture at full resolution (wsis/{table.stem}.tif)",
    )


def _read(table: Path, options: Options) -> CountsFile:
    import h5py

    with h5py.File(table, "r") as file:
        placed = "obsm" in file and "spatial" in file["obsm"]
    counts = read_counts_file(table) if placed else _read_unplaced(table)
    xy, findings = _in_order(counts.xy, options.image or _picture(table, options))
    facts, said = dict(counts.facts), _facts(table)
    pixel_um = _number(said.get("pixel_size_um_estimated")) or _number(said.get("pixel_size_um_embedded"))
    if pixel_um is not None:
        facts["um_per_px"] = pixel_um
        findings.append(Finding("ok", f"{pixel_um:.4g} µm per px by the sample's JSON file."))
        if (spot_um := _number(said.get("spot_diameter"))) is not None:
            facts["spot_diameter_px"] = spot_um / pixel_um
    if "patient" not in facts and isinstance(said.get("patient"), str) and said["patient"].strip():
        facts["patient"] = said["patient"].strip()
    return CountsFile(
        counts=counts.counts,
        genes=counts.genes,
        spot_ids=counts.spot_ids,
        xy=xy,
        gene_ids=counts.gene_ids,
        facts=facts,
        array=counts.array,
        findings=(*counts.findings, *findings),
    )


def _read_unplaced(table: Path) -> CountsFile:
    """Read an h5ad whose positions are columns of `obs`."""
    import h5py
    from scipy import sparse

    what = "this file is truncated, damaged or no h5ad"
    with damage_as_error(CohortError, what, table, _COPY_AGAIN):
        with h5py.File(table, "r") as file:
            pieces = locate_unplaced(file, table)
            values = {key: piece[()] for key, piece in pieces.items()}
            transposed = "X" not in pieces and file["X"].attrs.get("encoding-type") == "csc_matrix"
        spots, genes = texts(values["spots"]), texts(values["genes"])
        xy = np.column_stack([np.asarray(values[axis], np.float64) for axis in "xy"])
        shape = (len(spots), len(genes))
        if "X" in values:
            matrix = sparse.csr_matrix(values["X"])
        else:
            kind = sparse.csc_matrix if transposed else sparse.csr_matrix
            matrix = sparse.csr_matrix(kind(tuple(values[part] for part in _SPARSE), shape=shape))
        matrix.check_format(full_check=True)
        if matrix.shape != shape or xy.shape != (shape[0], 2) or not np.isfinite(xy).all():
            raise ValueError("its parts do not go together")
    found = gene_counts(Matrix(matrix, spots, genes, None, None, table))
    return CountsFile(found.counts, found.genes, spots, xy, None, {}, None, found.findings)


def locate_unplaced(file: Any, table: Path) -> dict[str, Any]:
    """Return the stored pieces of an open h5ad whose positions are columns of `obs`.

    Returns
    -------
    dict
        Datasets: ``spots`` and ``genes`` (names), ``x`` and ``y``, and ``X`` or its three sparse parts.

    Raises
    ------
    CohortError
        A dataset is missing, is a link to another file, or declares more than the file can hold.
    """
    frames = {kind: member(file, kind, table) for kind in ("obs", "var")}
    names = {kind: frame.attrs.get("_index", "_index") for kind, frame in frames.items()}
    pair = next((pair for pair in _POSITIONS if all(name in frames["obs"] for name in pair)), None)
    if pair is None:
        raise CohortError(
            "nothing says where the spots are: neither obsm['spatial'] nor columns of obs in px",
            path=table,
            remedy=_COPY_AGAIN,
        )
    counts = ("X",) if dataset(file, "X", table) is not None else _SPARSE
    places = {"spots": f"obs/{names['obs']}", "genes": f"var/{names['var']}"}
    places |= {axis: f"obs/{name}" for axis, name in zip("xy", pair, strict=True)}
    places |= {part: part for part in counts}
    pieces = {key: dataset(file, place, table) for key, place in places.items()}
    missing = [places[key] for key, piece in pieces.items() if piece is None]
    if missing:
        raise CohortError(f"'{missing[0]}' is missing", path=table, remedy=_COPY_AGAIN)
    check_budget(pieces.values(), table)
    return pieces


def _in_order(xy: FloatArray, picture: Path) -> tuple[FloatArray, list[Finding]]:
    """Swap x and y if the sample has them exchanged, judged by the picture's borders or its tissue."""
    size = size_of(picture)
    as_given, exchanged = (
        bool((pair >= 0).all() and (pair.max(axis=0) <= (size.width, size.height)).all())
        for pair in (xy, xy[:, ::-1])
    )
    why = "as given they lie outside of the picture"
    if as_given and exchanged:
        from chrep_model.slides.tissue import tissue_mask  # the process that probes files needs none

        with open_slide(picture) as slide:
            mask = tissue_mask(slide if slide.mpp is not None else slide.with_mpp(0.5))
        shares = [float((mask.fraction(pair, 1.0) >= 0.5).mean()) for pair in (xy, xy[:, ::-1])]
        exchanged = shares[1] >= shares[0] + _CLEARLY
        why = f"{shares[1]:.0%} of the spots lie on tissue so, and {shares[0]:.0%} as given"
    elif as_given:
        exchanged = False
    if not exchanged:
        return xy, []
    text = f"x and y are exchanged in this sample, and were put right: {why}."
    return np.ascontiguousarray(xy[:, ::-1]), [Finding("warning", text, "Look at the spots on the picture.")]


def _number(value: Any) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e9
    return float(value) if known else None


def _hdf5(table: Path) -> list[Path]:
    return [table]


READER = Reader(kind=KIND, find=_find, name=_name, picture=_picture, read=_read, hdf5=_hdf5)
