"""Read first-generation Spatial Transcriptomics tables: rows named ``XxY``, 100 µm spots, 200 µm apart."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from chrep_model.cohorts.findings import Finding
from chrep_model.cohorts.h5ad import CountsFile
from chrep_model.cohorts.readers.gene_features import gene_counts
from chrep_model.cohorts.readers.lattice import fit_lattice
from chrep_model.cohorts.readers.matrix import Matrix
from chrep_model.cohorts.readers.pictures import Size, find_picture
from chrep_model.cohorts.readers.source import Options, Reader
from chrep_model.cohorts.readers.untrusted_files import read_bytes, read_table
from chrep_model.cohorts.slide_names import slide_stem
from chrep_model.errors import CohortError

if TYPE_CHECKING:
    import pandas as pd

KIND = "table of legacy Spatial Transcriptomics"
SPOT_UM, PITCH_UM = 100.0, 200.0
_SPOT = re.compile(r"\d+(\.\d+)?x\d+(\.\d+)?")
_TABLE = re.compile(r"\.(tsv|csv|txt)(\.gz)?$", re.IGNORECASE)
_AFFIXES = re.compile(
    r"^GSM\d+_|[_.-](stdata|st_data|count_matrix(-\d+)?|counts?|table)(?=[_.-]|$)", re.IGNORECASE
)
_POSITIONS = re.compile(r"selection|spot|coord|position|transform|align", re.IGNORECASE)
# Names of folders for positions and pictures in collections of many sections.
_SIBLINGS = re.compile(r"spot|select|coord|align|ima?ge?s?|wsi", re.IGNORECASE)
_SELECTION = ("x", "y", "new_x", "new_y", "pixel_x", "pixel_y", "selected")
_FIRST_LINES = 1 << 20
_LEAST_PLACED = 0.5
_MOST_FILES = 5000
_WANTED = "the spots' positions in px: a selection file (x, y, pixel_x, pixel_y) or a 3 x 3 alignment"


def _find(path: Path) -> Path | None:
    if path.is_file():
        return path if _is_counts(path) else None
    if not path.is_dir():
        return None
    tables = [file for file in sorted(path.iterdir()) if _TABLE.search(file.name) and _is_counts(file)]
    return tables[0] if len(tables) == 1 else None


def _is_counts(file: Path) -> bool:
    """Return whether a table has spots as rows or columns, by its first lines."""
    if not _TABLE.search(file.name) or not file.is_file() or _POSITIONS.search(file.name):
        return False
    try:
        opener = gzip.open if file.suffix.lower() == ".gz" else open
        with opener(file, "rb") as stream:
            head = stream.read(_FIRST_LINES).decode("utf-8", "replace").split("\n")
    except (OSError, EOFError, zlib.error):
        return False
    fields = [re.split("[\t,]", line.strip("\r\n")) for line in head[:2]]
    if len(fields) < 2 or len(fields[1]) < 3:
        return False
    rows = _SPOT.fullmatch(fields[1][0].strip('"')) is not None
    return rows or all(_SPOT.fullmatch(name.strip('"')) for name in fields[0][1:20])


def _name(table: Path) -> str:
    stem = _TABLE.sub("", table.name)
    return _AFFIXES.sub("", stem).strip("_.-") or stem


def _candidates(table: Path) -> Iterator[Path]:
    """Yield files that may belong to a table: those in its folder, then those in sibling folders."""
    home = table.absolute().parent
    yield from (file for file in sorted(home.iterdir()) if file.is_file())
    others = [path for path in sorted(home.parent.iterdir()) if _SIBLINGS.search(path.name) and path != home]
    files = (file for path in others for depth in ("*", "*/*", "*/*/*") for file in sorted(path.glob(depth)))
    yield from (file for file in islice(files, _MOST_FILES) if file.is_file())


def _has_section_name(file: Path, table: Path) -> bool:
    """Return whether a file, or one of the folders on its path, has the section's name in its own name."""
    name = re.escape(_name(table))
    parts = file.absolute().relative_to(table.absolute().parent.parent).parts
    return any(re.search(rf"(?<![A-Za-z0-9]){name}(?![A-Za-z0-9])", part) for part in parts[1:])


