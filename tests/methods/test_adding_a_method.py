"""A method registered outside of the package is compared, stored and predicted with like any other."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydantic import BaseModel, ConfigDict

from chrep_model.bundle import load_bundle
from chrep_model.cohorts.cohort import open_cohort
from chrep_model.errors import BundleError, SettingsError
from chrep_model.evaluation.benchmark import EvaluateSettings, evaluate
from chrep_model.evaluation.fits import FitTask, Plan
from chrep_model.evaluation.splits import Fold
from chrep_model.methods import registry
from chrep_model.methods.__main__ import table as printed_table
from chrep_model.methods.base import ALL, FittedMethod, Method, gallery_of
from chrep_model.methods.method_settings import MethodSettings
from chrep_model.methods.ridge import Ridge
from chrep_model.pipeline import TrainSettings, train
from chrep_model.prediction.predictor import Predictor
from chrep_model.slides.slide import open_slide

PAGE = Path(__file__).resolve().parents[2] / "docs" / "adding-a-method.md"
TILES = {"tile_um": 100, "mpp": 2.0, "context_um": (200.0,), "genes": 20}
TEST = "SYNTHETIC_P1A"


class NearestSettings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    factor: float = 1.0


class FittedNearest(FittedMethod):
    def __init__(self, factor, gallery):
        self.factor, self.gallery = factor, gallery

    def _respond(self, features, z):
        return {}

    def read(self, response, variant, genes=ALL):
        return self.factor * self.gallery.expression[response["neighbours"][:, 0]][:, genes]

    def arrays(self):
        return {"factor": np.array([self.factor], np.float32)}

    @classmethod
    def from_arrays(cls, arrays, gallery):
        return cls(arrays["factor"][0], gallery)


class Nearest(Method):
    """What was measured at the most similar training spot."""

    name = "nearest"
    title = "Nearest spot"
    description = "The spot that looks most alike, times a factor."
    kind = "rival"
    reference = "Nobody, Journal of Toys 1 (2026)."
    fitted_class = FittedNearest
    settings_class = NearestSettings

    def fit(self, table, *, seed, run=None):
        gallery = gallery_of(table, table.features / np.linalg.norm(table.features, axis=1, keepdims=True))
        return FittedNearest((self.settings or NearestSettings()).factor, gallery)


@pytest.fixture
def registered(monkeypatch):
    """Let a test register methods; they are forgotten after it."""
    known = {method.name: method for method in registry.every_method()}
    monkeypatch.setattr(registry, "_REGISTERED", known)
    yield registry.register
    for method in set(known) - set(registry.BUILT_IN):
        del known[method].fitted_class.name


@pytest.fixture
def nearest(registered):
    return registered(Nearest)


def test_it_is_compared_with_the_others(nearest, tiny_cohort, tmp_path):
    settings = EvaluateSettings(
        methods=("mean", "ridge", "nearest"), test_sections=(TEST,), nearest={"factor": 0.5}, **TILES
    )
    evaluate(open_cohort(tiny_cohort), settings, tmp_path / "out", device="cpu", cache=tmp_path / "cache")
    scores = pd.read_csv(tmp_path / "out" / "scores.csv")
    assert {"mean", "ridge", "nearest"} < set(scores["method"])
    found = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert found["trusted"]["nearest"] == "raw"
    assert found["settings"]["nearest"] == {"factor": 0.5}
    assert {d["reference"] for d in found["differences"] if d["against"] == "rival"} == {"nearest"}
    page = (tmp_path / "out" / "report.html").read_text()
    assert all(words in page for words in (nearest.title, nearest.description, nearest.reference))
    assert "the best published rival" in page


def test_a_bundle_of_it_predicts_where_it_is_known(nearest, tiny_cohort, tmp_path, monkeypatch):
    settings = TrainSettings(method="nearest", nearest=NearestSettings(factor=0.25), **TILES)
    bundle = train(
        open_cohort(tiny_cohort), settings, tmp_path / "a.chrep", device="cpu", cache=tmp_path / "cache"
    )
    card = json.loads((tmp_path / "a.chrep" / "card.json").read_text())
    assert (card["method"], card["settings"]["nearest"]) == ("nearest", {"factor": 0.25})
    assert "chrep" not in card["settings"]
    fitted = bundle.model.fitted
    assert isinstance(fitted, FittedNearest) and fitted.factor == 0.25
    slide = open_slide(tiny_cohort / f"{TEST}.jpg", mpp=0.7)
    values = Predictor(bundle, device="cpu", cache_dir=tmp_path / "cache").predict(slide).values(slice(None))
    assert values.shape[1] == 20 and np.isfinite(values).all() and values.std() > 0
    monkeypatch.setattr(registry, "_REGISTERED", {})
    with pytest.raises(BundleError, match="'nearest', which this version does not know"):
        _ = load_bundle(tmp_path / "a.chrep").model


def test_its_settings_are_known_while_it_is(nearest):
    assert MethodSettings(nearest={"factor": 3}).of("nearest") == NearestSettings(factor=3)
    assert MethodSettings().of("nearest") is None
    with pytest.raises(ValueError, match=r"nearest.fact\n.*Extra inputs are not permitted"):
        MethodSettings(nearest={"fact": 3})
    registry._REGISTERED.pop("nearest")
    with pytest.raises(ValueError, match=r"nearest\n.*Extra inputs are not permitted"):
        MethodSettings(nearest={"factor": 3})
    registry._REGISTERED["nearest"] = nearest


@pytest.mark.parametrize("missing", ["title", "kind", "fitted_class"])
def test_what_it_does_not_say_of_itself_is_noticed(registered, missing):
    said = {key: getattr(Nearest, key) for key in ("name", "title", "description", "kind", "fitted_class")}
    del said[missing]
    with pytest.raises(TypeError, match=f"Mute lacks {missing}$"):
        registered(type("Mute", (Method,), said))


def test_a_name_and_a_fitted_class_belong_to_one_method(nearest, registered):
    with pytest.raises(TypeError, match="called nearest already"):
        registered(Nearest)
    with pytest.raises(TypeError, match="FittedRidge belongs to the method ridge"):
        registered(type("Other", (Ridge,), {"name": "other"}))


def test_its_file_is_in_the_key_of_a_job(registered, tmp_path, monkeypatch):
    file = tmp_path / "pcr_of_a_user.py"
    file.write_text(example())
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("pcr_of_a_user")
    fold = Fold("A", "section", (), None)
    plan, job = Plan({"A": fold}, 5, MethodSettings(), "encoder", {"A": "digest"}), FitTask("pcr", "A", 0)
    before = plan.key(job)
    assert plan.key(job) == before
    file.write_text(example() + "# better\n")
    assert plan.key(job) != before
    monkeypatch.setattr(registry.find("pcr"), "__module__", "builtins")  # as if typed into a prompt
    with pytest.raises(SettingsError, match="pcr is not in a file"):
        plan.key(job)


def example() -> str:
    """Return the program of the page."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    return code


