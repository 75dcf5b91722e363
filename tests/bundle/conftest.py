"""Small bundles, and what it takes to damage them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chrep_model.bundle import Bundle, Card, load_bundle, save_bundle
from chrep_model.bundle.reading import folder_hash
from chrep_model.calibration.corrector import CorrectorSettings
from chrep_model.cohorts.gene_panel import GenePanel
from chrep_model.encoders.opening import open_encoder
from chrep_model.errors import BundleError
from chrep_model.methods.chrep import ChrepSettings
from chrep_model.methods.chrep.phase1 import Phase1Settings
from chrep_model.methods.method_settings import MethodSettings, make_method
from chrep_model.methods.model import FeatureScale, Model
from chrep_model.training.samples import SpotTable

DIM, GENES = 12, 9
SMALL = ChrepSettings(
    trees=5,
    phase1=Phase1Settings(members=1, epochs=2, inputs=8, dim=8, hidden=8),
    corrector=CorrectorSettings(epochs=2, hidden=8),
    k=10,
)


@pytest.fixture(scope="session")
def small_settings() -> ChrepSettings:
    """Settings of CHRep that fit in a second."""
    return SMALL


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Model]:
    """Fit a model of 9 genes on random spots: ``make_model(method="ridge", seed=0)``."""

    def make(method: str = "ridge", seed: int = 0) -> Model:
        rng = np.random.default_rng(seed)
        n = 60
        table = SpotTable(
            features=rng.standard_normal((n, DIM)).astype(np.float32),
            targets=rng.standard_normal((n, GENES)).astype(np.float32),
            section=np.repeat([0, 1, 2], 20),
            patient=np.repeat([0, 0, 1], 20),
            position=rng.uniform(0, 1000, (n, 2)),
            section_names=("A", "B", "Ö"),
            depth=np.full(n, 1000.0, np.float32),
        )
        genes = tuple(f"G{i}" for i in range(GENES))
        panel = GenePanel(genes, rng.uniform(0, 2, GENES), rng.uniform(0.5, 1, GENES))
        scale = FeatureScale(rng.standard_normal(DIM).astype(np.float32), np.full(DIM, 1.5, np.float32))
        return Model(panel, scale, make_method(method, MethodSettings(chrep=SMALL)).fit(table, seed=seed))

    return make


@pytest.fixture(scope="session")
def features() -> np.ndarray:
    """Features of 30 new tiles."""
    return np.random.default_rng(1).standard_normal((30, DIM)).astype(np.float32)


@pytest.fixture(scope="session")
def save(make_model) -> Callable[..., Bundle]:
    """Save a bundle: ``save(path, model=None, encoder=None, **changes)``, with a ridge unless given."""

    def save(path: Path, model: Model | None = None, encoder: Any = None, **changes: Any) -> Bundle:
        facts = {
            "weights": None, "context_um": (300.0,), "cohort": "cohort", "seed": 3, "note": "a note, µm",
            "sections": [{"name": "A", "patient": "P1", "slide": "A.jpg", "mpp": 0.7, "spots": 20}],
            "settings": {"genes": 9, "tile_um": 100.0, "chrep": SMALL.model_dump(mode="json")},
        }  # fmt: skip
        encoder = encoder or open_encoder(tile_um=100, mpp=2.0)
        return save_bundle(path, model or make_model(), encoder, **(facts | changes))

    return save


@pytest.fixture(scope="session")
def original(save, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a bundle (ridge). Only to be read."""
    return save(tmp_path_factory.mktemp("bundles") / "model.chrep").path


@pytest.fixture(scope="session")
def trusting(save, make_model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a bundle that knows how far to trust it (mean). Only to be read."""
    return save(tmp_path_factory.mktemp("bundles") / "mean.chrep", make_model("mean")).path


@pytest.fixture
def copy(original, tmp_path) -> Path:
    """Copy of `original`, to be damaged."""
    return Path(shutil.copytree(original, tmp_path / "model.chrep"))


def _contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def _edit_card(folder: Path, resealed: bool = False, **changes: Any) -> None:
    file = folder / "card.json"
    facts = json.loads(file.read_text(encoding="utf-8")) | changes
    if resealed:
        facts = json.loads(Card.model_validate(facts).sealed().model_dump_json())
    file.write_text(json.dumps(facts), encoding="utf-8")


def _reseal(folder: Path, name: str) -> None:
    facts = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    _edit_card(folder, resealed=True, files=facts["files"] | {name: folder_hash(folder / name)})


def _refused(folder: Path, *, match: str, file: str | None = None) -> BundleError:
    with pytest.raises(BundleError, match=match) as caught:
        loaded = load_bundle(folder)
        loaded.encoder()
        loaded.model  # noqa: B018
    assert caught.value.path == str(folder / file if file else folder)
    assert caught.value.remedy
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.fixture(scope="session")
def contents() -> Callable[[Path], dict[str, bytes]]:
    """``contents(folder)``: every file by name."""
    return _contents


@pytest.fixture(scope="session")
def edit_card() -> Callable[..., None]:
    """``edit_card(folder, resealed=False, **changes)``; `resealed` as somebody who writes bundles would."""
    return _edit_card


@pytest.fixture(scope="session")
def reseal() -> Callable[[Path, str], None]:
    """``reseal(folder, name)``: put the hash of a changed file on the card."""
    return _reseal


@pytest.fixture(scope="session")
def refused() -> Callable[..., BundleError]:
    """``refused(folder, match=..., file=None)``: loading (with model and encoder) fails in one clear line."""
    return _refused
