"""Write predictions as files that other programs read.

=============  ==================  ======================================================================
format         file                what for
=============  ==================  ======================================================================
``h5ad``       ``NAME.h5ad``       AnnData: scanpy, squidpy; the default
``zarr``       ``NAME.zarr``       the same AnnData as a zarr store
``spatialdata``  ``NAME.sdata.zarr``  SpatialData: the table tied to the tiles as polygons
``ome-zarr``   ``NAME.ome.zarr``   the maps as an image with a channel per gene: QuPath, Fiji, napari
``csv``        ``NAME.csv``        one row per tile; spreadsheets, R
``parquet``    ``NAME.parquet``    the same rows for pandas, polars and R's arrow
``geojson``    ``NAME.geojson``    QuPath: tiles with measurements of a few genes
=============  ==================  ======================================================================

An existing file is only replaced if it is an older prediction, because the counts of a measured section have
the same name and suffix as a prediction on it.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from chrep_model.errors import PredictionError, SettingsError
from chrep_model.export import frames, omezarr
from chrep_model.files import write_atomically
from chrep_model.prediction import places
from chrep_model.prediction.prediction import Prediction
from chrep_model.prediction.recognition import TABLE, is_table
from chrep_model.prediction.table import INTERVAL_LAYER, library_of, spatial_facts

Format = Literal["h5ad", "zarr", "spatialdata", "ome-zarr", "csv", "parquet", "geojson"]

FORMATS: tuple[str, ...] = get_args(Format)

SUFFIXES: dict[str, str] = {name: f".{name}" for name in FORMATS} | {
    "spatialdata": ".sdata.zarr",
    "ome-zarr": ".ome.zarr",
}

MOST_GENES = {"geojson": 20, "ome-zarr": 100}
"""Largest number of genes per format. GeoJSON is text, and viewers make a layer of every OME-Zarr channel, so
that QuPath takes minutes to open files with more genes."""

FIGURES = ("png", "svg", "pdf")
"""Formats of `figure.write_figure`, which shows one gene."""

TILES = "tiles"
"""Name of the tiles' shapes in a SpatialData store."""

_H5AD_AROUND = 1 << 20
"""Bytes of an h5ad file besides its values: names, positions, facts."""

_TITLES = {"geojson": "GeoJSON", "ome-zarr": "OME-Zarr"}
_GEOJSON_START = '{"type": "FeatureCollection", "chrep": '


def output_path(folder: Path, slide_name: str, format: str) -> Path:
    """Return the path for the prediction of a slide."""
    return folder / f"{slide_name}{SUFFIXES[format]}"


def format_of(path: Path, format: str | None = None) -> str:
    """Return the format to write a file in, one of `FORMATS` or `FIGURES`.

    Parameters
    ----------
    path : Path
        File whose name ends as in `SUFFIXES`, or in the name of a figure's format.
    format : str, optional
        The format; by default that of the file's name.

    Raises
    ------
    SettingsError
        No format is known by this name or suffix, or the two contradict each other.
    """
    suffixes = SUFFIXES | {name: f".{name}" for name in FIGURES}
    fitting = [name for name, suffix in suffixes.items() if path.name.lower().endswith(suffix)]
    if format is None:
        if not fitting:
            raise SettingsError(
                f"the name {path.name} says no format", remedy=f"End it in {', '.join(suffixes.values())}."
            )
        return max(fitting, key=lambda name: len(suffixes[name]))  # .ome.zarr rather than .zarr
    if format not in suffixes:
        raise SettingsError(f"there is no format {format!r}", remedy=f"Choose from {', '.join(suffixes)}.")
    if path.suffix.lower() != f".{suffixes[format].split('.')[-1]}":
        raise SettingsError(
            f"{path.name} is no name for the format {format}", remedy=f"End it in {suffixes[format]}."
        )
    return format


