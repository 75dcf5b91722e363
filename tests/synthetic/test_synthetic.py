"""The generator behind the sample data: reproducible, readable, named SYNTHETIC, worth learning from."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import sparse

from chrep_model.errors import CohortError
from chrep_model.synthetic import (
    COMPARTMENTS,
    FEW_GENES,
    GENES,
    PATIENTS,
    PROGRAMMES,
    SCANNERS,
    Blueprint,
    SyntheticSection,
    make_section,
    write_section,
    write_slide,
    write_tiny_cohort,
)
from chrep_model.synthetic.cells import KINDS
from chrep_model.synthetic.layout import make_tissue
from chrep_model.synthetic.place_cells import make_cells
from chrep_model.synthetic.points import spread_out
from chrep_model.synthetic.render import render


def plan(seed: int = 3, patient: int = 0, scanner: int = 0, size: int = 900) -> Blueprint:
    return Blueprint(
        f"SYNTHETIC_test{seed}", PATIENTS[patient], SCANNERS[scanner], (size, size), 0.7, seed, 55.0, 60.0
    )


@pytest.fixture(scope="module")
def section() -> SyntheticSection:
    return make_section(plan())


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_cohort(folder, seed=1)
    return folder


def test_the_same_seed_gives_the_same_pixels_and_counts(section: SyntheticSection) -> None:
    again = make_section(plan())
    assert again.picture.tobytes() == section.picture.tobytes()
    assert (again.counts != section.counts).nnz == 0
    np.testing.assert_array_equal(again.xy, section.xy)


def test_another_seed_gives_another_section(section: SyntheticSection) -> None:
    other = make_section(plan(seed=4))
    assert (other.picture != section.picture).mean() > 0.3


def test_bands_leave_no_seam() -> None:
    """A picture drawn in bands and one drawn at once are alike, but for the camera's noise."""
    from chrep_model.synthetic import render as module

    quiet = replace(plan(size=500), scanner=replace(SCANNERS[0], grain=0.0))
    tissue = make_tissue(quiet)
    cells = make_cells(quiet, tissue)
    in_bands = render(quiet, tissue, cells).astype(int)
    band = module._BAND
    try:
        module._BAND = 10_000
        at_once = render(quiet, tissue, cells).astype(int)
    finally:
        module._BAND = band
    difference = np.abs(in_bands - at_once)
    # A rounding error may pick the neighbouring fibril in a pixel here and there.
    assert difference.max() <= 20
    assert (difference > 1).mean() < 0.001