def test_the_example_of_the_page_works(tiny_cohort, tmp_path):
    (tmp_path / "pcr.py").write_text(example())
    (tmp_path / "few.yaml").write_text(
        "pcr: {components: 5}\ngenes: 20\ntile_um: 100\nmpp: 2.0\ncontext_um: [200.0]\n"
    )

    def run(*arguments: object, program: tuple[str, ...] = ("pcr.py",)) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *program, *map(str, arguments)]
        environment = os.environ | {"CHREP_CACHE": str(tmp_path / "cache")}
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280, check=False
        )

    methods = ("--methods", "mean,ridge,pcr", "--test-sections", TEST, "--jobs", "2")
    train_it = ("train", tiny_cohort, "-o", "pcr.chrep", "--method", "pcr", "--config", "few.yaml")
    predict_it = ("predict", tiny_cohort / f"{TEST}.jpg", "--mpp", "0.7", "-b", "pcr.chrep", "-o", "out")
    for arguments in (
        ("evaluate", tiny_cohort, "-o", "scores", *methods, "--config", "few.yaml"), train_it, predict_it
    ):  # fmt: skip
        done = run(*arguments)
        assert done.returncode == 0, done.stderr
    assert "pcr" in set(pd.read_csv(tmp_path / "scores" / "scores.csv")["method"])
    assert ">PCR<" in (tmp_path / "scores" / "report.html").read_text()
    assert json.loads((tmp_path / "pcr.chrep" / "card.json").read_text())["settings"]["pcr"] == {
        "components": 5
    }
    assert (tmp_path / "out" / f"{TEST}.h5ad").is_file()
    assert "pcr" in run("train", "--help").stdout
    without = run(*predict_it, program=("-c", "from chrep_model.cli import main; main()"))
    assert without.returncode == 1
    assert "the method 'pcr', which this version does not know" in without.stderr


def test_the_docs_list_all_methods():
    assert "\n".join(printed_table()) in PAGE.with_name("methods.md").read_text(encoding="utf-8")
