"""Space Ranger folders: counts, positions, scale and picture; and what is wrong with some of them."""

from __future__ import annotations

import gzip
import json
import shutil

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from chrep_model.cohorts.cohort import open_cohort
from chrep_model.cohorts.readers import Options, find_source, open_source, read_pair
from chrep_model.cohorts.section import read_section
from chrep_model.errors import CohortError, SlideError


def assert_right(made, table) -> None:
    spots = list(table.spot_ids)
    assert set(spots) == set(made.counts.index)
    got = pd.DataFrame(table.counts.toarray(), index=spots, columns=table.genes)
    pd.testing.assert_frame_equal(got, made.counts.loc[spots], check_dtype=False, check_names=False)
    assert table.xy == pytest.approx(made.xy.loc[spots].to_numpy())
    assert dict(zip(table.genes, table.gene_ids, strict=True)) == made.ids
    # Positions are rounded to whole px.
    assert table.facts["um_per_px"] == pytest.approx(made.mpp, rel=2e-3)
    assert table.facts["spot_diameter_px"] == pytest.approx(55 / made.mpp, rel=2e-3)


@pytest.mark.parametrize(
    "options",
    [
        {"positions": "list"},
        {"positions": "list", "matrix": "mex", "raw": True},
        {},
        {"matrix": "mex"},
        {"raw": True},
        {"positions": "parquet"},
    ],
    ids=str,
)
def test_counts_positions_and_scale_are_right(make_outs, options):
    made = make_outs(**options)
    source = find_source(made.outs.parent)
    assert (source.name, source.kind, source.place) == ("A", "Space Ranger folder", made.outs)
    assert source.picture() == made.picture
    table = source.read()
    assert_right(made, table)
    said = " ".join(finding.text for finding in table.findings)
    assert "1 Antibody Capture" in said and "1 controls" in said and "GENE7" in said
    assert ("not under tissue" in said) == bool(options.get("raw"))


def test_a_section_has_its_picture_and_the_name_of_the_run(make_outs):
    made = make_outs("run7")
    section = read_section(None, made.outs, patient="P1")
    assert (section.name, section.patient, section.slide_path) == ("run7", "P1", made.picture)
    assert section.mpp == pytest.approx(0.7, rel=2e-3)


def test_the_picture_is_found_in_the_usual_places(make_outs):
    made = make_outs(picture=True)
    for place in (made.outs, made.outs.parent.parent, made.outs.parent / "images"):
        place.mkdir(exist_ok=True)
        target = place / "scan.jpg"
        made.picture.rename(target)
        assert find_source(made.outs).picture() == target
        target.rename(made.picture)


def test_reduced_and_foreign_pictures_are_not_taken(make_outs, tmp_path):
    made = make_outs(picture=False)
    with Image.open(made.outs / "spatial" / "tissue_hires_image.png") as hires:
        hires.resize((900, 850)).save(made.outs.parent / "other.png")
        size = hires.size
    with pytest.raises(CohortError, match=r"full-resolution picture is not here.*another picture.*--image"):
        find_source(made.outs).picture()
    reduced = made.outs / "spatial" / "tissue_hires_image.png"
    with pytest.raises(CohortError, match=rf"{size[0]} x {size[1]} px.*reduced"):
        read_section(reduced, made.outs)
    with pytest.raises(SlideError, match=r"no such|cannot be opened"):
        read_section(tmp_path / "gone.tif", made.outs)


