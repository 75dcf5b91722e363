"""What commands say about the sections of a cohort before they use them."""

from __future__ import annotations

import json
import shutil

import anndata
import numpy as np
import pytest

TRAIN = ("--method", "mean", "--genes", "10", "--tile-um", "100", "--mpp", "1", "--context-um", "none")
NAMES = ("SYNTHETIC_P1A", "SYNTHETIC_P1B", "SYNTHETIC_P2A")


@pytest.fixture
def spoilt(tiny_cohort, tmp_path):
    """Copy the tiny cohort, and change the table of its first section."""

    def make(alter):
        folder = tmp_path / "cohort"
        shutil.copytree(tiny_cohort, folder)
        (path,) = folder.glob(f"{NAMES[0]}.h5ad")
        table = anndata.read_h5ad(path)
        table = alter(table) or table
        table.write_h5ad(path)
        return folder

    return make


def in_micrometres(table):
    table.obsm["spatial"] = table.obsm["spatial"] * 0.1


def off_tissue(table):
    table.obs["in_tissue"] = [0] * 5 + [1] * (table.n_obs - 5)


def another_scale(table):
    table.uns["spatial"] = {"V1": {"scalefactors": {"microns_per_pixel": 0.35}}}


def commands(cohort, bundle, out):
    yield ("train", cohort, "-o", out / "a.chrep", *TRAIN)
    yield ("calibrate", bundle, cohort, "-o", out / "b.chrep")
    yield ("evaluate", cohort, "-o", out / "report", "--methods", "mean", "--jobs", "1")


def test_what_cannot_be_right_ends_every_command_before_it_begins(chrep, spoilt, tiny_bundle, tmp_path):
    cohort = spoilt(in_micrometres)
    for command in commands(cohort, tiny_bundle, tmp_path):
        result = chrep(*command)
        assert (result.code, result.out) == (1, ""), result
        (line,) = result.err.splitlines()
        assert f"section {NAMES[0]} cannot be used: " in line and "obsm['spatial'] must be px" in line
    assert not list(tmp_path.glob("*.chrep*"))


def test_info_says_all_and_fails(chrep, spoilt):
    result = chrep("info", spoilt(in_micrometres), "--json")
    assert result.code == 1 and f"section {NAMES[0]} cannot be used: " in result.err
    sections = json.loads(result.out)["sections"]
    assert sections[0]["findings"][0]["level"] == "error"
    others = [finding["level"] for section in sections[1:] for finding in section["findings"]]
    assert set(others) <= {"ok"}


def test_what_was_left_out_is_said_and_counted(chrep, spoilt, tiny_cohort):
    whole = json.loads(chrep("info", tiny_cohort, "--json").out)["sections"][0]["spots"]
    cohort = spoilt(off_tissue)
    result = chrep("info", cohort, "--json")
    assert result.code == 0
    assert result.err == (
        f"chrep: section {NAMES[0]}: 5 of {whole} spots have in_tissue 0 and are left out.\n"
    )
    section = json.loads(result.out)["sections"][0]
    assert section["spots"] == whole - 5
    assert section["findings"][0]["level"] == "ok"


def test_what_is_doubtful_is_a_warning_and_the_command_goes_on(chrep, spoilt, tmp_path):
    cohort = spoilt(another_scale)
    result = chrep("train", cohort, "-o", tmp_path / "a.chrep", *TRAIN)
    assert result.code == 0 and (tmp_path / "a.chrep" / "card.json").is_file()
    (line,) = result.err.splitlines()
    assert line.startswith(f"chrep: section {NAMES[0]}: warning: The scale factors say 0.35 µm/px, and 0.7")


def test_excluded_sections_are_not_looked_at(chrep, spoilt, tmp_path):
    cohort = spoilt(in_micrometres)
    result = chrep("train", cohort, "-o", tmp_path / "a.chrep", *TRAIN, "--exclude-sections", NAMES[0])
    assert (result.code, result.err) == (0, "")


def test_good_cohorts_say_nothing(chrep, tiny_cohort):
    assert chrep("info", tiny_cohort).err == ""


def test_calibrating_with_ids_in_place_of_symbols(chrep, tiny_cohort, tiny_bundle, tmp_path):
    folder = tmp_path / "ids"
    shutil.copytree(tiny_cohort, folder)
    for path in folder.glob("*.h5ad"):
        table = anndata.read_h5ad(path)
        table.var["feature_name"] = list(table.var_names)
        table.var_names = [f"ENSG{i:011d}.2" for i in range(table.n_vars)]
        table.write_h5ad(path)
    plain, by_ids = tmp_path / "plain.chrep", tmp_path / "ids.chrep"
    for cohort, out in ((tiny_cohort, plain), (folder, by_ids)):
        result = chrep("calibrate", tiny_bundle, cohort, "-o", out)
        assert result.code == 0, result.err
    from chrep_model.bundle import load_bundle

    one, other = (load_bundle(out).model for out in (plain, by_ids))
    assert one.panel.genes == other.panel.genes
    np.testing.assert_array_equal(one.fitted.gallery.expression, other.fitted.gallery.expression)
