"""A tiny CHRep bundle and its cohort: a retraining takes a few seconds, most of them for the start."""

from __future__ import annotations

from pathlib import Path

import pytest

from chrep_model.calibration.corrector import CorrectorSettings
from chrep_model.cohorts.cohort import Cohort, open_cohort
from chrep_model.methods.chrep import ChrepSettings
from chrep_model.methods.chrep.phase1 import Phase1Settings
from chrep_model.pipeline import TrainSettings, train

SMALL = ChrepSettings(
    trees=3,
    phase1=Phase1Settings(members=1, epochs=25, inputs=8, dim=8, hidden=8),
    corrector=CorrectorSettings(epochs=2, hidden=8),
    k=10,
)
COARSE = {"tile_um": 100, "mpp": 2.0, "context_um": (200.0,), "genes": 20, "chrep": SMALL}


@pytest.fixture(scope="session")
def coarse_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("retraining-cache")


@pytest.fixture(autouse=True)
def _own_cache(coarse_cache, monkeypatch):
    """Embeddings are shared by these tests, and by the processes that they start."""
    monkeypatch.setenv("CHREP_CACHE", str(coarse_cache))


@pytest.fixture(scope="session")
def small_cohort(tiny_cohort: Path) -> Cohort:
    return open_cohort(tiny_cohort)


@pytest.fixture(scope="session")
def small_bundle(small_cohort: Cohort, coarse_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CHRep on the first two of three sections. Only to be read."""
    out = tmp_path_factory.mktemp("small") / "small.chrep"
    part = small_cohort.only(small_cohort.names[:2])
    return train(part, TrainSettings(**COARSE), out, device="cpu", cache=coarse_cache).path