def check_format(format: str, n_genes: int) -> None:
    """Check that a format can be written, before anything is computed.

    Parameters
    ----------
    format : str
        One of `FORMATS`.
    n_genes : int
        Number of genes to write.

    Raises
    ------
    SettingsError
        The format is unknown, has too many genes, or needs a package that is not installed.
    """
    if format not in FORMATS:
        raise SettingsError(f"there is no format {format!r}", remedy=f"Choose from {', '.join(FORMATS)}.")
    most = MOST_GENES.get(format)
    if most is not None and n_genes > most:
        raise SettingsError(
            f"{n_genes} genes are too many for {_TITLES[format]}, which takes {most} at most",
            remedy="Choose some with --genes A,B,C, or use --format h5ad.",
        )
    if format == "spatialdata":
        _spatialdata()
    if format == "ome-zarr":
        omezarr.check_installed()


def check_target(path: Path) -> None:
    """Check that nothing but an older prediction would be overwritten.

    Raises
    ------
    PredictionError
        The path exists and is not a prediction.
    """
    if path.exists() and not is_prediction(path):
        raise PredictionError(
            "there is something else than a prediction under this name, which is not overwritten",
            path=path,
            remedy="Choose another output folder.",
        )


def is_prediction(path: Path) -> bool:
    """Return whether `write_prediction` wrote a file or folder; never raises."""
    try:
        if path.is_dir():
            return is_table(path) or omezarr.is_ome_zarr(path)
        if path.suffix == ".h5ad":
            return is_table(path)
        if path.suffix == ".parquet":
            from pyarrow.parquet import read_schema

            return frames.PARQUET_KEY in (read_schema(path).metadata or {})
        start = {".csv": frames.CSV_START, ".geojson": _GEOJSON_START}.get(path.suffix)
        if start is None:
            return False
        with path.open("rb") as stream:
            return stream.read(len(start)) == start.encode()
    except Exception:  # damaged, or not a prediction
        return False


def write_prediction(
    prediction: Prediction, path: Path, format: str = "h5ad", genes: tuple[str, ...] | None = None
) -> None:
    """Write a prediction; the file appears when complete, and replaces an older prediction.

    Parameters
    ----------
    prediction : Prediction
        A prediction with at least one tile.
    path : Path
        Output path, see `output_path`; its folder must exist.
    format : str
        One of `FORMATS`; described at `frames.to_frame`, `omezarr.to_ome_zarr`, `to_geojson` and
        `to_spatialdata`.
    genes : tuple of str, optional
        Genes to write, in this order; all unless given.

    Raises
    ------
    GeneError
        A gene is unknown.
    SettingsError, PredictionError
        See `check_format` and `check_target`; or the disk is full, or the folder cannot be written.
    Cancelled
        The user asked to stop, see `Prediction.within`; no file is left.
    """
    if not len(prediction):
        raise PredictionError("nothing is predicted that could be written", path=path)
    names = prediction.genes if genes is None else genes
    prediction.bundle.panel.indices(names)
    check_format(format, len(names))
    check_target(path)
    write: Callable[[Prediction, Path, tuple[str, ...]], None] = {
        "h5ad": _write_h5ad,
        "zarr": _write_zarr,
        "spatialdata": to_spatialdata,
        "ome-zarr": omezarr.to_ome_zarr,
        "csv": frames.to_csv,
        "parquet": frames.to_parquet,
        "geojson": to_geojson,
    }[format]
    with write_atomically(path) as part:
        write(prediction, part, names)
        prediction.progress.raise_if_cancelled()
    places.remember(prediction.slide)


