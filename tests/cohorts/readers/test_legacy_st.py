"""Tables of legacy Spatial Transcriptomics arrays in the layouts that are around."""

from __future__ import annotations

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

MPP = 4.0
PITCH = 200 / MPP


def made(folder: Path, name: str, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return counts (named XxY) of all spots, and the selection: pixel positions, some spots not selected."""
    rng = np.random.default_rng(seed)
    spots = [(x, y) for x in range(2, 9) for y in range(3, 8)]
    counts = pd.DataFrame(
        rng.poisson(3, (len(spots), 8)),
        index=[f"{x}x{y}" for x, y in spots],
        columns=[f"GENE{i}" for i in range(8)],
    )
    jitter = rng.normal(0, 0.02, (len(spots), 2))
    new = np.array(spots) + jitter
    selection = pd.DataFrame(spots, columns=["x", "y"])
    selection[["new_x", "new_y"]] = new.round(2)
    selection[["pixel_x", "pixel_y"]] = (new.round(2) - 1) * PITCH + 7
    selection["selected"] = [int((x + y) % 4 != 0) for x, y in spots]
    Image.new("RGB", (480, 420), (200, 140, 190)).save(folder / f"{name}.jpg")
    return counts, selection


def assert_right(section, counts, selection) -> None:
    right = selection.set_index(counts.index)
    right = right[right["selected"] == 1]
    assert list(section.spot_ids) == list(right.index)
    assert (section.counts.toarray() == counts.loc[right.index].to_numpy()).all()
    assert section.xy == pytest.approx(right[["pixel_x", "pixel_y"]].to_numpy())
    assert section.mpp == pytest.approx(MPP, rel=5e-3)
    assert section.spot_diameter_px == pytest.approx(100 / MPP, rel=5e-3)


def test_tables_beside_one_another(tmp_path):
    counts, selection = made(tmp_path, "P2_ST_rep1", 1)
    counts.to_csv(tmp_path / "GSM4284316_P2_ST_rep1_stdata.tsv", sep="\t")
    selection.sample(frac=1, random_state=2).to_csv(
        tmp_path / "spot_data-selection-P2_ST_rep1.tsv", sep="\t", index=False
    )
    section = read_section(None, tmp_path)
    assert section.name == "P2_ST_rep1" and section.slide_path.name == "P2_ST_rep1.jpg"
    assert_right(section, counts, selection)


def test_folders_of_many_sections(tmp_path):
    expected = {}
    for folder in ("ST-cnts", "ST-spotfiles", "ST-imgs/A/A1", "ST-imgs/A/A2"):
        (tmp_path / folder).mkdir(parents=True)
    for seed, name in enumerate(("A1", "A2")):
        counts, selection = expected[name] = made(tmp_path / "ST-imgs" / "A" / name, "HE", seed)
        counts.to_csv(tmp_path / "ST-cnts" / f"{name}.tsv.gz", sep="\t")
        selection.to_csv(tmp_path / "ST-spotfiles" / f"{name}_selection.tsv", sep="\t", index=False)
    for cohort in (open_cohort(tmp_path), open_cohort(tmp_path / "ST-cnts")):
        assert cohort.names == ("A1", "A2")
        for section in cohort:
            assert section.slide_path.parent.name == section.name
            assert_right(section, *expected[section.name])


@pytest.mark.parametrize("transposed", [False, True])
def test_an_alignment_of_nine_numbers(tmp_path, transposed):
    counts, selection = made(tmp_path, "Rep11_MOB", 4)
    counts.to_csv(tmp_path / "Rep11_MOB_count_matrix-1.tsv", sep="\t")
    matrix = np.array([[PITCH, 0, 0], [0, PITCH, 0], [-43, -43, 1]])
    numbers = matrix.T if transposed else matrix
    (tmp_path / "Rep11_MOB_transformation.txt").write_text(" ".join(map(str, numbers.ravel())))
    section = read_section(None, tmp_path)
    assert section.name == "Rep11_MOB" and len(section) == len(counts)
    right = selection[["x", "y"]].to_numpy() * PITCH - 43
    assert section.xy == pytest.approx(right) and section.mpp == pytest.approx(MPP)


def test_what_does_not_belong_together_is_refused(tmp_path):
    counts, selection = made(tmp_path, "A1", 1)
    counts.to_csv(tmp_path / "A1.tsv", sep="\t")
    with pytest.raises(CohortError, match=r"its positions are missing.*selection file"):
        read_section(None, tmp_path)
    other = selection.assign(x=selection["x"] + 20, new_x=selection["new_x"] + 20)
    other.to_csv(tmp_path / "A1_selection.tsv", sep="\t", index=False)
    with pytest.raises(CohortError, match="of another section"):
        read_section(None, tmp_path)
    shuffled = selection.copy()
    places = selection[["pixel_x", "pixel_y"]].sample(frac=1, random_state=1)
    shuffled[["pixel_x", "pixel_y"]] = places.to_numpy()
    shuffled.to_csv(tmp_path / "A1_selection.tsv", sep="\t", index=False)
    with pytest.raises(CohortError, match="do not belong together"):
        read_section(None, tmp_path)
    selection.to_csv(tmp_path / "A1_selection.tsv", sep="\t", index=False)
    with Image.open(tmp_path / "A1.jpg") as full:
        full.resize((120, 105)).save(tmp_path / "A1.jpg")
    with pytest.raises(CohortError, match=r"120 x 105 px, and spots lie as far as .*reduced"):
        read_section(None, tmp_path)


def test_real_section_written_as_tables(shared_data, tmp_path):
    table = anndata.read_h5ad(shared_data / "her2st" / "C2.h5ad")
    array = table.obs[["array_x", "array_y"]].to_numpy()
    names = [f"{x:g}x{y:g}" for x, y in array]
    counts = pd.DataFrame(np.asarray(table.to_df()).astype(int), index=names, columns=table.var_names)
    counts.to_csv(tmp_path / "C2.tsv", sep="\t")
    selection = pd.DataFrame(array, columns=["x", "y"])
    selection[["pixel_x", "pixel_y"]] = table.obsm["spatial"]
    selection.to_csv(tmp_path / "C2_selection.tsv", sep="\t", index=False)
    (tmp_path / "C2.jpg").symlink_to(shared_data / "her2st" / "C2.jpg")
    source = find_source(tmp_path)
    read = source.read()
    assert read.counts.shape == table.shape and read.counts.sum() == table.X.sum()
    assert read.xy == pytest.approx(np.asarray(table.obsm["spatial"], float))
    assert read.facts["um_per_px"] == pytest.approx(table.uns["um_per_px"], rel=0.03)
    assert source.picture().name == "C2.jpg"
