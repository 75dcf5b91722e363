"""``chrep export``: every format from a stored prediction, and everything that it refuses."""

from __future__ import annotations

import json
import shutil

import anndata
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from chrep_model.prediction.stored import read_prediction


@pytest.fixture(scope="module")
def predicted(tiny_cohort, tiny_bundle, tmp_path_factory):
    """A folder with a slide and its prediction as h5ad. Only to be read."""
    from chrep_model.bundle import load_bundle
    from chrep_model.export.writing import write_prediction
    from chrep_model.prediction.predictor import Predictor
    from chrep_model.slides.slide import open_slide

    folder = tmp_path_factory.mktemp("predicted")
    shutil.copy(tiny_cohort / "SYNTHETIC_P1A.jpg", folder / "slide.jpg")
    predictor = Predictor(load_bundle(tiny_bundle), device="cpu", cache_dir=tmp_path_factory.mktemp("cache"))
    write_prediction(
        predictor.predict(open_slide(folder / "slide.jpg", mpp=0.7)), folder / "slide.h5ad", "h5ad"
    )
    return folder / "slide.h5ad"


@pytest.fixture
def source(predicted, tmp_path):
    """A copy of the prediction and its slide, to be damaged."""
    shutil.copytree(predicted.parent, tmp_path / "predicted")
    return tmp_path / "predicted" / predicted.name


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def test_tables_have_the_same_values(chrep, predicted, out):
    stored = anndata.read_h5ad(predicted)
    for name in ("a.h5ad", "a.zarr", "a.sdata.zarr"):
        result = chrep("export", predicted, "-o", out / name)
        assert (result.code, result.err) == (0, "")
        assert result.out == f"{out / name}: {stored.n_obs} tiles, 40 genes\n"
        again = read_prediction(out / name)
        np.testing.assert_array_equal(again.to_anndata().X, stored.X)
    for name, read in (("a.csv", pd.read_csv), ("a.parquet", pd.read_parquet)):
        assert chrep("export", predicted, "-o", out / name, "--genes", "ERBB2,CD3E").code == 0
        frame = read(out / name)
        np.testing.assert_allclose(frame[["ERBB2", "CD3E"]], stored[:, ["ERBB2", "CD3E"]].X, rtol=1e-5)
    assert chrep("export", out / "a.zarr", "-o", out / "b.zarr", "--format", "spatialdata").code == 0
    assert (out / "b.zarr" / "shapes" / "tiles").is_dir()


def test_maps_and_figures(chrep, predicted, out):
    assert chrep("export", predicted, "-o", out / "a.geojson", "--genes", "ERBB2").code == 0
    tiles = json.loads((out / "a.geojson").read_text(encoding="utf-8"))["features"]
    assert len(tiles) == anndata.read_h5ad(predicted).n_obs
    assert chrep("export", predicted, "-o", out / "a.ome.zarr", "--genes", "ERBB2").code == 0
    assert (out / "a.ome.zarr" / "0").is_dir()
    for name, start in (("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.pdf", b"%PDF")):
        result = chrep("export", predicted, "-o", out / name, "--genes", "ERBB2")
        assert result.out.endswith(" tiles, 1 gene\n") and (out / name).read_bytes().startswith(start)
    with Image.open(out / "a.png") as figure:
        assert figure.width > figure.height > 300


def test_a_prediction_is_replaced_and_a_picture_is_not(chrep, predicted, refused, out):
    target, figure = out / "a.h5ad", out / "a.png"
    assert chrep("export", predicted, "-o", target, "--genes", "ERBB2").code == 0
    assert chrep("export", predicted, "-o", target).code == 0
    assert anndata.read_h5ad(target).n_vars == 40
    figure.write_bytes(b"a slide, perhaps")
    said = refused("export", predicted, "-o", figure, "--genes", "ERBB2", left=("a.h5ad", "a.png"))
    assert "there is a file under this name already. Remove it" in said
    assert figure.read_bytes() == b"a slide, perhaps"


def test_without_the_slide(chrep, source, refused, out, monkeypatch):
    (source.parent / "slide.jpg").unlink()
    monkeypatch.setenv("CHREP_CACHE", str(source.parent / "another computer"))
    assert chrep("export", source, "-o", out / "a.h5ad").err == ""  # the picture in the file does
    said = refused("export", source, "-o", out / "a.pdf", "--genes", "ERBB2", left=("a.h5ad",))
    assert "slide.jpg: the slide is not here" in said
    import h5py

    with h5py.File(source, "r+") as file:  # as an earlier version wrote it
        del file["X"], file["uns/spatial"]
    result = chrep("export", source, "-o", out / "b.zarr")
    assert result.code == 0 and result.err.count("\n") == 1
    assert "has no picture of the slide: slide.jpg was not found" in result.err
    assert chrep("export", source, "-o", out / "b.csv").err == ""


def test_what_is_refused(chrep, predicted, source, refused, out, tmp_path):
    assert "a.txt says no format. End it in .h5ad" in refused("export", predicted, "-o", out / "a.txt")
    assert "End it in .csv" in refused("export", predicted, "-o", out / "a.zarr", "--format", "csv")
    assert "there is no format 'xls'" in refused("export", predicted, "-o", out / "a.xls", "--format", "xls")
    said = refused("export", predicted, "-o", out / "a.csv", "--genes", "ERBB22")
    assert said.startswith(f"chrep: {predicted}: ") and "Nearest to 'ERBB22': ERBB2" in said
    assert "these are 40. Name one" in refused("export", predicted, "-o", out / "a.svg")
    assert "40 genes are too many for GeoJSON" in refused("export", predicted, "-o", out / "a.geojson")
    assert "is the prediction itself" in refused("export", source, "-o", source)
    measured = tmp_path / "measured.h5ad"
    anndata.AnnData(np.eye(3)).write_h5ad(measured)
    assert "not overwritten" in refused("export", predicted, "-o", measured)
    assert anndata.read_h5ad(measured).n_obs == 3
    for wrong in (predicted.parent / "slide.jpg", tmp_path / "none.h5ad", tmp_path):
        said = refused("export", wrong, "-o", out / "a.csv")
        assert said.startswith(f"chrep: {wrong}: this is no prediction as AnnData or SpatialData")
    source.write_bytes(source.read_bytes()[:5000])
    assert "damaged" in refused("export", source, "-o", out / "a.csv")
    assert chrep("export", predicted).code == 2


def test_help_has_examples(chrep):
    said = chrep("export", "--help").out
    assert "Examples:" in said and "-o slide.csv --genes ERBB2,CD3E" in said