def _files_of_section(table: Path, files: list[Path]) -> list[Path]:
    """Select the files of this section: those beside its table if there are any, else others by name."""
    beside = [file for file in files if file.parent == table.absolute().parent]
    named = [file for file in beside if _has_section_name(file, table)]
    alone = _find(table.parent) is not None
    return named or (beside if alone else []) or [file for file in files if _has_section_name(file, table)]


def _positions_file(table: Path) -> Path:
    files = [file for file in _candidates(table) if _TABLE.search(file.name) and _POSITIONS.search(file.name)]
    found = _files_of_section(table, files)
    if len(found) != 1:
        names = ", ".join(file.name for file in found[:3])
        raise CohortError(
            f"there are several tables of positions for it ({names})"
            if found
            else "its positions are missing",
            path=table,
            remedy=f"Keep one table beside it that has {_name(table)} in its name: {_WANTED}.",
        )
    return found[0]


def _picture(table: Path, options: Options) -> Path:
    pictures = [file for file in _candidates(table) if slide_stem(file.name) is not None]
    xy = _read_positions(_positions_file(table), _spots(_read_counts(table)))[2]
    right, bottom = xy.max(axis=0)

    def why_not(size: Size) -> str:
        if (xy >= 0).all() and right <= size.width and bottom <= size.height:
            return ""
        return (
            f"it is {size}, and spots lie as far as x {right:.0f}, y {bottom:.0f}: it is reduced or another"
        )

    return find_picture(
        table.parent,
        _name(table),
        options,
        among=_files_of_section(table, pictures),
        fits=why_not,
        wanted="the H&E picture in whose px the positions are",
    )


def _read(table: Path, options: Options) -> CountsFile:
    frame = _read_counts(table)
    positions = _positions_file(table)
    spots = _spots(frame)
    kept, array, xy, findings = _read_positions(positions, spots)
    names = tuple(str(name) for name in frame.columns)
    values = frame.to_numpy()[kept]
    genes = gene_counts(Matrix(_sparse(values), tuple(frame.index[kept]), names, None, None, table))
    try:
        lattice = fit_lattice(array[:, ::-1], xy, PITCH_UM, PITCH_UM)
    except ValueError as error:
        raise CohortError(
            f"array and positions do not belong together: {error}",
            path=positions,
            remedy="Use the positions that were made for this section.",
        ) from None
    facts = {}
    if lattice is not None:
        facts = {"um_per_px": lattice.mpp, "spot_diameter_px": SPOT_UM / lattice.mpp}
        text = f"{lattice.mpp:.4g} µm per px by the spots, which are {PITCH_UM:.0f} µm apart on this array."
        findings.append(Finding("ok", text))
    return CountsFile(
        counts=genes.counts,
        genes=genes.genes,
        spot_ids=tuple(frame.index[kept]),
        xy=xy,
        gene_ids=None,
        facts=facts,
        array=np.rint(array[:, ::-1]).astype(np.int64),
        findings=(*genes.findings, *findings),
    )


def _sparse(values: np.ndarray):  # type: ignore[no-untyped-def]  # scipy has no types
    from scipy import sparse

    return sparse.csr_matrix(values)


def _read_counts(table: Path) -> pd.DataFrame:
    """Return counts with spots as rows, named ``XxY``."""
    comma = ".csv" in table.name.lower()
    frame = read_table(table, sep="," if comma else "\t", index_col=0)
    frame.index = frame.index.astype(str)
    if not all(_SPOT.fullmatch(name) for name in frame.index[:20]):
        frame = frame.T
    wrong = [name for name in frame.index if not _SPOT.fullmatch(str(name))]
    kinds = {dtype.kind for dtype in frame.dtypes}
    if wrong or not len(frame) or not kinds <= set("iuf"):
        what = f"a row is called {wrong[0]!r}, not XxY" if wrong else "it holds something else than numbers"
        raise CohortError(f"this is no table of counts: {what}", path=table, remedy="Copy the file again.")
    if frame.index.has_duplicates:
        raise CohortError("a spot occurs more than once", path=table, remedy="Copy the file again.")
    return frame.fillna(0)


def _spots(frame: pd.DataFrame) -> np.ndarray:
    return np.array([[float(part) for part in str(name).split("x")] for name in frame.index])


