"""Predictions on disk: what other programs read, and what happens when writing fails."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from chrep_model.errors import Cancelled, GeneError, PredictionError, SettingsError
from chrep_model.export.frames import harmless
from chrep_model.export.writing import (
    FORMATS,
    MOST_GENES,
    check_format,
    check_target,
    format_of,
    is_prediction,
    output_path,
    write_prediction,
)
from chrep_model.prediction.prediction import Prediction
from chrep_model.prediction.stored import read_prediction
from chrep_model.progress import Progress


@pytest.fixture
def genes(prediction):
    return prediction.genes[3:6]


def written(prediction, folder, format, genes=None):
    path = output_path(folder, prediction.slide.name, format)
    write_prediction(prediction, path, format, genes)
    assert [p.name for p in folder.iterdir()] == [path.name]
    return path


def test_h5ad_holds_what_the_contract_says(prediction, tmp_path):
    path = written(prediction, tmp_path, "h5ad")
    assert path.name == "SYNTHETIC_P1A.h5ad"
    table = anndata.read_h5ad(path)
    np.testing.assert_array_equal(table.X, table.layers["calibrated"])
    assert tuple(table.var_names) == prediction.genes
    order = np.argsort(prediction.indices)
    for variant in ("raw", "calibrated"):
        values = np.column_stack([prediction.gene(name, variant) for name in prediction.genes])
        np.testing.assert_allclose(table.layers[variant], values[order], rtol=1e-4, atol=1e-5)
        assert table.layers[variant].dtype == np.float32
    np.testing.assert_array_equal(table.obsm["spatial"], prediction.grid.centres(np.sort(prediction.indices)))
    np.testing.assert_array_equal(table.obs["gallery_distance"], prediction.distance()[order])
    facts = table.uns["chrep"]
    assert facts["bundle_hash"] == prediction.bundle.hash
    assert (facts["mpp"], facts["mpp_source"], facts["tile_px"]) == (0.7, "user", 100)
    assert "log10-spot" in facts["units"] and facts["chrep_version"]


def test_zarr_holds_the_same_table(prediction, genes, tmp_path):
    table = anndata.read_zarr(written(prediction, tmp_path, "zarr", genes))
    assert tuple(table.var_names) == genes
    for held in (table, prediction.to_anndata(genes)):
        np.testing.assert_array_equal(held.layers["raw"], table.layers["raw"])
        np.testing.assert_array_equal(held.X, table.layers["calibrated"])


def test_spatialdata_ties_the_table_to_the_tiles(prediction, genes, tmp_path):
    spatialdata = pytest.importorskip("spatialdata")
    store = spatialdata.read_zarr(written(prediction, tmp_path, "spatialdata", genes))
    tiles, table = spatialdata.match_element_to_table(store, "tiles", "prediction")
    tiles = tiles["tiles"]
    assert len(tiles) == table.n_obs == len(prediction)
    centres = np.column_stack([tiles.geometry.centroid.x, tiles.geometry.centroid.y])
    np.testing.assert_allclose(centres, table.obsm["spatial"])
    assert np.sqrt(tiles.geometry.area).to_numpy() == pytest.approx(prediction.grid.tile_px)
    in_um = spatialdata.transform(store["tiles"], to_coordinate_system="um")
    assert np.sqrt(in_um.geometry.area).to_numpy() == pytest.approx(150.0)


@pytest.mark.parametrize(("format", "package"), [("spatialdata", "spatialdata"), ("ome-zarr", "ome_zarr")])
def test_what_to_install_is_said(monkeypatch, format, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SettingsError, match=r"Install napari-chrep\[spatialdata\]"):
        check_format(format, 1)


def test_ome_zarr_lies_over_the_slide(prediction, genes, tmp_path):
    pytest.importorskip("ome_zarr")
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    grid, kinds = prediction.grid, ("calibrated", "raw", "interval_90")
    path = written(prediction, tmp_path, "ome-zarr", genes)
    (node,) = Reader(parse_url(path))()
    said, image = node.metadata, np.asarray(node.data[0])
    assert said["channel_names"] == [f"{gene} {kind}" for gene in genes for kind in kinds]
    np.testing.assert_array_equal(image[0], prediction.map(genes[0]))
    np.testing.assert_array_equal(image[4], prediction.map(genes[1], "raw"))
    np.testing.assert_array_equal(image[8], prediction.on_grid(prediction.interval(genes[2])))
    assert image.dtype == np.float32 and np.isnan(image).any() == (len(prediction) < grid.size)
    assert said["visible"] == [True] + 8 * [False]
    low, high = said["contrast_limits"][0]
    assert np.nanmin(image[0]) <= low < high < np.nanmax(image[0])
    assert [axis.get("unit") for axis in said["axes"]] == [None, "micrometer", "micrometer"]
    scale, shift = said["coordinateTransformations"][0]
    x, y = grid.centres([grid.shape[1] + 2])[0]  # row 1, col 2; a slide's first pixel is centred on 0
    place = np.array(shift["translation"]) + np.array(scale["scale"]) * [0, 1, 2]
    assert place[1:] == pytest.approx((np.array([y, x]) - 0.5) * 0.7)


def test_parquet_holds_the_rows_of_the_csv(trusting, tmp_path):
    genes = trusting.genes[:2]
    frame = pd.read_parquet(written(trusting, tmp_path, "parquet", genes))
    csv = tmp_path / "csv"
    csv.mkdir()
    as_text = pd.read_csv(written(trusting, csv, "csv", genes))
    pd.testing.assert_frame_equal(frame, as_text, check_dtype=False, rtol=1e-5)
    assert frame[genes[0]].dtype == np.float32


def test_csv_columns(prediction, genes, tmp_path):
    frame = pd.read_csv(written(prediction, tmp_path, "csv", genes))
    named = list(frame)
    assert named[:7] == ["x_px", "y_px", "x_um", "y_um", "row", "col", "gallery_distance"]
    start = named.index(genes[0])
    assert named[start : start + 6] == [*genes, *(f"raw:{gene}" for gene in genes)]
    order = np.argsort(prediction.indices)
    np.testing.assert_allclose(frame[genes[0]], prediction.gene(genes[0])[order], rtol=1e-5)
    np.testing.assert_allclose(frame[f"raw:{genes[0]}"], prediction.gene(genes[0], "raw")[order], rtol=1e-5)
    np.testing.assert_allclose(frame["x_um"], frame["x_px"] * 0.7, atol=1e-2)
    np.testing.assert_allclose(
        frame[["x_px", "y_px"]], prediction.grid.centres(np.sort(prediction.indices)), atol=1e-2
    )


def test_csv_says_how_far_to_trust_it(trusting, tmp_path):
    genes = trusting.genes[:2]
    frame = pd.read_csv(written(trusting, tmp_path, "csv", genes))
    assert list(frame)[6:] == [
        "gallery_distance", "unlike_training", *genes, *(f"interval_90:{gene}" for gene in genes),
    ]  # fmt: skip
    order = np.argsort(trusting.indices)
    np.testing.assert_allclose(frame["unlike_training"], trusting.unlike()[order], atol=1e-6)
    np.testing.assert_allclose(
        frame[f"interval_90:{genes[1]}"], trusting.interval(genes[1])[order], rtol=1e-5
    )


@pytest.mark.parametrize("format", ["h5ad", "zarr"])
def test_tables_say_how_far_to_trust_them(trusting, tmp_path, format):
    genes = (trusting.genes[4], trusting.genes[1])
    path = written(trusting, tmp_path, format, genes)
    table = anndata.read_h5ad(path) if format == "h5ad" else anndata.read_zarr(path)
    order, trust = np.argsort(trusting.indices), trusting.bundle.trust
    assert set(table.layers) == {"raw", "interval_90"}
    for column, gene in enumerate(genes):
        np.testing.assert_allclose(
            table.layers["interval_90"][:, column], trusting.interval(gene)[order], rtol=1e-6
        )
    np.testing.assert_array_equal(table.obs["unlike_training"], trusting.unlike()[order])
    np.testing.assert_array_equal(table.var["accuracy"], trust.accuracy[[4, 1]])
    np.testing.assert_array_equal(table.var["predictable"], trust.predictable[[4, 1]])
    assert table.uns["chrep"]["unlike_share"] == trusting.unlike_share()


def test_geojson_says_how_far_to_trust_it(trusting, tmp_path):
    gene = trusting.genes[0]
    content = json.loads(written(trusting, tmp_path, "geojson", (gene,)).read_text(encoding="utf-8"))
    first = int(trusting.indices.argmin())
    measured = content["features"][0]["properties"]["measurements"]
    assert set(measured) == {f"{gene} raw", f"{gene} interval_90", "gallery_distance", "unlike_training"}
    assert measured[f"{gene} interval_90"] == pytest.approx(trusting.interval(gene)[first], rel=1e-4)
    assert measured["unlike_training"] == pytest.approx(trusting.unlike()[first], rel=1e-4, abs=1e-6)
    assert content["chrep"]["unlike_share"] == trusting.unlike_share()


def test_csv_has_no_formulas():
    assert harmless("=HYPERLINK(1)") == "'=HYPERLINK(1)"
    assert harmless("HLA-A") == "HLA-A"


@pytest.mark.parametrize(
    ("first", "second", "format", "twice"),
    [("row", "A", "csv", "row"), ("x_px", "A", "parquet", "x_px"), ("=A", "'=A", "csv", "'=A")],
)
def test_a_gene_named_like_another_column(prediction, genes, tmp_path, first, second, format, twice):
    """Two columns of one name would be read as one, or under another name."""
    table = prediction.to_anndata(genes)
    table.var_names = [first, second, "B"]
    table.write_h5ad(tmp_path / "named.h5ad")
    named = read_prediction(tmp_path / "named.h5ad")
    out = tmp_path / f"out.{format}"
    with pytest.raises(PredictionError, match=f"would be called {twice}"):
        write_prediction(named, out, format)
    assert not out.exists()
    write_prediction(named, out, format, ("B",))


def test_geojson_is_what_qupath_imports(prediction, genes, tmp_path):
    content = json.loads(written(prediction, tmp_path, "geojson", genes).read_text(encoding="utf-8"))
    assert content["type"] == "FeatureCollection"
    assert content["chrep"]["bundle_hash"] == prediction.bundle.hash
    assert len(content["features"]) == len(prediction)
    first, index = content["features"][0], int(prediction.indices.min())
    (ring,) = first["geometry"]["coordinates"]
    assert first["geometry"]["type"] == "Polygon" and ring[0] == ring[-1] and len(ring) == 5
    assert np.mean(ring[:4], axis=0) == pytest.approx(prediction.grid.centres([index])[0], abs=0.02)
    assert np.ptp(ring, axis=0) == pytest.approx(prediction.grid.tile_px, abs=0.02)
    assert first["properties"]["objectType"] == "tile"
    measured = first["properties"]["measurements"]
    assert {f"{g} {v}" for g in genes for v in ("raw", "calibrated")} | {"gallery_distance"} <= set(measured)
    value = prediction.gene(genes[0])[prediction.indices == index][0]
    assert measured[f"{genes[0]} calibrated"] == pytest.approx(value, rel=1e-4)


def test_what_viewers_open_refuses_many_genes():
    for format, most in MOST_GENES.items():
        check_format(format, most)
        with pytest.raises(SettingsError, match="--genes"):
            check_format(format, most + 1)


@pytest.mark.parametrize(
    ("name", "format", "found"),
    [
        ("a.h5ad", None, "h5ad"), ("a.b.zarr", None, "zarr"), ("a.ome.zarr", None, "ome-zarr"),
        ("a.sdata.zarr", None, "spatialdata"), ("A.CSV", None, "csv"), ("a.pdf", None, "pdf"),
        ("a.zarr", "spatialdata", "spatialdata"), ("a.png", "png", "png"),
    ],
)  # fmt: skip
def test_a_name_says_the_format(name, format, found):
    assert format_of(Path(name), format) == found


def test_names_that_say_no_format_or_another(tmp_path):
    for name in ("prediction", "a.txt", "zarr"):
        with pytest.raises(SettingsError, match=r"says no format\. End it in \.h5ad, .*\.pdf"):
            format_of(tmp_path / name)
    with pytest.raises(SettingsError, match=r"no name for the format csv\. End it in \.csv"):
        format_of(tmp_path / "a.h5ad", "csv")
    with pytest.raises(SettingsError, match="no format 'xlsx'"):
        format_of(tmp_path / "a.xlsx", "xlsx")


def test_unknown_format_gene_and_nothing_predicted(prediction, tmp_path):
    with pytest.raises(SettingsError, match="h5ad, zarr, spatialdata, ome-zarr, csv, parquet, geojson"):
        check_format("xlsx", 1)
    with pytest.raises(GeneError, match="ERBB2"):
        write_prediction(prediction, tmp_path / "a.csv", "csv", ("ERBB22",))
    empty = Prediction(prediction.bundle, prediction.grid, prediction.slide)
    with pytest.raises(PredictionError, match="nothing is predicted"):
        write_prediction(empty, tmp_path / "a.csv", "csv")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", FORMATS)
def test_an_older_prediction_is_replaced(prediction, genes, tmp_path, format):
    path = written(prediction, tmp_path, format, genes[:1])
    assert is_prediction(path)
    written(prediction, tmp_path, format, genes)


def test_measured_counts_are_not_overwritten(prediction, tiny_cohort, tmp_path):
    path = tmp_path / "SYNTHETIC_P1A.h5ad"
    path.write_bytes((tiny_cohort / path.name).read_bytes())
    before = path.read_bytes()
    with pytest.raises(PredictionError, match="not overwritten"):
        write_prediction(prediction, path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["a.zarr", "a.ome.zarr", "a.h5ad", "a.csv", "a.parquet", "a.geojson"])
def test_what_is_not_ours_is_not_overwritten(tmp_path, name):
    path = tmp_path / name
    if path.suffix == ".zarr":
        path.mkdir()
        (path / ".zattrs").write_text("{}")
    else:
        path.write_text("x,y\n1,2\n")
    with pytest.raises(PredictionError, match="Choose another output folder"):
        check_target(path)


@pytest.mark.parametrize("format", ["h5ad", "zarr"])
def test_a_full_disk_leaves_the_old_file(prediction, genes, tmp_path, monkeypatch, format):
    path = written(prediction, tmp_path, format, genes)
    before = anndata.read_h5ad(path) if format == "h5ad" else anndata.read_zarr(path)

    def fail(self, target, *args, **kwargs):
        target.mkdir() if format == "zarr" else target.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(anndata.AnnData, f"write_{format}", fail)
    with pytest.raises(PredictionError, match="No space left on device"):
        write_prediction(prediction, path, format)
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    after = anndata.read_h5ad(path) if format == "h5ad" else anndata.read_zarr(path)
    np.testing.assert_array_equal(after.layers["raw"], before.layers["raw"])


def test_h5ad_is_not_begun_where_it_has_no_room(prediction, genes, tmp_path, monkeypatch):
    """HDF5 would bring the process down."""
    needed = len(prediction) * len(genes) * 4 * len(prediction.to_anndata(genes).layers)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed))
    monkeypatch.setattr(anndata.AnnData, "write_h5ad", None)
    with pytest.raises(PredictionError, match="No space left on device"):
        write_prediction(prediction, tmp_path / "a.h5ad", "h5ad", genes)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", FORMATS)
def test_a_stop_leaves_the_old_file(prediction, genes, tmp_path, format):
    path = written(prediction, tmp_path, format, genes[:1])
    asked = []

    def cancelled():
        asked.append(True)
        return len(asked) > 3

    with pytest.raises(Cancelled):
        write_prediction(prediction.within(None, progress=Progress(cancelled=cancelled)), path, format, genes)
    assert [p.name for p in tmp_path.iterdir()] == [path.name] and is_prediction(path)


def test_cancelling_leaves_nothing(prediction, tmp_path, monkeypatch):
    def interrupted(self, target, *args, **kwargs):
        target.write_bytes(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(anndata.AnnData, "write_h5ad", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_prediction(prediction, tmp_path / "a.h5ad")
    assert not list(tmp_path.iterdir())
