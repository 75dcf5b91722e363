"""The exported table in the hands of scanpy and squidpy, and where its picture lies."""

from __future__ import annotations

import shutil

import anndata
import h5py
import matplotlib
import numpy as np
import pytest
import scanpy as sc
import squidpy as sq
from matplotlib import pyplot as plt

from chrep_model.export.writing import output_path, write_prediction
from chrep_model.prediction.prediction import Prediction
from chrep_model.prediction.stored import read_prediction
from chrep_model.prediction.table import PICTURE_UM, spatial_facts
from chrep_model.slides.absent import AbsentSlide
from chrep_model.slides.slide import open_slide

NAME = "SYNTHETIC_P1A"
READ = {"h5ad": anndata.read_h5ad, "zarr": anndata.read_zarr}


@pytest.fixture(autouse=True)
def _no_window(monkeypatch):
    before = matplotlib.get_backend()
    matplotlib.use("Agg")
    yield
    plt.close("all")
    matplotlib.use(before)


def written(prediction, folder, format="h5ad", genes=None):
    path = output_path(folder, prediction.slide.name, format)
    write_prediction(prediction, path, format, genes)
    return path


def of_tiles(format, path):
    """The table in a file of any of the three formats."""
    if format == "spatialdata":
        return anndata.read_zarr(path / "tables" / "prediction")
    return READ[format](path)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["h5ad", "zarr", "spatialdata"])