def _read_positions(
    path: Path, spots: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[Finding]]:
    """Read the positions of spots on the picture from a selection file or an alignment.

    Returns
    -------
    kept : ndarray
        Indices of the spots that have a position and are selected, int64.
    array, xy : ndarray
        (n, 2) float64: (x, y) on the array, and in px.
    findings : list of Finding
    """
    numbers = read_bytes(path)[: 1 << 16].split()
    if len(numbers) == 9 and all(_is_number(number) for number in numbers):
        return np.arange(len(spots)), spots, _aligned(np.array(numbers, float), spots, path), []
    table = _selection(path)
    found = {}
    for x, y in (("x", "y"), ("new_x", "new_y")):
        if {x, y} <= set(table):
            keys = [tuple(pair) for pair in table[[x, y]].to_numpy(float).round(3)]
            found = dict(zip(keys, range(len(keys)), strict=True))
            at = np.array([found.get(tuple(spot), -1) for spot in spots.round(3)])
            if (at >= 0).mean() >= _LEAST_PLACED:
                break
    else:
        raise CohortError(
            f"it has places for {int((at >= 0).sum()) if found else 0} of {len(spots)} spots: it is of "
            "another section",
            path=path,
            remedy="Use the positions that were made for this section.",
        )
    kept = np.flatnonzero(at >= 0)
    if "selected" in table:
        kept = kept[table["selected"].to_numpy(float)[at[kept]] > 0]
    if not len(kept):
        raise CohortError("no spot is selected", path=path, remedy="Select the spots under tissue.")
    findings = []
    if len(kept) < len(spots):
        text = f"{len(spots) - len(kept):,} spots that are not selected as under tissue were left out."
        findings.append(Finding("ok", text))
    places = table.iloc[at[kept]]
    adjusted = {"new_x", "new_y"} <= set(table)
    array = places[["new_x", "new_y"] if adjusted else ["x", "y"]].to_numpy(float)
    return kept, array, places[["pixel_x", "pixel_y"]].to_numpy(float), findings


def _selection(path: Path) -> pd.DataFrame:
    """Return a table with the columns x, y, pixel_x, pixel_y, and the other columns of `_SELECTION`."""
    head = read_bytes(path)[:4096].decode("utf-8", "replace").split("\n")[0]
    sep = "\t" if "\t" in head else ","
    names = [name.strip().strip('"') for name in head.split(sep)]
    if all(_is_number(name.encode()) for name in names) and len(names) in (6, 7):
        table = read_table(path, sep=sep, header=None, names=list(_SELECTION[: len(names)]))
    else:
        table = read_table(path, sep=sep)
        table.columns = [str(name).strip() for name in table.columns]
        first = table.iloc[:, 0].astype(str) if len(table) else table.iloc[:, 0]
        if {"X", "Y"} <= set(table) and len(table) and first.map(lambda v: bool(_SPOT.fullmatch(v))).all():
            table = table.rename(columns={"X": "pixel_x", "Y": "pixel_y"})
            table[["x", "y"]] = first.str.split("x", expand=True).astype(float)
    missing = [name for name in ("x", "y", "pixel_x", "pixel_y") if name not in table]
    numeric = [name for name in _SELECTION if name in table]
    if missing or not len(table) or any(table[name].dtype.kind not in "iufb" for name in numeric):
        what = f"it has no column {', '.join(missing)}" if missing else "it holds something else than numbers"
        raise CohortError(f"these are no positions of spots: {what}", path=path, remedy=f"Give {_WANTED}.")
    if not np.isfinite(table[["pixel_x", "pixel_y"]].to_numpy(float)).all():
        raise CohortError("some positions are no numbers", path=path, remedy=f"Give {_WANTED}.")
    return table


def _aligned(numbers: np.ndarray, spots: np.ndarray, path: Path) -> np.ndarray:
    """Apply a 3 x 3 alignment to spots (n, 2): ``[x, y, 1] @ M``, also if it is stored transposed."""
    matrix = numbers.reshape(3, 3)
    if np.allclose(matrix[2, :2], 0) and not np.allclose(matrix[:2, 2], 0):
        matrix = matrix.T
    if not np.allclose(matrix[:, 2], [0, 0, 1]):
        raise CohortError(
            "these nine numbers are no alignment of an array", path=path, remedy=f"Give {_WANTED}."
        )
    return (np.column_stack([spots, np.ones(len(spots))]) @ matrix)[:, :2]


def _is_number(text: bytes) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _hdf5(_: Path) -> list[Path]:
    return []


READER = Reader(kind=KIND, find=_find, name=_name, picture=_picture, read=_read, hdf5=_hdf5)
