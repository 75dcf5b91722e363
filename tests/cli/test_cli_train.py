"""``chrep train``, ``calibrate`` and ``evaluate``: settings, and cohorts that are refused."""

from __future__ import annotations

import json
import shutil

import anndata
import numpy as np
import pytest

from chrep_model.bundle import load_bundle
from chrep_model.cli.options import merged
from chrep_model.errors import SettingsError


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def spoil(cohort, change):
    """Read one of a cohort's h5ad files, change it, and write it again."""
    path = cohort / "SYNTHETIC_P1B.h5ad"
    table = anndata.read_h5ad(path)
    table = change(table) or table
    table.write_h5ad(path)
    return path


def negative(table):
    table.X = table.X.astype(np.float32)
    table.X.data[0] = -3


def fractional(table):
    table.X = table.X.astype(np.float32)
    table.X.data[0] = 1.5


def duplicated(table):
    names = list(table.var_names)
    table.var_names = [*names[20:40], *names[20:]]  # a third of them, not the few symbols that have two ids


def outside(table):
    table.obsm["spatial"] = np.asarray(table.obsm["spatial"]) * 3


def placeless(table):
    del table.obsm["spatial"]


def scaleless(table):
    del table.uns["um_per_px"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (placeless, "obsm['spatial'] is missing"),
        (outside, "lie outside of the image"),
        (negative, "negative values"),
        (fractional, "not whole numbers, such as 1.5"),
        (duplicated, "occur more than once"),
        (scaleless, "um_per_px"),
    ],
)
def test_counts_that_are_none(refused, cohort, out, change, said):
    path = spoil(cohort, change)
    line = refused("train", cohort, "-o", out / "b.chrep", "--genes", 40)
    assert line.startswith(f"chrep: {path}: ") and said in line and line.rstrip().endswith(".")


def test_a_truncated_h5ad(refused, cohort, out):
    path = cohort / "SYNTHETIC_P1B.h5ad"
    path.write_bytes(path.read_bytes()[:5000])
    assert str(path) in refused("train", cohort, "-o", out / "b.chrep")


def test_a_cohort_of_one_section(refused, cohort, out):
    line = refused(
        "train", cohort, "-o", out / "b.chrep", "--exclude-sections", "SYNTHETIC_P1B,SYNTHETIC_P2A"
    )
    assert f"{cohort}: " in line and "at least two sections" in line and "exclude fewer" in line


@pytest.mark.real
def test_real_sections_that_are_too_coarse(chrep, shared_data, out, tmp_path):
    source = shared_data / "her2st_lowres"
    entries = "".join(f"- {{slide: {source}/A1.jpg, counts: {source}/A1.h5ad, name: {n}}}\n" for n in "ab")
    manifest = tmp_path / "cohort.yaml"
    manifest.write_text(f"sections:\n{entries}")
    result = chrep("train", manifest, "-o", out / "b.chrep")
    assert result.code == 1 and not list(out.glob("*"))
    *warned, line = result.err.splitlines()
    assert all("nuclei cannot be made out" in warning for warning in warned) and len(warned) == 2
    assert "A1.jpg: the slide has" in line and "too coarse" in line


def test_what_is_no_cohort(refused, out, tmp_path):
    assert "no such cohort" in refused("train", tmp_path / "no", "-o", out / "b.chrep")
    (tmp_path / "empty").mkdir()
    assert "no pair" in refused("train", tmp_path / "empty", "-o", out / "b.chrep")


def test_a_seed_that_is_none(chrep, refused, tiny_cohort, out):
    common = ("train", tiny_cohort, "-o", out / "b.chrep", "--seed")
    result = chrep(*common, -1)
    assert (result.code, result.out) == (2, "") and "'--seed'" in result.err and not out.exists()
    line = refused(*common, 2**32)
    assert "seed: " in line and "See `chrep train --help`." in line


