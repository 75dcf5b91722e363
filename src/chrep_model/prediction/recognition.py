"""Recognition of files with stored predictions: h5ad, zarr and SpatialData."""

from __future__ import annotations

from pathlib import Path

TABLE = "prediction"
"""Name of the table in a SpatialData store."""


def is_table(path: Path) -> bool:
    """Return whether this file or folder holds the table of a prediction.

    Raises
    ------
    Exception
        Any error, if the file is damaged.
    """
    if path.is_dir():
        return any(path.glob("uns/chrep")) or any(path.glob("tables/*/uns/chrep"))
    if path.suffix != ".h5ad":
        return False
    import h5py

    with h5py.File(path, "r") as file:
        return "chrep" in file.get("uns", ())
