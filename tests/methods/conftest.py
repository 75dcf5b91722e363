"""Small tables of spots in which features do say something of expression."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from chrep_model.calibration.corrector import CorrectorSettings
from chrep_model.methods import trees
from chrep_model.methods.bleep import BleepSettings
from chrep_model.methods.chrep import ChrepSettings
from chrep_model.methods.chrep.phase1 import Phase1Settings
from chrep_model.methods.hage_like import HageLikeSettings
from chrep_model.methods.heclip import HeclipSettings
from chrep_model.methods.mclstexp import MclstexpSettings
from chrep_model.methods.method_settings import MethodSettings
from chrep_model.training.samples import SpotTable

SMALL = ChrepSettings(
    trees=8,
    phase1=Phase1Settings(members=1, epochs=2, inputs=8, dim=8, hidden=8),
    corrector=CorrectorSettings(epochs=2, hidden=8),
    k=10,
)


_FEW: dict[str, Any] = {"epochs": 20, "batch": 40}


@pytest.fixture(scope="session")
def small_settings() -> ChrepSettings:
    """Settings of CHRep that fit in a second."""
    return SMALL


@pytest.fixture(scope="session")
def all_small() -> MethodSettings:
    """Settings of all methods that fit in a second."""
    return MethodSettings(
        bleep=BleepSettings(**_FEW, width=16),
        mclstexp=MclstexpSettings(**_FEW, width=16, lr=1e-3),
        heclip=HeclipSettings(**_FEW, width=16),
        hage_like=HageLikeSettings(**_FEW, dim=8, tokens=2),
        chrep=SMALL,
    )


@pytest.fixture
def few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forests of 8 trees."""
    monkeypatch.setattr(trees, "TREES", 8)


@pytest.fixture(scope="session")
def make_table() -> Callable[..., SpotTable]:
    """Make a table: ``make_table(sections=3, spots=49, dim=12, genes=15, seed=0)``."""
    mixing = np.random.default_rng(99).standard_normal((400, 100))

    def make(sections: int = 3, spots: int = 49, dim: int = 12, genes: int = 15, seed: int = 0) -> SpotTable:
        rng = np.random.default_rng(seed)
        n = sections * spots
        features = rng.standard_normal((n, dim)).astype(np.float32)
        signal = np.tanh(features @ mixing[:dim, :genes] / np.sqrt(dim))
        section = np.repeat(np.arange(sections), spots)
        side = int(np.ceil(np.sqrt(spots)))
        r, c = np.divmod(np.arange(spots), side)
        return SpotTable(
            features=features,
            targets=(signal + 0.5 * rng.standard_normal((n, genes))).astype(np.float32),
            section=section,
            patient=section // 2,
            position=np.tile(np.stack([c, r], axis=1) * 100.0, (sections, 1)),
            section_names=tuple(f"S{i}" for i in range(sections)),
            depth=np.full(n, 1000.0, np.float32),
        )

    return make


@pytest.fixture(scope="session")
def table(make_table: Callable[..., SpotTable]) -> SpotTable:
    return make_table()


@pytest.fixture(scope="session")
def unseen(make_table: Callable[..., SpotTable]) -> SpotTable:
    """Another draw from where `table` comes from."""
    return make_table(sections=1, spots=60, seed=7)