def test_unknown_names(refused, tiny_cohort, out, tmp_path):
    common = ("train", tiny_cohort, "-o", out / "b.chrep")
    assert "SYNTHETIC_P1A" in refused(*common, "--exclude-sections", "SYNTHETIC_P1")
    assert "Choose from mean" in refused(*common, "--method", "magic")
    assert "stainbank" in refused(*common, "--encoder", "nosuch")
    (tmp_path / "genes.txt").write_text("ERBB22\nERBB23\n")
    line = refused(*common, "--genes", tmp_path / "genes.txt", "--method", "mean")
    assert "genes.txt" in line and "ERBB22" in line and "Nearest" in line
    assert "no.txt" in refused(*common, "--genes", tmp_path / "no.txt")


def test_genes_that_sections_lack_are_told_of(chrep, tiny_cohort, out, tmp_path):
    cohort = tmp_path / "cohort"
    shutil.copytree(tiny_cohort, cohort)
    path = spoil(cohort, lambda table: table[:, table.var_names != "ERBB2"].copy())
    assert "ERBB2" not in anndata.read_h5ad(path).var_names
    genes = ["ERBB2", "NOSUCH", *anndata.read_h5ad(path).var_names[:6]]
    (tmp_path / "genes.txt").write_text("\n".join(genes))
    options = ("--genes", tmp_path / "genes.txt", "--tile-um", 100, "--mpp", 2.0, "--context-um", "200")
    trained = chrep("train", cohort, "-o", out / "b.chrep", "--method", "mean", *options)
    evaluated = chrep("evaluate", cohort, "-o", out / "e", "--methods", "mean", "--jobs", 1, *options)
    for result in (trained, evaluated):
        assert result.code == 0, result.err
        assert "1 of 8 listed genes are in no training section and are left out: NOSUCH" in result.err
        assert "section SYNTHETIC_P1B did not measure 1 of the 7 genes (ERBB2)" in result.err
    assert load_bundle(out / "b.chrep").genes == (genes[0], *genes[2:])


def test_the_place_of_the_bundle_is_taken(refused, tiny_cohort, tmp_path):
    (tmp_path / "notes").mkdir()
    assert "something else than a bundle" in refused("train", tiny_cohort, "-o", tmp_path / "notes")


def test_wrong_settings(refused, tiny_cohort, out, tmp_path):
    config = tmp_path / "settings.yaml"
    common = ("train", tiny_cohort, "-o", out / "b.chrep", "--config", config)
    config.write_text("tile_um: -1\n")
    assert f"{config}: tile_um" in refused(*common)
    config.write_text("magic: 1\n")
    assert f"{config}: magic" in refused(*common)
    config.write_text("[1, 2\n")
    assert "cannot be read as YAML" in refused(*common)
    assert "cannot be read as YAML" in refused(*common[:-1], tmp_path / "no.yaml")
    assert "--context-um" in refused(*common[:-2], "--context-um", "far")


def test_options_win_over_the_file(tmp_path):
    config = tmp_path / "settings.yaml"
    config.write_text("seed: 3\ngenes: list.txt\nmethod: ridge\ncontext_um: [100]\n")
    assert merged(config, seed=None, genes=None, method="mean", context_um="none") == {
        "seed": 3, "genes": tmp_path / "list.txt", "method": "mean", "context_um": (),
    }  # fmt: skip
    assert merged(None, genes="40", context_um="300,600") == {"genes": 40, "context_um": (300.0, 600.0)}
    with pytest.raises(SettingsError):
        merged(None, context_um="x")


def test_train_and_calibrate(chrep, tiny_cohort, tiny_bundle, out):
    bundle = out / "ridge.chrep"
    args = ("--method", "ridge", "--genes", 30, "--context-um", "none", "--note", "SYNTHETIC", "--seed", 5)
    result = chrep("train", tiny_cohort, "-o", bundle, *args)
    assert (result.code, result.err) == (0, "")
    assert "ridge on stainbank, 30 genes" in result.out and str(bundle) in result.out
    assert "SYNTHETIC" in result.out.splitlines() and "\\n" not in result.out
    card = load_bundle(bundle).card
    assert (card.method, card.genes, card.context_um, card.note, card.seed) == (
        "ridge",
        30,
        [],
        "SYNTHETIC",
        5,
    )
    assert [p.name for p in out.iterdir()] == ["ridge.chrep"]
    failed = chrep("calibrate", bundle, tiny_cohort, "-o", out / "no.chrep")
    assert failed.code == 1 and "has no calibration" in failed.err
    result = chrep("calibrate", tiny_bundle, tiny_cohort, "-o", out / "new.chrep", "--json")
    assert (result.code, result.err) == (0, "")
    assert "calibrated on tiny" in json.loads(result.out)["note"]
    assert sorted(p.name for p in out.iterdir()) == ["new.chrep", "ridge.chrep"]