def to_geojson(prediction: Prediction, path: Path, genes: tuple[str, ...]) -> None:
    """Write tiles for QuPath (0.4 or later): squares in its pixels with measurements.

    QuPath crops slides to their scanned part if OpenSlide knows it (MIRAX, SCN), so the origin is the top
    left corner of that part, which is level-0 pixel ``chrep["origin_px"]`` (x, y) of the slide.

    Each tile has ``GENE calibrated`` and ``GENE raw`` (if the model has these variants) and
    ``gallery_distance``; if the model has intervals, also ``GENE interval_90`` (half width) and
    ``unlike_training``. The entry ``chrep`` of the collection holds the values' provenance.
    """
    columns = prediction.bundle.panel.indices(genes)
    variants = [v for v in (prediction.variants[-1], "raw") if v in prediction.variants]
    named = [
        (f"{gene} {variant}", values)
        for variant in dict.fromkeys(variants)
        for gene, values in zip(genes, prediction.values(columns, variant).T, strict=True)
    ]
    half, unlike = prediction.intervals(columns), prediction.unlike()
    if half is not None:
        named += [(f"{gene} {INTERVAL_LAYER}", values) for gene, values in zip(genes, half.T, strict=True)]
    named.append(("gallery_distance", prediction.distance()))
    if unlike is not None:
        named.append(("unlike_training", unlike))
    order = np.argsort(prediction.indices)
    origin = (prediction.slide.bounds or (0, 0))[:2]
    corners = tile_corners(prediction)[order] - origin
    facts = prediction.facts() | {"origin_px": list(origin)}
    with path.open("w", encoding="utf-8") as stream:
        stream.write(f'{_GEOJSON_START}{json.dumps(facts, allow_nan=False)}, "features": [\n')
        for number, (row, square) in enumerate(zip(order, corners, strict=True)):
            prediction.progress.raise_if_cancelled()
            measured = {name: float(f"{values[row]:.6g}") for name, values in named}
            ring = np.round([*square, square[0]], 2).tolist()
            feature = {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [ring]},
                "properties": {"objectType": "tile", "isLocked": True, "measurements": measured},
            }
            stream.write((",\n" if number else "") + json.dumps(feature, allow_nan=False))
        stream.write("\n]}\n")


def to_spatialdata(prediction: Prediction, path: Path, genes: tuple[str, ...]) -> None:
    """Write a SpatialData store: the table ``prediction`` on the polygons ``tiles``.

    Coordinate system ``global`` is the slide's level-0 px, ``um`` is µm.
    """
    spatialdata = _spatialdata()
    from geopandas import GeoDataFrame
    from shapely import polygons
    from spatialdata.models import ShapesModel, TableModel
    from spatialdata.transformations import Identity, Scale

    mpp = prediction.slide.require_mpp()
    order = np.argsort(prediction.indices)
    table = prediction.to_anndata(genes)
    table.obs["region"] = TILES
    table.obs["region"] = table.obs["region"].astype("category")
    table.obs["tile"] = prediction.indices[order]
    squares = GeoDataFrame(
        {"geometry": polygons(tile_corners(prediction)[order])}, index=table.obs["tile"].to_numpy()
    )
    transformations = {"global": Identity(), "um": Scale([mpp, mpp], axes=("x", "y"))}
    store = spatialdata.SpatialData(
        shapes={TILES: ShapesModel.parse(squares, transformations=transformations)},
        tables={TABLE: TableModel.parse(table, region=TILES, region_key="region", instance_key="tile")},
    )
    store.write(path)


def tile_corners(prediction: Prediction) -> NDArray[np.float64]:
    """Return the corners (n, 4, 2) of the tiles in `prediction.indices`, (x, y) in level-0 px."""
    half = prediction.grid.tile_px / 2
    offsets = half * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
    corners: NDArray[np.float64] = prediction.grid.centres(prediction.indices)[:, None, :] + offsets
    return corners


def _write_h5ad(prediction: Prediction, path: Path, genes: tuple[str, ...]) -> None:
    import h5py

    table = prediction.to_layers(genes)
    spatial = spatial_facts(prediction.slide, prediction.grid.tile_px)
    arrays = [*table.layers.values(), *spatial["images"].values()]
    needed = _H5AD_AROUND + sum(np.asarray(array).nbytes for array in arrays)
    # Checked first, because the HDF5 library may crash the process later if the disk becomes full.
    if shutil.disk_usage(path.parent).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    table.uns["spatial"] = {library_of(prediction.slide): spatial}
    table.write_h5ad(path)
    with h5py.File(path, "r+") as file:
        file["X"] = file["layers"][prediction.variants[-1]]  # a hard link: the values are stored once


def _write_zarr(prediction: Prediction, path: Path, genes: tuple[str, ...]) -> None:
    prediction.to_anndata(genes).write_zarr(path)


def _spatialdata() -> Any:
    try:
        import spatialdata
    except ImportError as error:
        raise SettingsError(
            "the format spatialdata needs the package spatialdata, which is not installed",
            remedy="Install napari-chrep[spatialdata], or use --format zarr.",
        ) from error
    return spatialdata
