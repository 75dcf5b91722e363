"""A small real prediction."""

from __future__ import annotations

from pathlib import Path

import pytest

from chrep_model.bundle import load_bundle
from chrep_model.inference.prediction import Prediction
from chrep_model.inference.predictor import Predictor
from chrep_model.slides.slide import open_slide


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """Where slides lie is kept for one test only."""
    monkeypatch.setenv("CHREP_CACHE", str(tmp_path_factory.mktemp("own-cache")))


@pytest.fixture(scope="session")
def prediction(tiny_cohort: Path, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Prediction:
    """A tiny section predicted with half overlapping tiles. Only to be read."""
    slide = open_slide(tiny_cohort / "SYNTHETIC_P1A.jpg", mpp=0.7)
    predictor = Predictor(load_bundle(tiny_bundle), device="cpu", cache_dir=tmp_path_factory.mktemp("cache"))
    return predictor.predict(slide, stride=0.5)


@pytest.fixture(scope="session")
def trusting(
    tiny_cohort: Path, trusting_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Prediction:
    """A prediction by a model that says how far to trust it. Only to be read."""
    slide = open_slide(tiny_cohort / "SYNTHETIC_P1A.jpg", mpp=0.7)
    cache = tmp_path_factory.mktemp("cache")
    return Predictor(load_bundle(trusting_bundle), device="cpu", batch_size=7, cache_dir=cache).predict(slide)