def test_a_fine_tuned_bundle_predicts(chrep, tiny_cohort, tiny_encoder, out, tmp_path):
    """And what an earlier training left beside it is thrown away with a word, or used when asked for."""
    encoder, weights = tiny_encoder
    config = tmp_path / "settings.yaml"
    config.write_text(
        "finetune: {epochs: 1, spots_per_section: 12}\n"
        "chrep: {k: 10, phase1: {members: 1, epochs: 2}, corrector: {epochs: 2}, calibration: literal}\n"
    )
    bundle, left = out / "tuned.chrep", out / "tuned.chrep.partial-training"
    left.mkdir(parents=True)
    (left / "encoder.0.safetensors").write_bytes(b"")
    command = ("train", tiny_cohort, "-o", bundle, "--finetune", "--encoder", encoder, "--weights", weights)
    command = (*command, "--mpp", 2.0, "--genes", 20, "--context-um", "none", "--config", config)
    result = chrep(*command)
    assert result.code == 0
    assert result.err.startswith(f"chrep: {left}: ") and "discarded" in result.err
    assert [p.name for p in out.iterdir()] == ["tuned.chrep"]
    assert load_bundle(bundle).card.settings["finetune"]["epochs"] == 1
    assert (bundle / "encoder.safetensors").read_bytes() != weights.read_bytes()
    slide = next(tiny_cohort.glob("*.jpg"))
    predict = ("predict", slide, "-b", bundle, "-o", tmp_path / "predicted", "--mpp", 0.7)
    assert chrep(*predict).code == 0
    predicted = anndata.read_h5ad(tmp_path / "predicted" / f"{slide.stem}.h5ad")
    assert predicted.n_vars == 20 and np.isfinite(predicted.layers["calibrated"]).all()
    left.mkdir()
    result = chrep(*command, "--resume")
    assert (result.code, result.err) == (0, "")
    assert [p.name for p in out.iterdir()] == ["tuned.chrep"]


def test_what_cannot_be_fine_tuned(refused, tiny_cohort, out):
    common = ("train", tiny_cohort, "-o", out / "b.chrep", "--finetune")
    assert "built-in encoder has no weights to fine-tune. Choose a timm model" in refused(*common)


def test_evaluate(chrep, tiny_cohort, out):
    args = (
        "--methods",
        "mean,ridge",
        "--genes",
        30,
        "--context-um",
        "none",
        "--test-sections",
        "SYNTHETIC_P2A",
    )
    result = chrep("evaluate", tiny_cohort, "-o", out, *args)
    assert (result.code, result.err) == (0, "")
    rows = [tuple(line.split()[:2]) for line in result.out.splitlines()[1:6]]
    variants = [(method, variant) for method in ("mean", "ridge") for variant in ("raw", "smoothed")]
    assert rows == [*variants, ("library_size_oracle", "raw")]
    assert str(out / "report.html") in result.out
    names = {"scores.csv", "per_gene.parquet", "intervals.parquet", "maps.parquet"}
    names |= {"summary.json", "report.html"}
    assert {p.name for p in out.iterdir()} == {*names, "jobs"}
    table = json.loads(chrep("evaluate", tiny_cohort, "-o", out, *args, "--json").out)
    assert table["scores"] and table["cohort"] == "tiny"


def test_evaluate_refuses(refused, tiny_cohort, out):
    common = ("evaluate", tiny_cohort, "-o", out)
    assert "Choose from mean" in refused(*common, "--methods", "mean,magic")
    line = refused(*common, "--split", "day")
    assert "split" in line and "See `chrep evaluate --help`." in line
    assert "--split section" in refused(*common, "--split", "patient", "--methods", "mean")
    assert "--seeds" in refused(*common, "--seeds", 0)
    assert "SYNTHETIC_P1A" in refused(*common, "--test-sections", "SYNTHETIC_P1")
