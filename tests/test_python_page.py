"""The scripts of docs/python.md, run one after the other as a reader would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import anndata
import pandas as pd
import pytest
from PIL import Image

import chrep_model as chrep

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.timeout(900)
def test_the_scripts_run_and_write_what_they_say(tmp_path):
    page = (ROOT / "docs" / "python.md").read_text("utf-8")
    assert all(f"`{name}`" in page for name in chrep.__all__)
    scripts = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    assert len(scripts) == 3
    (tmp_path / "sample_data").symlink_to(ROOT / "sample_data")
    env = {**os.environ, "CHREP_CACHE": str(tmp_path / "cache"), "MPLBACKEND": "Agg"}
    told = []
    for script in scripts:
        command = [sys.executable, "-P", "-W", "ignore", "-c", script]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=env, check=False)
        assert done.returncode == 0, done.stderr
        told.append(done.stdout)
    predicted = anndata.read_h5ad(tmp_path / "prediction.h5ad")
    assert told[0].startswith(
        f"<Prediction of 'SYNTHETIC_slide': {len(predicted)} tiles, 293 genes, by SYNTH"
    )
    with Image.open(tmp_path / "ERBB2.png") as picture:
        assert picture.width > 100
    assert "SYNTHETIC_P2B SYNTHETIC-2 187 0.68\n<Bundle 'mine': chrep on stainbank, 50" in told[1]
    assert "calibrated on sample_data from mine" in told[1]
    scores = pd.read_csv(tmp_path / "scores" / "scores.csv")
    assert set(scores["method"]) == {"mean", "knn", "ridge", "library_size_oracle"}
    report = Path(re.findall(r"^see (.*)$", told[2], re.M)[0])
    assert (tmp_path / report).is_file()
