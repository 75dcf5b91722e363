"""A bundle's gallery stored as a zarr group; rows of a large gallery are only read when needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from chrep_model.errors import BundleError
from chrep_model.zarr_check import open_group

if TYPE_CHECKING:
    from chrep_model.calibration.gallery import Gallery

ARRAYS = ("z", "expression", "section", "patient", "position")

MEASURED = "measured"
"""Array of which section measured which gene, (sections, genes) 0 or 1; omitted if all measured all."""

MAPPED = 2**30
"""Embeddings and expression of more bytes than this are stored so that they can be memory-mapped.

Each is then one chunk without compression, whose bytes are those of the array, and which any zarr reader can
read. Smaller arrays are compressed and read as a whole, so that no file of the bundle stays open.
"""

_ORDER = {"z": "C", "expression": "F"}
"""Memory order: embeddings by rows, as the search reads them; expression by genes, as maps read it."""

_BLOCK = 16_384


def write_gallery(path: Path, gallery: Gallery) -> None:
    """Write a gallery in one pass over its arrays, which may be memory maps.

    Raises
    ------
    OSError
        The gallery cannot be written; free space on the disk is checked first.
    """
    import zarr

    group = zarr.open_group(path, mode="w")
    for name in ARRAYS:
        values = getattr(gallery, name)
        if name in _ORDER and values.nbytes > MAPPED:
            _write_mapped(group, path, name, values)
        else:
            group.create_array(name, data=values)
    group.attrs["section_names"] = list(gallery.section_names)
    if gallery.measured is not None:
        group.create_array(MEASURED, data=gallery.measured.astype("u1"))


def read_gallery(path: Path) -> Gallery:
    """Open a stored gallery.

    Raises
    ------
    KeyError, ValueError, TypeError, OSError
        Arrays are missing or do not fit together.
    BundleError
        The gallery is not safe to open, see `check_zarr`.
    """
    import numpy as np

    from chrep_model.calibration.gallery import Gallery

    group = open_group(path, BundleError)
    parts: dict[str, Any] = {}
    for name in ARRAYS:
        array: Any = group[name]
        order = array.attrs.get("mapped")
        if order is None:
            parts[name] = array[:]
        else:
            parts[name] = np.memmap(_chunk(path, name), "<f4", "r", shape=array.shape, order=order)
    names: Any = group.attrs["section_names"]
    if MEASURED in group:
        stored: Any = group[MEASURED]
        parts[MEASURED] = stored[:].astype(bool)
        expected = (len(names), parts["expression"].shape[1])
        if parts[MEASURED].shape != expected:
            raise ValueError(f"what was measured has the shape {parts[MEASURED].shape}, not {expected}")
    return Gallery(**parts, section_names=tuple(names))


def _write_mapped(group: Any, path: Path, name: str, values: Any) -> None:
    from zarr.codecs import TransposeCodec

    from chrep_model.mapped_arrays import map_file, read_rows, slices, write_rows

    order, shape = _ORDER[name], values.shape
    group.create_array(
        name, shape=shape, chunks=shape, dtype="<f4", compressors=None, attributes={"mapped": order},
        filters=[TransposeCodec(order=(1, 0))] if order == "F" else None,
    )  # fmt: skip
    chunk = _chunk(path, name)
    chunk.parent.mkdir(parents=True)
    with chunk.open("w+b") as file:
        target = map_file(file, shape, order)
    write_rows(target, (read_rows(values, block) for block in slices(len(values), _BLOCK)))
    target.flush()


def _chunk(path: Path, name: str) -> Path:
    """Return the path of a matrix's first chunk in zarr format 3."""
    return path / name / "c" / "0" / "0"
