"""Predictions on slides whose scanned part lies in a larger canvas."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("openslide")

from chrep_model.bundle import load_bundle
from chrep_model.export.writing import tile_corners, write_prediction
from chrep_model.prediction.predictor import Predictor
from chrep_model.prediction.stored import read_prediction
from chrep_model.slides.slide import open_slide


def written(prediction, path):
    genes = prediction.genes[:1] if path.suffix == ".geojson" else None
    write_prediction(prediction, path, path.suffix[1:], genes)
    return path


def test_geojson_has_the_origin_of_qupath_which_cuts_to_the_scanned_part(
    tiny_cohort, trusting_bundle, write_scn, tmp_path
):
    picture = np.asarray(Image.open(tiny_cohort / "SYNTHETIC_P1A.jpg"))
    rows, cols = picture.shape[:2]
    path = write_scn("a.scn", picture, (700, 400), (cols + 1500, rows + 900), nm=700)
    with open_slide(path) as slide:
        predictor = Predictor(load_bundle(trusting_bundle), device="cpu", cache_dir=tmp_path / "cache")
        found = predictor.predict(slide)
        content = json.loads(written(found, tmp_path / "a.geojson").read_text(encoding="utf-8"))
        corners = np.array([feature["geometry"]["coordinates"][0] for feature in content["features"]])
        assert content["chrep"]["origin_px"] == [700, 400]
        np.testing.assert_allclose(
            corners + np.array([700, 400]), tile_corners(found)[:, [0, 1, 2, 3, 0]], atol=0.01
        )
        tile = found.grid.tile_px
        assert corners.min() >= -tile and (corners.max((0, 1)) <= (cols + tile, rows + tile)).all()
        stored_at = written(found, tmp_path / "a.zarr")
        path.unlink()
        again = read_prediction(stored_at)
    assert again.slide.bounds == (700, 400, cols, rows)
    other = written(again, tmp_path / "again.geojson")
    assert json.loads(other.read_text(encoding="utf-8"))["features"] == content["features"]
