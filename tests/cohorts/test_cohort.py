"""Folders of pairs, manifests, and what a cohort can be asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from chrep_model.cohorts.cohort import Cohort, open_cohort
from chrep_model.cohorts.slide_names import slide_stem
from chrep_model.errors import CohortError
from chrep_model.progress import Progress


@pytest.fixture
def folder(make_pair, tmp_path: Path) -> Path:
    """Three sections of two patients."""
    for name, patient in (("B", "p1"), ("C", "p2"), ("A", "p1")):
        make_pair(name, folder=tmp_path / "cohort", patient=patient)
    return tmp_path / "cohort"


def test_folder_is_taken_in_the_order_of_the_names(folder):
    seen = []
    cohort = open_cohort(folder, progress=Progress(advance=lambda done, total, _: seen.append((done, total))))
    assert cohort.names == ("A", "B", "C")
    assert (cohort.name, cohort.path, len(cohort)) == ("cohort", folder, 3)
    assert cohort.patients == {"p1": ("A", "B"), "p2": ("C",)}
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert [section.name for section in cohort] == list(cohort.names)
    assert "A" in cohort
    assert "X" not in cohort


def test_what_is_no_pair_is_left_alone(folder):
    Image.new("RGB", (8, 8)).save(folder / "overlay.jpg")
    (folder / "README.md").write_text("notes")
    (folder / "._A.h5ad").write_bytes(b"left by a file manager")
    assert open_cohort(folder).names == ("A", "B", "C")


@pytest.mark.parametrize(
    ("file", "stem"),
    [
        ("a.svs", "a"),
        ("a.ome.tif", "a"),
        ("a.OME.TIFF", "a"),
        ("a.b.tiff", "a.b"),
        ("a.JPG", "a"),
        ("a.jpeg", "a"),
        ("a.dcm", "a"),
        ("a.h5ad", None),
        ("a", None),
        (".svs", None),
    ],
)
def test_names_of_slides(file, stem):
    assert slide_stem(file) == stem


def test_h5ad_without_picture(folder):
    (folder / "B.png").unlink()
    with pytest.raises(CohortError, match=r"B\.h5ad: there is no picture") as caught:
        open_cohort(folder)
    assert "same name" in caught.value.remedy


def test_two_pictures_for_one_h5ad(folder):
    Image.new("RGB", (120, 80)).save(folder / "B.jpg")
    with pytest.raises(CohortError, match=r"several pictures .*B\.jpg, B\.png"):
        open_cohort(folder)


def test_folder_without_pairs(tmp_path):
    with pytest.raises(CohortError, match="no pair"):
        open_cohort(tmp_path)


def test_no_such_cohort(tmp_path):
    with pytest.raises(CohortError, match="no such cohort"):
        open_cohort(tmp_path / "nowhere")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(CohortError, match="this is no cohort"):
        open_cohort(tmp_path / "a.txt")


def test_sections_by_name(folder):
    cohort = open_cohort(folder)
    assert cohort["B"].name == "B"
    assert cohort.without(["B"]).names == ("A", "C")
    assert cohort.only(["C", "A"]).names == ("A", "C")
    assert cohort.only("A").names == ("A",)
    assert cohort.only(["A"]).path == cohort.path


@pytest.mark.parametrize(
    "ask", [lambda c: c["section_1"], lambda c: c.without(["section_1"]), lambda c: c.only(["?"])]
)
def test_unknown_section_is_named_with_what_there_is(make_pair, tmp_path, ask):
    make_pair("section_2", folder=tmp_path / "c")
    with pytest.raises(CohortError, match=r"no section .*section_2"):
        ask(open_cohort(tmp_path / "c"))


def test_leaving_out_everything(folder):
    with pytest.raises(CohortError, match="no section is left"):
        open_cohort(folder).without(["A", "B", "C"])


def test_what_needs_more_sections_says_why(folder):
    cohort = open_cohort(folder).only(["A"])
    cohort.require(1, "prediction")
    with pytest.raises(
        CohortError,
        match=r"training with calibration needs at least two sections, and this cohort has 1 \(A\)",
    ):
        cohort.require(2, "training with calibration")


def test_one_name_twice_is_refused(folder):
    section = open_cohort(folder)["A"]
    with pytest.raises(CohortError, match="same name"):
        Cohort(folder, "c", (section, section))


def test_manifest(folder, tmp_path):
    manifest = tmp_path / "study.yaml"
    manifest.write_text(
        "name: study\n"
        "sections:\n"
        "  - {slide: cohort/C.png, counts: cohort/C.h5ad, name: first, patient: 7, um_per_px: 0.25}\n"
        "  - {slide: cohort/A.png, counts: cohort/B.h5ad}\n"
    )
    cohort = open_cohort(manifest)
    assert (cohort.name, cohort.names) == ("study", ("first", "A"))
    assert (cohort["first"].patient, cohort["first"].mpp) == ("7", 0.25)
    assert (cohort["A"].patient, cohort["A"].mpp) == ("p1", 0.5)
    assert cohort["A"].counts_path == folder / "B.h5ad"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("sections: [{slide: A.png}]", "sections.0.counts: Field required"),
        ("sections: [{slide: A.png, counts: A.h5ad, um_per_pixel: 1}]", "um_per_pixel: Extra inputs"),
        ("sections: [{slide: A.png, counts: A.h5ad, um_per_px: -1}]", "um_per_px: Input should be greater"),
        ("sections: []", "sections"),
        ("- A\n- B", "the file: "),
        ("", "the file: "),
        ("sections: [", "not valid YAML"),
        ("!!python/object/apply:os.getcwd []", "not valid YAML"),
    ],
)
def test_bad_manifest(tmp_path, text, fault):
    manifest = tmp_path / "m.yml"
    manifest.write_text(text)
    with pytest.raises(CohortError) as caught:
        open_cohort(manifest)
    assert str(caught.value).startswith(f"{manifest}: ")
    assert fault in str(caught.value)


@pytest.mark.real
def test_real_cohort(shared_data: Path):
    cohort = open_cohort(shared_data / "her2st")
    assert cohort.names == ("C2", "C3", "C4", "C5")
    assert sum(len(section) for section in cohort) == 732
    assert cohort.patients == {"C": ("C2", "C3", "C4", "C5")}


@pytest.mark.real
def test_individuals_of_a_real_cohort_are_its_patients(shared_data: Path):
    cohort = open_cohort(shared_data / "mob_stutility")
    assert cohort.patients == {"1": ("MOB1", "MOB2"), "2": ("MOB3",)}
