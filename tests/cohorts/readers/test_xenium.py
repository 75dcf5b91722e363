"""Xenium: cells brought onto the H&E by its alignment, and summed into squares."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from chrep_model.cohorts.readers import find_source
from chrep_model.cohorts.section import read_section
from chrep_model.errors import CohortError

HE_MPP = 0.425  # µm per px: one px of the H&E is two of the Xenium picture
WIDTH, HEIGHT = 640, 480


@pytest.fixture
def run(tmp_path: Path, write_h5) -> dict[str, object]:
    """A run of 300 cells; the H&E lies turned by 90° against the instrument's picture."""
    outs = tmp_path / "lung" / "outs"
    outs.mkdir(parents=True)
    rng = np.random.default_rng(5)
    he = rng.uniform((0, 0), (WIDTH, HEIGHT), (300, 2))
    # px of the H&E onto px of the instrument: (x, y) -> (2 y + 40, -2 x + 1400)
    matrix = np.array([[0, 2, 40], [-2, 0, 1400], [0, 0, 1]], float)
    um = (np.column_stack([he, np.ones(300)]) @ matrix.T)[:, :2] * 0.2125
    ids = [f"cell{i:03d}-1" for i in range(300)]
    cells = pd.DataFrame({"cell_id": ids, "x_centroid": um[:, 0], "y_centroid": um[:, 1], "area": 1.0})
    cells.sample(frac=1, random_state=1).to_parquet(outs / "cells.parquet", index=False)
    counts = rng.poisson(2, (300, 5))
    names = ["EPCAM", "CD3E", "NegControlProbe_00001", "UnassignedCodeword_0001", "BLANK_0001"]
    types = ["Gene Expression"] * 2 + ["Negative Control Probe", "Unassigned Codeword", "Gene Expression"]
    write_h5(outs / "cell_feature_matrix.h5", counts, ids, names, [f"E{i}" for i in range(5)], types)
    (outs / "experiment.xenium").write_text(json.dumps({"pixel_size": 0.2125}))
    Image.new("RGB", (WIDTH, HEIGHT), (200, 140, 190)).save(tmp_path / "lung" / "lung_he_image.png")
    alignment = tmp_path / "lung" / "lung_he_imagealignment.csv"
    pd.DataFrame(matrix).to_csv(alignment, header=False, index=False)
    return {"outs": outs, "he": he, "counts": counts[:, :2], "alignment": alignment, "cells": cells}


def test_cells_are_summed_into_squares_of_the_picture(run):
    section = read_section(None, run["outs"], bin_um=42.5)
    side = 100  # px
    squares = (run["he"] // side).astype(int)
    right = {}
    for (x, y), counts in zip(squares.tolist(), run["counts"], strict=True):
        if (x + 1) * side <= WIDTH and (y + 1) * side <= HEIGHT:
            right[x, y] = right.get((x, y), 0) + counts
    got = {
        (int(x // side), int(y // side)): counts
        for (x, y), counts in zip(section.xy, section.counts.toarray(), strict=True)
    }
    assert section.genes == ("EPCAM", "CD3E") and section.gene_ids == ("E0", "E1")
    assert section.mpp == pytest.approx(HE_MPP) and section.spot_diameter_px == pytest.approx(side)
    assert set(got) == set(right) and all((got[key] == right[key]).all() for key in right)
    assert section.xy % side == pytest.approx(np.full_like(section.xy, side / 2))
    said = " ".join(finding.text for finding in section.findings)
    assert ("squares of 42.5 µm" in said and "1 Negative Control Probe" in said) or "3 controls" in said


def test_what_cannot_be_right_is_refused(run, tmp_path):
    outs, alignment = run["outs"], run["alignment"]
    text = alignment.read_text()
    picture = tmp_path / "lung" / "lung_he_image.png"
    alignment.unlink()
    with pytest.raises(CohortError, match=r"picture is not here.*imagealignment.csv"):
        read_section(None, outs)
    with pytest.raises(CohortError, match=r"nothing says where the cells lie.*imagealignment.csv"):
        read_section(picture, outs)
    for wrong, why in (
        ("1,0,0\n0,1,0\n", "3 x 3 numbers"),
        ("2,0,0\n0,3,0\n0,0,1\n", "stretches"),
        ("2,0,5000\n0,2,0\n0,0,1\n", "of the cells lie in this picture"),
    ):
        alignment.write_text(wrong)
        with pytest.raises(CohortError, match=why):
            read_section(picture, outs)
    alignment.write_text(text)
    run["cells"].iloc[:-3].to_parquet(outs / "cells.parquet")
    with pytest.raises(CohortError, match="3 of its 300 cells have no position"):
        read_section(picture, outs)
    (outs / "cells.parquet").unlink()
    with pytest.raises(CohortError, match=r"cells.parquet .* is missing"):
        read_section(picture, outs)
    with gzip.open(outs / "cells.csv.gz", "wt") as stream:
        run["cells"].to_csv(stream)
    assert len(read_section(picture, outs)) > 3


def test_real_run(shared_data, tmp_path):
    folder = shared_data / "import_fixtures/mock/inst/extdata/xenium_mock_download"
    source = find_source(folder)
    assert (source.kind, source.name) == ("Xenium folder", "xenium_mock_download")
    with pytest.raises(CohortError, match=r"picture is not here.*imagealignment"):
        source.picture()
    Image.new("RGB", (1400, 1400), (200, 140, 190)).save(tmp_path / "he.png")
    (tmp_path / "he_imagealignment.csv").write_text("10,0,0\n0,10,0\n0,0,1\n")
    section = read_section(tmp_path / "he.png", folder, bin_um=212.5)
    cells = pd.read_csv(source.place / "cells.csv.gz")
    right = {tuple(pair) for pair in (cells[["x_centroid", "y_centroid"]].to_numpy() // 212.5).astype(int)}
    assert {tuple(pair) for pair in (section.xy // 100).astype(int)} == right
    assert section.mpp == pytest.approx(2.125)
    with h5py.File(source.place / "cell_feature_matrix.h5") as file:
        assert section.counts.sum() == file["matrix/data"][()].sum()
