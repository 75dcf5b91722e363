"""The script of docs/scanpy.md, run as a user would on a prediction by the sample model."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chrep_model.bundle import load_bundle
from chrep_model.export.writing import write_prediction
from chrep_model.prediction.predictor import Predictor
from chrep_model.slides.slide import open_slide

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "sample_data"


@pytest.fixture
def script(tmp_path):
    (code,) = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "docs" / "scanpy.md").read_text("utf-8"), re.M | re.S
    )
    path = tmp_path / "explore.py"
    path.write_text(code, encoding="utf-8")
    return path


@pytest.mark.slow
def test_the_script_runs_on_a_prediction(script, tmp_path, monkeypatch):
    assert "chrep" not in script.read_text("utf-8")  # scanpy and squidpy alone
    monkeypatch.setenv("CHREP_CACHE", str(tmp_path / "cache"))
    bundle, prediction = load_bundle(SAMPLE / "SYNTHETIC_demo.chrep"), tmp_path / "SYNTHETIC_slide.h5ad"
    with open_slide(SAMPLE / "SYNTHETIC_slide.ome.tif") as slide:
        write_prediction(
            Predictor(bundle, device="cpu", cache_dir=tmp_path / "cache").predict(slide), prediction
        )
    command = [sys.executable, "-P", "-W", "ignore", script, prediction, tmp_path / "pictures"]
    env = {**os.environ, "MPLBACKEND": "Agg"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    listed = [line.split() for line in done.stdout.splitlines() if len(line.split()) == 2]
    genes = {gene: float(moran) for gene, moran in listed if gene in bundle.genes}
    assert len(genes) == 10 and min(genes.values()) > 0.7  # the synthetic tissue has regions
    for name in ("tiles.png", "spots.png"):
        with Image.open(tmp_path / "pictures" / name) as picture:
            hue, saturation, _ = np.moveaxis(np.asarray(picture.convert("HSV")), -1, 0)
        # Greens and yellows of the map, of which H&E has none.
        assert ((hue > 35) & (hue < 150) & (saturation > 60)).mean() > 0.02
