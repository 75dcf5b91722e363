"""``import chrep_model``: ten names, loaded on first use."""

from __future__ import annotations

import inspect
import shutil
import subprocess
import sys
from pathlib import Path

import anndata
import pytest

import chrep_model as chrep
from chrep_model import api
from chrep_model.errors import CohortError, ScaleError, SettingsError
from chrep_model.evaluation.benchmark import EvaluateSettings
from chrep_model.pipeline import TrainSettings

SAMPLE = Path(__file__).resolve().parents[1] / "sample_data"


def run_alone(code: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    return subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=120, check=True
    ).stdout


def test_importing_loads_nothing_and_opening_files_nothing_slow():
    heavy = {"torch", "timm", "qtpy", "napari", "PyQt6", "PySide6"}
    printed = run_alone(f"""
import sys
import chrep_model as chrep
print(len(sys.modules.keys() & {heavy!r}), "chrep_model.api" in sys.modules, "numpy" in sys.modules)
chrep.open_slide({str(SAMPLE / "SYNTHETIC_slide.ome.tif")!r}).close()
chrep.load_bundle({str(SAMPLE / "SYNTHETIC_demo.chrep")!r})
print(sorted(sys.modules.keys() & {heavy!r}))
""")
    assert printed.splitlines() == ["0 False False", "[]"]


def test_the_face_shows_the_functions_of_api():
    assert len(chrep.__all__) == 10 and set(chrep.__all__) <= set(dir(chrep))
    for name in chrep.__all__:
        assert getattr(chrep, name) is getattr(api, name)
        assert inspect.getdoc(getattr(chrep, name))
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = chrep.trian


@pytest.mark.parametrize("function, settings", [(api.train, TrainSettings), (api.evaluate, EvaluateSettings)])
def test_defaults_are_those_of_the_command_line(function, settings):
    shared = settings.model_fields.keys() & inspect.signature(function).parameters.keys()
    assert {"encoder", "genes"} < shared
    for name in shared - {"methods"}:
        assert inspect.signature(function).parameters[name].default == settings.model_fields[name].default


def test_what_is_wrong_is_refused_before_anything_is_computed(tiny_cohort, tiny_bundle, tmp_path):
    with pytest.raises(SettingsError, match="tile: Extra inputs"):
        chrep.train(tiny_cohort, tmp_path / "a.chrep", tile=100)
    spoilt = Path(shutil.copytree(tiny_cohort, tmp_path / "cohort"))
    path = min(spoilt.glob("*.h5ad"))
    table = anndata.read_h5ad(path)
    table.obsm["spatial"] = table.obsm["spatial"] * 0.1  # as in µm
    table.write_h5ad(path)
    for refused in (
        lambda: chrep.train(spoilt, tmp_path / "a.chrep"),
        lambda: chrep.calibrate(tiny_bundle, spoilt, tmp_path / "b.chrep"),
        lambda: chrep.evaluate(spoilt, tmp_path / "scores", methods=["mean"]),
    ):
        with pytest.raises(CohortError, match=f"section {path.stem} cannot be used"):
            refused()
    assert {found.name for found in tmp_path.iterdir()} == {"cohort"}


def test_a_region_of_a_slide_is_predicted(tiny_cohort, tiny_bundle, own_cache):
    picture = tiny_cohort / "SYNTHETIC_P1A.jpg"
    with pytest.raises(ScaleError, match="does not say its µm per pixel"):
        chrep.predict(picture, tiny_bundle)
    with chrep.open_slide(picture, mpp=0.7) as slide:
        prediction = chrep.predict(slide, str(tiny_bundle), region=(300, 400, 250, 350))
        whole = chrep.predict(slide, prediction.bundle)
    x, y = prediction.grid.centres(prediction.indices).T
    half = prediction.grid.tile_px / 2
    assert (x > 300 - half).all() and (x < 550 + half).all()
    assert (y > 400 - half).all() and (y < 750 + half).all()
    assert 0 < len(prediction) < len(whole)


@pytest.mark.parametrize(
    "region",
    [(0, 0, 0, 9), (0, 0, -9, 9), (0, 0, 9), (float("nan"), 0, 9, 9), (0, 0, float("inf"), 9), "0,0,9,9", 9],
)
def test_what_is_no_rectangle_is_refused(region):
    with pytest.raises(SettingsError, match="is no rectangle"):
        chrep.predict(SAMPLE / "SYNTHETIC_slide.ome.tif", SAMPLE / "SYNTHETIC_demo.chrep", region=region)


@pytest.mark.parametrize("genes", [True, 2.5, ["ERBB2"], None])
def test_genes_are_a_number_or_a_file(genes, tmp_path):
    with pytest.raises(SettingsError, match="a number or the path"):
        chrep.train(SAMPLE, tmp_path / "a.chrep", genes=genes)
    with pytest.raises(SettingsError, match="a number or the path"):
        chrep.evaluate(SAMPLE, tmp_path / "scores", genes=genes)


def test_one_method_is_named_without_a_list(tmp_path):
    with pytest.raises(SettingsError, match="no method called 'means'"):
        chrep.evaluate(SAMPLE, tmp_path, methods="means")


def test_methods_and_encoders_have_names():
    assert {"ridge", "chrep"} < set(chrep.list_methods())
    assert chrep.list_encoders("stain*") == ["stainbank"]
    assert "resnet18" in chrep.list_encoders("resnet*") and "stainbank" not in chrep.list_encoders("resnet*")
