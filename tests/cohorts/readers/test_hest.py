"""HEST samples: three folders, scale and patient by the JSON file, axes that its makers exchanged."""

from __future__ import annotations

import json
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from chrep_model.cohorts.cohort import open_cohort
from chrep_model.cohorts.readers import find_source
from chrep_model.cohorts.section import read_section
from chrep_model.errors import CohortError


@pytest.fixture
def sample(tmp_path: Path, tissue_pictures) -> Path:
    """``st/T1.h5ad``, ``wsis/T1.png``, ``metadata/T1.json``; tissue in the left half of a square picture."""
    for folder in ("st", "wsis", "metadata"):
        (tmp_path / folder).mkdir()
    with Image.open(next(iter(tissue_pictures.values()))) as opened:
        half = opened.convert("RGB").resize((400, 800))
    picture = Image.new("RGB", (800, 800), (244, 244, 244))
    picture.paste(half, (0, 0))
    picture.save(tmp_path / "wsis" / "T1.png")
    write(tmp_path)
    return tmp_path


def right_xy() -> np.ndarray:
    return np.random.default_rng(2).uniform((80, 100), (320, 700), (40, 2))


def write(root: Path, *, exchanged: bool = False, columns: bool = False, **facts) -> None:
    rng = np.random.default_rng(1)
    table = anndata.AnnData(rng.poisson(3, (40, 6)).astype(np.float32))
    table.var_names = ["A", "B", "C", "D", "NegControlProbe_1", "BLANK_1"]
    xy = right_xy()[:, ::-1] if exchanged else right_xy()
    if columns:
        table.obs = pd.DataFrame(xy, columns=["x_pixel", "y_pixel"], index=table.obs_names)
    else:
        table.obsm["spatial"] = xy
    table.write_h5ad(root / "st" / "T1.h5ad")
    known = {
        "id": "T1",
        "st_technology": "Xenium",
        "patient": "Patient 3",
        "pixel_size_um_estimated": 0.6,
        "spot_diameter": 55.0,
        "fullres_px_width": 800,
        "fullres_px_height": 800,
    }
    (root / "metadata" / "T1.json").write_text(json.dumps(known | facts))


@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("exchanged", [False, True])
def test_a_sample(sample, exchanged, columns):
    write(sample, exchanged=exchanged, columns=columns)
    (section,) = open_cohort(sample)
    assert (section.name, section.patient, section.mpp) == ("T1", "Patient 3", 0.6)
    assert section.slide_path.name == "T1.png"
    assert section.xy == pytest.approx(right_xy())
    assert section.spot_diameter_px == pytest.approx(55 / 0.6)
    assert any("exchanged" in finding.text for finding in section.findings) == exchanged
    if columns:
        assert section.genes == ("A", "B", "C", "D")


def test_what_cannot_be_right_is_refused(sample):
    write(sample, fullres_px_width=8000, fullres_px_height=8000)
    with pytest.raises(CohortError, match=r"it is 800 x 800 px, and the positions are in px of one of 8000"):
        open_cohort(sample)
    write(sample, pixel_size_um_estimated=None)
    with pytest.raises(CohortError, match="um_per_px"):
        open_cohort(sample)
    (sample / "wsis" / "T1.png").unlink()
    with pytest.raises(CohortError, match=r"picture is not here.*wsis/T1.tif"):
        open_cohort(sample)


def test_real_sample_with_exchanged_axes(shared_data):
    folder = shared_data / "hest_ncbi858"
    source = find_source(folder)
    assert (source.kind, source.name) == ("HEST sample", "NCBI858")
    section = read_section(None, folder, um_per_px=2.125)
    table = anndata.read_h5ad(folder / "NCBI858.h5ad")
    assert (section.xy == table.obs[["y_pixel", "x_pixel"]].to_numpy()).all()
    assert section.counts.shape == (200, 338) and section.counts.sum() == table.X.sum() == 45623
    assert any("exchanged" in finding.text for finding in section.findings)
    with pytest.raises(CohortError, match="um_per_px"):
        read_section(None, folder)
