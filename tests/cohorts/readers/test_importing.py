"""What another program left, written as plain pairs that give the same model."""

from __future__ import annotations

import errno

import anndata
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from chrep_model.cli import app
from chrep_model.cohorts import importing
from chrep_model.cohorts.cohort import open_cohort
from chrep_model.cohorts.readers import Options, find_source
from chrep_model.errors import CohortError
from chrep_model.progress import Progress


def chrep(*args: object):
    return CliRunner().invoke(app, [str(arg) for arg in args], prog_name="chrep")


def test_a_run_becomes_a_pair_with_a_picture_of_its_spots(make_outs, tmp_path):
    made, out, told = make_outs(raw=True), tmp_path / "out", []
    imported = importing.import_section(
        find_source(made.outs),
        out,
        name="T7",
        patient="P1",
        progress=Progress(advance=lambda *step: told.append(step)),
    )
    assert sorted(file.name for file in out.iterdir()) == ["T7.h5ad", "T7.jpg", "T7_spots.png"]
    table = anndata.read_h5ad(out / "T7.h5ad")
    right = made.counts.loc[list(table.obs_names), list(table.var_names)]
    assert (table.to_df().to_numpy() == right.to_numpy()).all() and table.shape == made.counts.shape
    assert (table.obsm["spatial"] == made.xy.loc[list(table.obs_names)].to_numpy()).all()
    assert len(table.obs[["array_row", "array_col"]].drop_duplicates()) == len(table)
    assert table.uns["patient"] == "P1" and table.uns["um_per_px"] == pytest.approx(0.7, rel=2e-3)
    assert dict(zip(table.var_names, table.var["gene_ids"], strict=True)) == made.ids
    assert (out / "T7.jpg").read_bytes() == made.picture.read_bytes()
    assert [step for step, _, _ in told] == [0, 1, 2, 3, 4]
    # The drawing shows the slide, and differs from it at the spots alone.
    with Image.open(imported.picture) as drawn, Image.open(made.picture) as slide:
        assert drawn.size == slide.size  # smaller than the drawing may be
        changed = np.abs(np.asarray(drawn, int) - np.asarray(slide.convert("RGB"), int)).max(axis=-1) > 8
    rows, cols = np.mgrid[: changed.shape[0], : changed.shape[1]]
    xy, radius = imported.section.xy, imported.section.spot_diameter_px / 2
    distance = np.min([np.hypot(cols - x, rows - y) for x, y in xy], axis=0)
    assert changed[distance < radius - 3].mean() > 0.9 and not changed[distance > radius + 3].any()


def test_the_command_says_what_came_of_it(make_outs, tmp_path):
    made, out = make_outs(), tmp_path / "out"
    done = chrep("import", made.outs.parent, "-o", out, "--patient", "P1", "--um-per-px", 0.71)
    assert done.exit_code == 0, done.output
    n = len(made.counts)
    assert f"A (Space Ranger folder): {n} spots, 23 genes" in done.output
    assert f"of {n} spots lie on tissue" in done.output and "A_spots.png" in done.output
    (section,) = open_cohort(out)
    assert (section.patient, section.mpp) == ("P1", 0.71)


def test_a_folder_of_runs_becomes_a_cohort(make_outs, tmp_path):
    for which, name in enumerate(("A", "B")):
        make_outs(name, which=which)
    done = chrep("import", tmp_path / "runs", "-o", tmp_path / "out", "--json")
    assert done.exit_code == 0 and '"spots_on_tissue"' in done.output
    assert open_cohort(tmp_path / "out").names == ("A", "B")
    done = chrep("import", tmp_path / "runs", "-o", tmp_path / "other", "--name", "X")
    assert done.exit_code == 1 and "one by one" in done.output and not (tmp_path / "other").exists()


def test_nothing_is_left_half_written(make_outs, tmp_path, monkeypatch):
    made, out = make_outs(), tmp_path / "out"
    source = find_source(made.outs)
    reduced = made.outs / "spatial" / "tissue_hires_image.png"
    with pytest.raises(CohortError, match="reduced"):
        importing.import_section(source.with_options(Options(image=reduced)), out)
    assert not out.exists()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(importing, "_draw", full)
    with pytest.raises(CohortError, match="No space left"):
        importing.import_section(source, out)
    assert list(out.iterdir()) == []
    monkeypatch.undo()
    importing.import_section(source, out)
    with pytest.raises(CohortError, match=r"A.h5ad, A.jpg, A_spots.png .* already.*--name"):
        importing.import_section(source, out)
    with pytest.raises(CohortError, match="cannot be the name of a file"):
        importing.import_section(source, out, name="../B")


@pytest.mark.slow
def test_folders_and_plain_pairs_give_the_same_model_bit_for_bit(make_outs, tmp_path):
    from chrep_model.calibration.corrector import CorrectorSettings
    from chrep_model.methods.chrep import ChrepSettings
    from chrep_model.methods.chrep.phase1 import Phase1Settings
    from chrep_model.pipeline import TrainSettings, train

    for which, name in enumerate(("A", "B")):
        made = make_outs(name, which=which)
        importing.import_section(find_source(made.outs), tmp_path / "pairs")
    chrep_settings = ChrepSettings(
        phase1=Phase1Settings(members=1, epochs=3), corrector=CorrectorSettings(epochs=3), k=10, trees=5
    )
    settings = TrainSettings(genes=15, context_um=(300.0,), chrep=chrep_settings)
    cards = []
    for kind in ("runs", "pairs"):
        cohort, bundle = open_cohort(tmp_path / kind), tmp_path / f"{kind}.chrep"
        made_of = train(cohort, settings, bundle, device="cpu", cache=tmp_path / f"cache-{kind}")
        cards.append(made_of.card.model_dump())
    first, second = cards
    assert set(first["files"]) >= {"weights.safetensors", "gallery.zarr", "genes.parquet"}
    for own in ("name", "created", "cohort", "seal"):
        for card in cards:
            card.pop(own, None)
    assert first == second  # with the hashes of weights, gallery and genes
    for file in ("weights.safetensors", "genes.parquet"):
        assert (tmp_path / "runs.chrep" / file).read_bytes() == (tmp_path / "pairs.chrep" / file).read_bytes()
