"""Visium HD: bins as they are, and summed to a size asked for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from chrep_model.cohorts.pair_check import check_section
from chrep_model.cohorts.readers import Options, find_source
from chrep_model.cohorts.section import read_section
from chrep_model.errors import CohortError

MPP = 0.5
SIDE = 48  # bins of 2 µm along a side


def fine_counts() -> np.ndarray:
    """Counts (row, col, gene) of the bins of 2 µm."""
    return np.random.default_rng(3).poisson(0.4, (SIDE, SIDE, 6))


def place(bins: np.ndarray, side: float) -> np.ndarray:
    """Return (x, y) of the centres of bins (row, col): the array turned by 90°, 30 px from the edge."""
    row, col = bins.T
    return np.stack([30 + (row + 0.5) * side / MPP, 30 + (SIDE * 2 / MPP) - (col + 0.5) * side / MPP], axis=1)


@pytest.fixture
def hd(tmp_path: Path, write_h5) -> Path:
    """A run with bins of 2 and 8 µm; the last three rows of 2 µm lie beside the tissue."""
    outs = tmp_path / "brain" / "outs"
    for side in (2, 8):
        times = side // 2
        fine = fine_counts()
        fine[SIDE - 3 :] = 0
        n = SIDE // times
        counts = fine.reshape(n, times, n, times, 6).sum(axis=(1, 3)).reshape(n * n, 6)
        bins = np.stack(np.meshgrid(np.arange(n), np.arange(n), indexing="ij"), axis=-1).reshape(-1, 2)
        folder = outs / "binned_outputs" / f"square_{side:03d}um"
        (folder / "spatial").mkdir(parents=True)
        inside = bins[:, 0] * times < SIDE - 3
        names = np.array([f"s_{side:03d}um_{r:05d}_{c:05d}-1" for r, c in bins])
        genes = [f"G{i}" for i in range(6)]
        types = ["Gene Expression"] * 6
        write_h5(folder / "filtered_feature_bc_matrix.h5", counts[inside], names[inside], genes, genes, types)
        xy = place(bins, side)
        pd.DataFrame(
            {
                "barcode": names,
                "in_tissue": inside.astype(int),
                "array_row": bins[:, 0],
                "array_col": bins[:, 1],
                "pxl_row_in_fullres": xy[:, 1],
                "pxl_col_in_fullres": xy[:, 0],
            }
        ).to_parquet(folder / "spatial" / "tissue_positions.parquet", index=False)
        scale = {"microns_per_pixel": MPP, "bin_size_um": float(side), "spot_diameter_fullres": side / MPP}
        (folder / "spatial" / "scalefactors_json.json").write_text(json.dumps(scale))
    Image.new("RGB", (300, 260), (200, 140, 190)).save(tmp_path / "brain" / "HE.png")
    return outs


def test_bins_as_they_are(hd):
    source = find_source(hd)
    assert (source.kind, source.name, source.picture().name) == ("Visium HD folder", "brain", "HE.png")
    table = source.read()  # the coarsest that is here
    assert table.facts == {"um_per_px": MPP, "spot_diameter_px": 16.0}
    spot = table.spot_ids.index("s_008um_00002_00005-1")
    assert table.xy[spot] == pytest.approx(place(np.array([[2, 5]]), 8)[0])
    fine = fine_counts()
    assert table.counts[spot].toarray().ravel().tolist() == fine[8:12, 20:24].sum(axis=(0, 1)).tolist()
    alone = find_source(hd / "binned_outputs" / "square_002um")
    assert alone.read().counts.shape == ((SIDE - 3) * SIDE, 6)
    assert alone.name == "brain"


@pytest.mark.parametrize(("bin_um", "times"), [(6, 3), (16, 8)])
def test_bins_are_summed(hd, bin_um, times):
    section = read_section(None, hd, bin_um=bin_um)
    n_rows, n_cols = (SIDE - 3) // times + ((SIDE - 3) % times >= times / 2), SIDE // times
    assert len(section) == n_rows * n_cols
    assert section.bin_um == bin_um
    assert section.spot_diameter_px == bin_um / MPP
    fine = fine_counts()
    fine[SIDE - 3 :] = 0
    right = fine[: n_rows * times].reshape(n_rows, times, n_cols, times, 6).sum(axis=(1, 3)).reshape(-1, 6)
    assert (section.counts.toarray() == right).all()
    squares = np.stack(np.meshgrid(np.arange(n_rows), np.arange(n_cols), indexing="ij"), -1).reshape(-1, 2)
    assert section.xy == pytest.approx(place(squares, bin_um))


def test_what_cannot_be_made_is_refused(hd):
    source = find_source(hd)
    for bin_um in (1.0, 5.0):
        with pytest.raises(CohortError, match=r"cannot be made of those that are here \(2, 8 µm\)"):
            source.with_options(Options(bin_um=bin_um)).read()
    scale = hd / "binned_outputs" / "square_008um" / "spatial" / "scalefactors_json.json"
    said = json.loads(scale.read_text())
    scale.write_text(json.dumps(said | {"bin_size_um": 16.0}))
    with pytest.raises(CohortError, match="bins of 16 µm, and by its name of 8"):
        source.read()
    scale.write_text(json.dumps(said | {"microns_per_pixel": 0.3}))
    with pytest.raises(CohortError, match=r"say 0.3 µm per px, and the bins 0.5"):
        source.read()


def test_columns_that_run_from_right_to_left_are_not_doubted(hd):
    section = read_section(None, hd, bin_um=16)
    mirrored = replace(section, xy=np.array([300, 0]) + section.xy * np.array([-1, 1]))
    named = replace(mirrored, spot_ids=tuple(f"spot{i}" for i in range(len(section))))
    said = [" ".join(finding.text for finding in check_section(each)) for each in (mirrored, named)]
    assert "mirrored" not in said[0] and "mirrored" in said[1]


def test_real_bins(shared_data):
    root = shared_data / "import_fixtures/VisiumIO/inst/extdata"
    table = find_source(root / "binned_outputs").read()
    positions = pd.read_parquet(root / "binned_outputs/square_002um/spatial/tissue_positions.parquet")
    positions = positions.set_index("barcode").loc[list(table.spot_ids)]
    assert table.xy.tolist() == positions[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy().tolist()
    assert table.facts["um_per_px"] == 0.2738242950835738
    assert table.facts["spot_diameter_px"] == pytest.approx(2 / 0.2738242950835738)
    assert table.counts.shape == (10, 10)
    with pytest.raises(CohortError, match=r"about 18878 x 23947 px.*--image"):
        read_section(None, root)