def test_spots_lie_on_tissue_and_fractions_are_true(section: SyntheticSection) -> None:
    spots, mpp = section.spots, section.plan.mpp
    assert len(section.xy) == section.counts.shape[0] > 40
    assert spots.fractions.shape == (len(section.xy), len(COMPARTMENTS))
    assert (spots.fractions.sum(axis=1) >= 0.5).all()
    assert (spots.fractions.sum(axis=1) <= 1 + 1e-6).all()
    assert (section.xy > 0).all()
    assert (section.xy < 900).all()
    tissue = make_tissue(section.plan)
    for index in (0, len(section.xy) // 2):
        x, y = section.xy[index] * mpp / 2
        assert tissue.labels[int(y), int(x)] > 0 or spots.fractions[index].sum() < 1


def test_every_compartment_is_there_and_looks_its_part(section: SyntheticSection) -> None:
    tissue = make_tissue(section.plan)
    size = section.picture.shape[0]
    at = np.minimum((np.arange(size) + 0.5) * 0.35, tissue.labels.shape[0] - 1).astype(int)
    labels = tissue.labels[np.ix_(at, at)]
    mean = {
        name: section.picture[labels == i].astype(float).mean(axis=0)
        for i, name in enumerate(("glass", *COMPARTMENTS))
        if (labels == i).any()
    }
    assert set(mean) == {"glass", *COMPARTMENTS}
    assert mean["glass"].min() > 235
    assert mean["adipose"].min() > 200, "fat is mostly empty"
    assert mean["tumour"].mean() < mean["stroma"].mean() - 20, "nests are darker than collagen"
    assert mean["lymphoid"][0] < mean["stroma"][0] - 40, "lymphocytes take the red out"
    assert mean["stroma"][0] > mean["stroma"][1] + 40, "collagen is pink"
    assert mean["necrosis"].mean() > mean["tumour"].mean(), "necrosis is pale"


def test_nuclei_differ_by_kind(section: SyntheticSection) -> None:
    cells = make_cells(section.plan, make_tissue(section.plan))
    area = {k: float((cells.a * cells.b)[cells.kind == i].mean()) for i, k in enumerate(KINDS)}
    assert area["tumour"] > 1.5 * area["lymphocyte"]
    spindle = (cells.a / cells.b)[cells.kind == KINDS.index("fibroblast")]
    assert np.median(spindle) > 2.5


def test_spread_out_keeps_the_distance_and_leaves_no_hole() -> None:
    rng = np.random.default_rng(0)
    xy = rng.random((3000, 2)) * 100
    kept = spread_out(xy, 4.0, rng)
    gaps = np.hypot(*(xy[kept][:, None] - xy[kept][None]).transpose(2, 0, 1))
    np.fill_diagonal(gaps, 99)
    assert gaps.min() >= 4.0
    to_kept = np.hypot(*(xy[:, None] - xy[kept][None]).transpose(2, 0, 1)).min(axis=1)
    assert to_kept.max() < 4.0, "every dropped point has a kept one in the way"


def test_genes_are_unique_and_enough() -> None:
    assert len(set(GENES)) == len(GENES) >= 280
    assert set(FEW_GENES) < set(GENES)
    assert {"ERBB2", "COL1A1", "CD3E", "FABP4", "VEGFA"} <= set(FEW_GENES)


def test_tiny_cohort_follows_the_contract(tiny: Path) -> None:
    names = ["SYNTHETIC_P1A", "SYNTHETIC_P1B", "SYNTHETIC_P2A"]
    assert sorted(p.name for p in tiny.iterdir()) == sorted(
        f"{n}.{s}" for n in names for s in ("h5ad", "jpg")
    )
    patients = set()
    for name in names:
        table = anndata.read_h5ad(tiny / f"{name}.h5ad")
        assert sparse.issparse(table.X)
        assert table.X.format == "csr"
        assert table.X.dtype == np.int32
        assert table.X.min() >= 0
        assert 40 <= table.n_obs <= 65
        assert list(table.var_names) == list(FEW_GENES)
        assert table.uns["section"] == name
        assert table.uns["um_per_px"] == 0.7
        assert table.uns["spot_diameter_px"] == pytest.approx(55 / 0.7)
        assert "SYNTHETIC" in table.uns["note"]
        assert {f"fraction_{c}" for c in COMPARTMENTS} <= set(table.obs)
        patients.add(table.uns["patient"])
        with Image.open(tiny / f"{name}.jpg") as image:
            assert image.size == (768, 768)
            assert (table.obsm["spatial"] < 768).all()
    assert len(patients) == 2


def test_tiny_cohort_is_the_same_file_for_file(tiny: Path, tmp_path: Path) -> None:
    write_tiny_cohort(tmp_path, seed=1, n_sections=1)
    for path in tmp_path.iterdir():
        other = tiny / path.name
        if path.suffix == ".jpg":
            assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(other.read_bytes()).digest()
        else:
            one, two = anndata.read_h5ad(path), anndata.read_h5ad(other)
            assert (one.X != two.X).nnz == 0


def log_shares(section: SyntheticSection) -> np.ndarray:
    counts = section.counts.toarray().astype(float)
    return np.log10(1 + 1e4 * counts / counts.sum(axis=1, keepdims=True))


def colours(section: SyntheticSection) -> np.ndarray:
    """Mean and spread of each channel in 90 µm tiles, standardised within the section."""
    half, rows = int(45 / section.plan.mpp), []
    density = -np.log10((section.picture.astype(np.float32) + 1) / 256)
    for x, y in section.xy.astype(int):
        tile = density[max(y - half, 0) : y + half, max(x - half, 0) : x + half].reshape(-1, 3)
        quantiles = np.percentile(tile, [10, 50, 90], axis=0).ravel()
        rows.append(np.r_[tile.mean(axis=0), tile.std(axis=0), quantiles])
    table = np.array(rows)
    return (table - table.mean(axis=0)) / (table.std(axis=0) + 1e-9)


@pytest.mark.slow
def test_expression_can_be_learned_across_patients_and_noise_cannot() -> None:
    train = [make_section(plan(seed, 0, seed % 2, 1300)) for seed in (11, 12)]
    tested = make_section(plan(13, 1, 0, 1300))
    X = np.concatenate([colours(s) for s in train])
    Y = np.concatenate([log_shares(s) for s in train])
    weights = np.linalg.solve(X.T @ X + 30 * np.eye(X.shape[1]), X.T @ (Y - Y.mean(axis=0)))
    guess, truth = colours(tested) @ weights, log_shares(tested)
    r = np.array([np.corrcoef(guess[:, i], truth[:, i])[0, 1] for i in range(len(GENES))])
    score = {name: r[[GENES.index(g) for g in genes]].mean() for name, genes in PROGRAMMES.items()}
    for name in ("epithelium", "matrix", "adipose", "t cell"):
        assert score[name] > 0.3, (name, score)
    assert abs(score["noise"]) < 0.12


def test_scanners_and_patients_differ() -> None:
    first, second = (make_section(plan(5, 0, scanner, 700)) for scanner in (0, 1))
    assert first.counts.sum(axis=1).mean() > 1.5 * second.counts.sum(axis=1).mean()
    gap = first.picture.reshape(-1, 3).mean(axis=0) - second.picture.reshape(-1, 3).mean(axis=0)
    assert np.abs(gap).max() > 4


def test_small_and_oblong_sections_can_be_made() -> None:
    for shape in ((260, 300), (400, 1100)):
        made = make_section(replace(plan(2), shape=shape))
        assert made.picture.shape == (*shape, 3)


def test_tiff_section_and_slide(section: SyntheticSection, tmp_path: Path) -> None:
    write_section(section, tmp_path, suffix=".tif")
    with tifffile.TiffFile(tmp_path / f"{section.plan.name}.tif") as tiff:
        page = tiff.pages[0]
        assert page.is_tiled
        assert page.compression == tifffile.COMPRESSION.JPEG
        error = np.abs(page.asarray().astype(int) - section.picture).mean()
        assert error < 4
    slide = replace(plan(), name="SYNTHETIC_slide", shape=(1100, 1300))
    write_slide(slide, tmp_path)
    with tifffile.TiffFile(tmp_path / "SYNTHETIC_slide.ome.tif") as tiff:
        assert tiff.is_ome
        assert 'PhysicalSizeX="0.7"' in tiff.ome_metadata
        assert [level.shape for level in tiff.series[0].levels] == [(1100, 1300, 3), (550, 650, 3)]
    assert not list(tmp_path.glob("*partial*"))


def test_a_failed_write_leaves_nothing_behind(section: SyntheticSection, tmp_path: Path) -> None:
    (tmp_path / f"{section.plan.name}.jpg").mkdir()
    with pytest.raises(CohortError, match=r"SYNTHETIC.*cannot be written"):
        write_section(section, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"{section.plan.name}.jpg"]


def test_command_line_says_how(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "chrep_model.synthetic", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--seed" in done.stdout