def test_a_reduced_picture_is_seen_by_the_spots_alone(make_outs):
    made = make_outs(hires=False)
    small = made.outs.parent / "small.png"
    with Image.open(made.picture) as full:
        full.resize((full.width // 3, full.height // 3)).save(small)
    with pytest.raises(CohortError, match=r"spots lie as far as x .*reduced or another"):
        read_section(small, made.outs)


def test_a_turned_picture_is_told(make_outs):
    made = make_outs()
    with Image.open(made.picture) as full:
        if full.width == full.height:
            full.crop((0, 0, full.width, full.height - 60)).save(made.picture, quality=95)
    spatial = made.outs / "spatial"
    with Image.open(made.picture) as full:
        factor = json.loads((spatial / "scalefactors_json.json").read_text())["tissue_hires_scalef"]
        full.resize((round(full.width * factor), round(full.height * factor))).save(
            spatial / "tissue_hires_image.png"
        )
        full.transpose(Image.Transpose.ROTATE_90).save(made.picture.with_name("turned.png"))
    with pytest.raises(CohortError, match=r"turned by 90°"):
        read_section(made.picture.with_name("turned.png"), made.outs)


def test_two_pictures_that_fit_are_told_apart_by_name_or_not_at_all(make_outs):
    made = make_outs()
    shutil.copyfile(made.picture, made.picture.with_name("B.jpg"))
    assert find_source(made.outs).picture() == made.picture
    made.picture.rename(made.picture.with_name("C.jpg"))
    with pytest.raises(CohortError, match=r"several pictures could be that of A.*--image"):
        find_source(made.outs).picture()


def swap_positions(made, other) -> None:
    shutil.copyfile(other.outs / "spatial/tissue_positions.csv", made.outs / "spatial/tissue_positions.csv")


def shift_tissue(made, _) -> None:
    """Positions of another slide: the same barcodes, other spots under tissue."""
    path = made.outs / "spatial/tissue_positions.csv"
    table = pd.read_csv(path)
    table["in_tissue"] = 1 - table["in_tissue"]
    table.to_csv(path, index=False)


def no_tissue(made, _) -> None:
    path = made.outs / "spatial/tissue_positions.csv"
    pd.read_csv(path).assign(in_tissue=0).to_csv(path, index=False)


def shuffle(made, _) -> None:
    path = made.outs / "spatial/tissue_positions.csv"
    table = pd.read_csv(path)
    table[["pxl_row_in_fullres", "pxl_col_in_fullres"]] = (
        table[["pxl_row_in_fullres", "pxl_col_in_fullres"]].sample(frac=1, random_state=1).to_numpy()
    )
    table.to_csv(path, index=False)


def cut(made, _) -> None:
    path = made.outs / "filtered_feature_bc_matrix.h5"
    path.write_bytes(path.read_bytes()[:-900])


def fractions(made, _) -> None:
    with h5py.File(made.outs / "filtered_feature_bc_matrix.h5", "r+") as file:
        data = file["matrix/data"][()].astype(float) + 0.25
        del file["matrix/data"]
        file["matrix/data"] = data


def outside_link(made, _) -> None:
    with h5py.File(made.outs / "filtered_feature_bc_matrix.h5", "r+") as file:
        del file["matrix/data"]
        file["matrix/data"] = h5py.ExternalLink("/etc/passwd", "data")


def wrong_indices(made, _) -> None:
    with h5py.File(made.outs / "filtered_feature_bc_matrix.h5", "r+") as file:
        file["matrix/indices"][3] = 1000


def huge(made, _) -> None:
    with h5py.File(made.outs / "filtered_feature_bc_matrix.h5", "r+") as file:
        del file["matrix/data"]
        file.create_dataset("matrix/data", shape=(10**9,), dtype="i4", chunks=(10**6,), compression="gzip")


def no_scale_factors(made, _) -> None:
    (made.outs / "spatial/scalefactors_json.json").unlink()


def broken_scale_factors(made, _) -> None:
    (made.outs / "spatial/scalefactors_json.json").write_text('{"tissue_hires_scalef": "big"}')


def no_positions(made, _) -> None:
    (made.outs / "spatial/tissue_positions.csv").unlink()


FAULTS = {
    swap_positions: "barcodes are not in tissue_positions.csv.*different sections",
    shift_tissue: "not under tissue in tissue_positions.csv.*different sections",
    no_tissue: "no spot is marked as under tissue",
    shuffle: "array and positions do not belong together",
    cut: "filtered_feature_bc_matrix.h5: this count matrix is truncated or damaged.*again",
    fractions: "not whole numbers, such as .*raw counts",
    outside_link: "link to another place",
    wrong_indices: "truncated or damaged",
    huge: "declares 4.0 GB",
    no_scale_factors: "scalefactors_json.json is missing.*Copy",
    broken_scale_factors: "tissue_hires_scalef is 'big', not a number",
    no_positions: "tissue_positions.csv .*is missing.*Copy",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_is_one_line_with_a_file_and_a_remedy(make_outs, fault):
    made = make_outs("A")
    fault(made, make_outs("B", which=1))
    with pytest.raises(CohortError, match=FAULTS[fault]) as caught:
        read_pair(None, made.outs)
    assert caught.value.path and caught.value.remedy and "\n" not in str(caught.value)


def test_truncated_and_swelling_gzip_is_refused(make_outs, monkeypatch):
    made = make_outs(matrix="mex")
    matrix = made.outs / "filtered_feature_bc_matrix" / "matrix.mtx.gz"
    whole = matrix.read_bytes()
    matrix.write_bytes(whole[:-40])
    with pytest.raises(CohortError, match=r"matrix.mtx.gz: this file is truncated.*again"):
        read_pair(None, made.outs)
    matrix.write_bytes(gzip.compress(b"0" * 300_000_000))
    with pytest.raises(CohortError, match=r"decompresses to more than"):
        read_pair(None, made.outs)
    text = gzip.decompress(whole).decode().split("\n")
    matrix.write_bytes(gzip.compress("\n".join(text[: len(text) // 2]).encode()))
    with pytest.raises(CohortError, match=r"declares .* entries and holds fewer|truncated or damaged"):
        read_pair(None, made.outs)


def test_a_folder_of_folders_is_a_cohort(make_outs, tmp_path):
    for which, name in enumerate(("B", "A")):
        make_outs(name, which=which)
    cohort = open_cohort(tmp_path / "runs")
    assert cohort.names == ("A", "B")
    assert [section.slide_path.name for section in cohort] == ["A.jpg", "B.jpg"]
    assert open_cohort(tmp_path / "runs" / "A").names == ("A",)


def test_a_manifest_mixes_folders_and_pairs(make_outs, make_pair, tmp_path):
    made = make_outs("A", into=tmp_path)
    make_pair("P", folder=tmp_path)
    (tmp_path / "all.yaml").write_text(
        "sections:\n"
        "- {counts: A/outs, patient: p1}\n"
        "- {counts: A, slide: A/A.jpg, name: again, um_per_px: 0.71}\n"
        "- {counts: P.h5ad, slide: P.png}\n"
    )
    first, again, pair = open_cohort(tmp_path / "all.yaml")
    assert (first.name, first.patient, first.slide_path) == ("A", "p1", made.picture)
    assert (again.name, again.mpp) == ("again", 0.71)
    assert pair.name == "P"
    (tmp_path / "none.yaml").write_text("sections: [{counts: P.h5ad}]")
    with pytest.raises(CohortError, match=r"which picture goes with this h5ad"):
        open_cohort(tmp_path / "none.yaml")
    (tmp_path / "bins.yaml").write_text("sections: [{counts: A/outs, bin_um: 16}]")
    with pytest.raises(CohortError, match=r"has spots of its own"):
        open_cohort(tmp_path / "bins.yaml")


def test_what_is_no_source_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    assert find_source(tmp_path / "empty") is None
    with pytest.raises(CohortError, match=r"no reader knows this.*Space Ranger folder"):
        open_source(tmp_path / "empty")
    with pytest.raises(CohortError, match=r"no such file"):
        open_source(tmp_path / "gone", Options())


def test_real_space_ranger_1_folder(shared_data):
    folder = shared_data / "import_fixtures/VisiumIO/inst/extdata/10xVisium/section1/outs"
    table = find_source(folder).read()
    positions = pd.read_csv(folder / "spatial/tissue_positions_list.csv", header=None, index_col=0)
    spots = list(table.spot_ids)
    assert set(spots) == set(positions.index[positions[1] == 1])
    assert table.xy.tolist() == positions.loc[spots, [5, 4]].to_numpy().tolist()
    import scanpy

    right = scanpy.read_10x_h5(folder / "raw_feature_bc_matrix.h5")
    right = right[spots, :].to_df().T.groupby(level=0).sum().T
    assert (table.counts.toarray() == right[list(table.genes)].to_numpy()).all()
    # A spot with its rim is 65 µm wide by the distance between spots: the makers' own figure.
    scale = json.loads((folder / "spatial/scalefactors_json.json").read_text())
    assert table.facts["um_per_px"] * scale["spot_diameter_fullres"] == pytest.approx(65, rel=0.01)
    with pytest.raises(CohortError, match=r"picture is not here.*about 11287 x 11757 px.*--image"):
        read_section(None, folder)
    with pytest.raises(CohortError, match=r"reduced"):
        read_section(folder / "spatial/tissue_lowres_image.png", folder)


def test_real_space_ranger_2_folder(shared_data):
    folder = shared_data / "import_fixtures/SFE/inst/extdata/sample01/outs"
    table = find_source(folder).read()
    assert table.counts.shape == (12, 5) and table.counts.sum() == 2951
    assert table.genes[0] == "ACPP" and table.gene_ids[0] == "ENSG00000014257"
    assert table.xy[0].tolist() == [19828.0, 3932.0]
    assert np.asarray(table.array)[0].tolist() == [1, 101]
    assert table.facts["um_per_px"] == pytest.approx(0.3437, abs=1e-3)
