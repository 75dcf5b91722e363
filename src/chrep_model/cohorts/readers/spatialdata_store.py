"""Read SpatialData stores: an image, the shapes of spots or bins on it, and a table of their counts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from chrep_model.cohorts.findings import Finding
from chrep_model.cohorts.h5ad import CountsFile
from chrep_model.cohorts.readers.gene_features import gene_counts
from chrep_model.cohorts.readers.lattice import fit_lattice
from chrep_model.cohorts.readers.matrix import Matrix
from chrep_model.cohorts.readers.source import Options, Reader
from chrep_model.errors import CohortError, damage_as_error
from chrep_model.slides.slide import open_slide, slide_name
from chrep_model.zarr_check import read_spatialdata

if TYPE_CHECKING:
    from chrep_model.geometry import FloatArray

KIND = "SpatialData store"
#: µm between rows and columns of Visium's array, see `spaceranger`.
_VISIUM_UM = (50.0 * np.sqrt(3), 50.0)
_WRITE_AGAIN = "Write the store again with a current spatialdata."


def _find(path: Path) -> Path | None:
    marked = path.is_dir() and any((path / name).is_file() for name in ("zarr.json", ".zgroup"))
    return path if marked and (path / "images").is_dir() and (path / "tables").is_dir() else None


def _name(store: Path) -> str:
    return slide_name(store)


def _picture(store: Path, options: Options) -> Path:
    """Return the store itself, since it holds the picture."""
    if options.image is not None and options.image.resolve() != store.resolve():
        raise CohortError(
            "a SpatialData store has its picture inside", path=options.image, remedy="Leave out --image."
        )
    return store


def _read(store: Path, options: Options) -> CountsFile:
    with damage_as_error(
        CohortError, "this store is damaged, or of a version that is not known", store, _WRITE_AGAIN
    ):
        try:
            data = read_spatialdata(store, CohortError)
        except ImportError as error:
            raise CohortError(
                "reading a SpatialData store needs the package spatialdata, which is not installed",
                path=store,
                remedy="Install napari-chrep[spatialdata].",
            ) from error
        return _joined(data, store)


def _joined(data: Any, store: Path) -> CountsFile:
    from scipy import sparse

    table = _table(data, store)
    attrs = table.uns["spatialdata_attrs"]
    regions = [attrs["region"]] if isinstance(attrs["region"], str) else list(attrs["region"])
    if len(regions) != 1:
        raise CohortError(
            f"its table is of several regions ({', '.join(regions)})",
            path=store,
            remedy="Write a store for each section.",
        )
    if regions[0] not in data.shapes:
        raise CohortError(
            f"its table is of {regions[0]!r}, which are no shapes",
            path=store,
            remedy="Tie the table to shapes (circles or polygons of the spots).",
        )
    if "in_tissue" in table.obs:
        table = table[table.obs["in_tissue"].astype(float) > 0]
    shapes = data.shapes[regions[0]]
    instances = table.obs[attrs["instance_key"]]
    if not instances.isin(shapes.index).all() or not len(table):
        raise CohortError(
            "spots of its table have no shape" if len(table) else "no spot of its table lies under tissue",
            path=store,
            remedy=_WRITE_AGAIN,
        )
    shapes = shapes.loc[instances]
    image = _image(data, store)
    to_px, scale = _onto_image(shapes, image, store)
    centres = shapes.geometry.centroid
    xy = np.column_stack([centres.x, centres.y, np.ones(len(shapes))]) @ to_px.T
    xy = np.ascontiguousarray(xy[:, :2])
    names = tuple(map(str, table.var_names))
    columns = {
        key: tuple(map(str, table.var[key])) for key in ("gene_ids", "feature_types") if key in table.var
    }
    matrix = Matrix(
        counts=sparse.csr_matrix(table.X),
        barcodes=tuple(map(str, table.obs_names)),
        names=names,
        ids=columns.get("gene_ids"),
        types=columns.get("feature_types"),
        path=store,
    )
    genes = gene_counts(matrix)
    facts: dict[str, Any] = {}
    if "radius" in shapes:
        facts["spot_diameter_px"] = 2 * scale * float(np.median(shapes["radius"]))
    findings = list(genes.findings)
    array = None
    if {"array_row", "array_col"} <= set(table.obs):
        array = table.obs[["array_row", "array_col"]].to_numpy().astype(np.int64)
        if (mpp := _visium_scale(array, xy)) is not None:
            facts["um_per_px"] = mpp
            findings.append(
                Finding("ok", f"{mpp:.4g} µm per px by the spots, which lie as on Visium's array.")
            )
    return CountsFile(
        genes.counts, genes.genes, matrix.barcodes, xy, genes.gene_ids, facts, array, tuple(findings)
    )


def _table(data: Any, store: Path) -> Any:
    tied = {name: table for name, table in data.tables.items() if "spatialdata_attrs" in table.uns}
    if len(tied) > 1 and "table" in tied:
        return tied["table"]
    if len(tied) != 1:
        what = f"has several tables ({', '.join(sorted(tied))})" if tied else "has no table of spots"
        raise CohortError(
            f"it {what}", path=store, remedy="Write a store with one table that is tied to shapes."
        )
    return next(iter(tied.values()))


def _image(data: Any, store: Path) -> Any:
    """Return the image element that `open_slide` uses as the slide."""
    from spatialdata.models import get_axes_names

    with open_slide(store) as slide:
        shape = slide.shape
    found = []
    for image in data.images.values():
        array = next(iter(image["scale0"].values())) if "scale0" in getattr(image, "children", {}) else image
        sizes = dict(zip(array.dims, array.shape, strict=True))
        if "y" in get_axes_names(image) and (sizes["y"], sizes["x"]) == shape:
            found.append(image)
    if len(found) != 1:
        raise CohortError(
            f"{len(found)} of its images have the size of the slide, {shape[1]} x {shape[0]} px",
            path=store,
            remedy="Keep one H&E image at full resolution in it.",
        )
    return found[0]


def _onto_image(shapes: Any, image: Any, store: Path) -> tuple[FloatArray, float]:
    """Return the matrix (3, 3) that converts coordinates of the shapes to px of the image, and its scale."""
    from spatialdata.transformations import get_transformation

    placed, pictured = (get_transformation(element, get_all=True) for element in (shapes, image))
    shared = sorted(set(placed) & set(pictured), key=lambda name: (name != "global", name))
    if not shared:
        raise CohortError(
            "its spots and its image have no coordinate system in common", path=store, remedy=_WRITE_AGAIN
        )
    spots, picture = (
        known[shared[0]].to_affine_matrix(input_axes=("x", "y"), output_axes=("x", "y"))
        for known in (placed, pictured)
    )
    to_px = np.linalg.inv(picture) @ spots
    return to_px, float(np.sqrt(abs(np.linalg.det(to_px[:2, :2]))))


def _visium_scale(array: np.ndarray, xy: FloatArray) -> float | None:
    try:
        lattice = fit_lattice(array, xy, *_VISIUM_UM)
    except ValueError:  # bins, or spots of another kind
        return None
    return None if lattice is None else lattice.mpp


def _hdf5(_: Path) -> list[Path]:
    return []


READER = Reader(kind=KIND, find=_find, name=_name, picture=_picture, read=_read, hdf5=_hdf5)