def test_scanpy_and_squidpy_work_on_the_file_as_it_is(prediction, tmp_path, format):
    table = of_tiles(format, written(prediction, tmp_path, format))
    gene, tile_px = prediction.genes[0], prediction.grid.tile_px
    sc.pp.pca(table, n_comps=5)
    sc.pp.neighbors(table, n_neighbors=5)
    assert table.obsm["X_pca"].shape == (len(prediction), 5) and table.obsp["connectivities"].nnz
    picture = table.uns["spatial"][NAME]["images"]["hires"]

    axes = sc.pl.embedding(table, basis="spatial", color=gene, show=False)
    shown = np.asarray(axes.collections[0].get_array())  # the highest is drawn last
    np.testing.assert_array_equal(shown, np.sort(table.obs_vector(gene)))
    (axes,) = sc.pl.spatial(table, color=gene, show=False, sort_order=False)
    np.testing.assert_array_equal(axes.images[0].get_array(), picture)
    circles = axes.collections[0]
    factor = table.uns["spatial"][NAME]["scalefactors"]["tissue_hires_scalef"]
    centres = [path.get_extents().get_points().mean(0) for path in circles.get_paths()]
    np.testing.assert_allclose(centres, table.obsm["spatial"] * factor, rtol=1e-6)

    axes = sq.pl.spatial_scatter(table, color=gene, shape="square", return_ax=True)
    boxes = [path.get_extents() for path in axes.collections[0].get_paths()]
    np.testing.assert_allclose([(box.width, box.height) for box in boxes], tile_px * factor, rtol=1e-5)
    np.testing.assert_allclose(
        [((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2) for box in boxes], table.obsm["spatial"] * factor
    )
    np.testing.assert_array_equal(axes.images[0].get_array(), picture)


def test_neighbours_and_morans_i(prediction, tmp_path):
    table = sc.read_h5ad(written(prediction, tmp_path))
    sq.gr.spatial_neighbors(table)
    rows, cols = table.obsp["spatial_connectivities"].nonzero()
    grid = table.obs[["row", "col"]].to_numpy()
    assert (np.abs(grid[rows] - grid[cols]).sum(1) == 1).all()  # the four beside it, although none was named
    sq.gr.spatial_autocorr(table, mode="moran", genes=list(table.var_names[:5]))
    assert np.isfinite(table.uns["moranI"]["I"]).all()
    # Half overlapping tiles cannot be strangers to their neighbours: a scrambled order of tiles would show.
    assert table.uns["moranI"]["I"].mean() > 0.3


def test_the_h5ad_holds_x_once(prediction, tmp_path):
    path = written(prediction, tmp_path)
    with h5py.File(path) as file:
        assert file["X"] == file["layers"]["calibrated"]  # two names of one array
    table = sc.read_h5ad(path)
    table.X[:] = 7  # as scanpy's in-place steps do
    assert table.layers["calibrated"].max() < 7
    own = prediction.to_anndata(prediction.genes[:3])
    own.X[:] = 7
    assert own.layers["calibrated"].max() < 7
    copied = tmp_path / "again.h5ad"
    sc.read_h5ad(path).write_h5ad(copied)
    np.testing.assert_array_equal(sc.read_h5ad(copied).X, prediction.to_anndata().X)


def test_a_model_with_raw_values_only(trusting, tmp_path):
    table = sc.read_h5ad(written(trusting, tmp_path))
    assert "calibrated" not in table.layers
    np.testing.assert_array_equal(table.X, table.layers["raw"])


def test_the_picture_is_the_slide_reduced(prediction):
    """Means over a tile agree between the slide and the picture, so that the scale factors are right."""
    facts, slide = spatial_facts(prediction.slide, prediction.grid.tile_px), prediction.slide
    picture, factors = facts["images"]["hires"], facts["scalefactors"]
    assert picture.dtype == np.uint8 and picture.ndim == 3
    assert slide.mpp.value / factors["tissue_hires_scalef"] == pytest.approx(PICTURE_UM, rel=0.05)
    assert factors["spot_diameter_fullres"] == prediction.grid.tile_px
    assert facts["metadata"]["source_image_path"] == f"{NAME}.jpg"  # and not where it lies
    side = prediction.grid.tile_px
    for x, y in prediction.grid.centres(prediction.indices[::9]):
        left, top = max(0, round(x - side / 2)), max(0, round(y - side / 2))
        right, bottom = (
            min(n, at + round(side)) for n, at in zip(slide.shape[::-1], (left, top), strict=True)
        )
        true = slide.read(top, left, bottom - top, right - left).mean((0, 1))
        box = np.rint(np.array([top, bottom, left, right]) * factors["tissue_hires_scalef"]).astype(int)
        np.testing.assert_allclose(picture[box[0] : box[1], box[2] : box[3]].mean((0, 1)), true, atol=4)


def test_large_slides_get_a_picture_of_bounded_size(tiny_cohort, prediction):
    slide = open_slide(tiny_cohort / f"{NAME}.jpg", mpp=100.0)  # as if it were 100 mm wide
    picture = spatial_facts(slide, prediction.grid.tile_px)["images"]["hires"]
    assert picture.shape[:2] == slide.shape and max(slide.shape) < 2000  # never enlarged


@pytest.fixture
def without_slide(prediction, tmp_path, tiny_cohort, monkeypatch):
    """A file of a prediction, with a copy of its slide that is gone now."""
    gone = tmp_path / "gone" / f"{NAME}.jpg"
    gone.parent.mkdir()
    shutil.copy(tiny_cohort / gone.name, gone)
    moved = Prediction(prediction.bundle, prediction.grid, open_slide(gone, mpp=0.7))
    for part in prediction._parts:
        moved.add(part)

    def write(format="h5ad"):
        path = written(moved, tmp_path, format)
        shutil.rmtree(gone.parent)
        return path

    return write


@pytest.mark.parametrize("format", ["h5ad", "zarr", "spatialdata"])
def test_the_picture_outlives_the_slide(without_slide, tmp_path, format):
    path = without_slide(format)
    stored = read_prediction(path)
    assert isinstance(stored.slide, AbsentSlide)
    again = of_tiles("h5ad", written(stored, tmp_path / "..", "h5ad"))
    before = of_tiles(format, path).uns["spatial"][NAME]
    np.testing.assert_array_equal(again.uns["spatial"][NAME]["images"]["hires"], before["images"]["hires"])
    assert again.uns["spatial"][NAME]["scalefactors"] == before["scalefactors"]
    np.testing.assert_array_equal(again.X, of_tiles(format, path).X)


def test_a_file_of_an_earlier_version_opens_and_is_exported_without_a_picture(without_slide, tmp_path):
    """Such files have no X, no picture, and values below 0."""
    path = without_slide()
    with h5py.File(path, "r+") as file:
        del file["X"], file["uns/spatial"]
        file["layers/calibrated"][0, 0] = -0.25
    stored = read_prediction(path)
    assert stored.gene(stored.genes[0])[0] == 0
    table = sc.read_h5ad(written(stored, tmp_path / ".."))
    assert table.X.min() == 0 == table.X[0, 0] and table.uns["spatial"][NAME]["images"] == {}
    sc.pp.pca(table, n_comps=3)
    sq.gr.spatial_neighbors(table)
    (axes,) = sc.pl.spatial(table, color=stored.genes[0], img_key=None, show=False)
    assert len(axes.collections[0].get_paths()) == len(stored) and not axes.images
    sq.pl.spatial_scatter(table, color=stored.genes[0], shape="square", img=False)


def test_a_slide_that_was_closed_leaves_no_picture(prediction, tiny_cohort):
    slide = open_slide(tiny_cohort / f"{NAME}.jpg", mpp=0.7)
    slide.close()
    facts = spatial_facts(slide, prediction.grid.tile_px)
    assert facts["images"] == {} and facts["scalefactors"]["tissue_hires_scalef"] == 1
