"""Which slide goes with which h5ad."""

from __future__ import annotations

from pathlib import Path

import pytest
import zarr

from chrep_model.cohorts.cohort import open_cohort
from chrep_model.cohorts.manifest import write_manifest
from chrep_model.cohorts.pair_check import check_pair
from chrep_model.cohorts.pairing import Pair, suggest_pairs
from chrep_model.errors import CohortError


@pytest.fixture
def touch(tmp_path):
    """Make empty files; return their paths."""

    def make(*names: str) -> list[Path]:
        paths = [tmp_path / name for name in names]
        for path in paths:
            path.parent.mkdir(exist_ok=True)
            path.touch()
        return paths

    return make


def test_a_folder_stands_for_its_pairs(touch, tmp_path):
    b_slide, b, a_slide, a, *_ = touch(
        "B.ome.tif", "B.h5ad", "A.svs", "A.h5ad", "overlay.jpg", "notes.txt", "._A.h5ad"
    )
    found = suggest_pairs([tmp_path])
    assert found.pairs == (Pair(a_slide, a), Pair(b_slide, b))
    assert found.unpaired == ()


def test_pictures_and_tables_may_lie_in_two_folders(touch, tmp_path):
    slide, table = touch("images/A.jpg", "counts/A.h5ad")
    assert suggest_pairs([tmp_path]).pairs == (Pair(slide, table),)
    assert suggest_pairs([tmp_path / "counts", tmp_path / "images"]).pairs == (Pair(slide, table),)
    assert suggest_pairs([slide, table]).pairs == (Pair(slide, table),)


def test_the_one_in_the_same_folder_comes_first(touch, tmp_path):
    slide, table, _ = touch("one/A.jpg", "one/A.h5ad", "two/A.jpg")
    assert suggest_pairs([tmp_path]).pairs == (Pair(slide, table),)


def test_a_file_alone_finds_its_partner_beside_it(touch):
    slide, table = touch("A.tif", "A.h5ad")
    assert suggest_pairs([slide]).pairs == suggest_pairs([table]).pairs == (Pair(slide, table),)


def test_two_files_are_a_pair_under_any_names(touch):
    slide, table = touch("scan 17.tif", "C2_counts.h5ad")
    assert suggest_pairs([table, slide]).pairs == (Pair(slide, table),)
    (text,) = touch("notes.txt")
    assert suggest_pairs([table, text]).pairs == ()


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["A.h5ad"], "no picture has its name"),
        (["A.h5ad", "A.svs", "A.tif"], "several pictures have its name (A.svs, A.tif)"),
        (["A.svs"], "there is no A.h5ad beside it"),
        (["notes.txt"], "neither a slide nor an h5ad"),
        (["cohort.yaml"], "does not say a cohort"),
        (["gone/"], "no h5ad in this folder"),
    ],
)
def test_what_belongs_to_no_pair_is_told(touch, tmp_path, names, said):
    paths = touch(*(name for name in names if not name.endswith("/")))
    if not paths:
        (tmp_path / "gone").mkdir()
        paths = [tmp_path / "gone"]
    found = suggest_pairs(paths)
    assert found.pairs == ()
    assert len(found.unpaired) == 1
    assert said in found.unpaired[0]


def test_a_manifest_stands_for_its_sections(make_pair, tmp_path):
    make_pair("A", folder=tmp_path / "one", patient="p")
    cohort = open_cohort(tmp_path / "one")
    write_manifest(cohort.name, cohort, tmp_path / "cohort.yaml")
    (pair,) = suggest_pairs([tmp_path / "cohort.yaml"]).pairs
    assert pair == Pair(tmp_path / "one" / "A.png", tmp_path / "one" / "A.h5ad", "A", "p", 0.5)


def write_omezarr(path: Path) -> None:
    """Write a small RGB picture as OME-Zarr 0.4."""
    group = zarr.open_group(path, mode="w", zarr_format=2)
    array = group.create_array("0", shape=(3, 80, 120), chunks=(3, 80, 120), dtype="uint8")
    array[:] = 200
    axes = [{"name": "c", "type": "channel"}] + [{"name": name, "type": "space"} for name in "yx"]
    scale = [{"type": "scale", "scale": [1.0, 0.5, 0.5]}]
    levels = [{"path": "0", "coordinateTransformations": scale}]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": levels}]


def test_a_slide_that_is_a_folder_pairs_by_its_name(tmp_path, make_pair):
    names = ["A.ome.zarr", "b.c.OME.Zarr", "d.zarr"]
    for name, stem in zip(names, ["A", "b.c", "d"], strict=True):
        make_pair(stem)[0].unlink()
        write_omezarr(tmp_path / name)
    cohort = open_cohort(tmp_path)
    assert cohort.names == ("A", "b.c", "d")
    assert [section.slide_path.name for section in cohort] == names
    assert [pair.slide.name for pair in suggest_pairs([tmp_path]).pairs] == names


def test_two_slides_of_one_name_are_ambiguous_be_they_files_or_folders(tmp_path, make_pair):
    make_pair("A")
    write_omezarr(tmp_path / "A.ome.zarr")
    with pytest.raises(CohortError, match=r"several pictures go with this h5ad \(A.ome.zarr, A.png\)"):
        open_cohort(tmp_path)
    (left,) = suggest_pairs([tmp_path]).unpaired
    assert "A.ome.zarr, A.png" in left


def test_endings_in_any_casing(tmp_path, make_pair):
    picture, table = make_pair("11ah-1.8_slide0 ROI1")
    picture.rename(picture.with_suffix(".PNG"))
    table.rename(table.with_suffix(".H5AD"))
    assert open_cohort(tmp_path).names == ("11ah-1.8_slide0 ROI1",)


def test_a_name_in_other_capitals_is_pointed_out(tmp_path, make_pair):
    picture, _ = make_pair("Section1")
    picture.rename(tmp_path / "section1.png")
    with pytest.raises(CohortError, match="section1 differs in capital letters"):
        open_cohort(tmp_path)


def test_folders_of_other_programs_are_pairs(make_outs, tmp_path):
    made = make_outs("A", into=tmp_path / "runs")
    make_outs("B", which=1, into=tmp_path / "runs")
    both = suggest_pairs([tmp_path / "runs"])
    assert [(pair.name, pair.counts.name) for pair in both.pairs] == [("A", "outs"), ("B", "outs")]
    assert both.unpaired == ()
    check = check_pair(both.pairs[0])
    assert check.section is not None and check.section.name == "A" and len(check.section) == len(made.counts)
    manifest = tmp_path / "all.yaml"
    manifest.write_text("sections: [{counts: runs/A, patient: p1}]")
    (listed,) = suggest_pairs([manifest]).pairs
    assert (listed.slide, listed.patient) == (made.picture, "p1")
    made.picture.unlink()
    alone = suggest_pairs([made.outs])
    assert alone.pairs == () and "full-resolution picture is not here" in alone.unpaired[0]
