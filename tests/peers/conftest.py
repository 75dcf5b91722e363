"""Predictions as files for other programs."""

from __future__ import annotations

from pathlib import Path

import pytest

from chrep_model.bundle import load_bundle
from chrep_model.prediction.prediction import Prediction
from chrep_model.prediction.predictor import Predictor
from chrep_model.slides.slide import open_slide


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CHREP_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def prediction(tiny_cohort: Path, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Prediction:
    """A tiny section of 16 tiles and 40 genes. Only to be read."""
    cache = tmp_path_factory.mktemp("cache")
    predictor = Predictor(load_bundle(tiny_bundle), device="cpu", cache_dir=cache)
    return predictor.predict(open_slide(tiny_cohort / "SYNTHETIC_P1A.jpg", mpp=0.7))
