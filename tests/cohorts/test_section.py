"""Reading one pair: what it gives, and what it says about a bad one."""

from __future__ import annotations

import warnings
from pathlib import Path

import anndata
import h5py
import numpy as np
import pytest
from scipy import sparse

from chrep_model.cohorts import hdf5
from chrep_model.cohorts.section import read_section
from chrep_model.errors import CohortError

COUNTS = np.array([[5, 0, 1], [0, 2, 0], [3, 3, 3], [0, 0, 0]])


def test_a_section_says_all_it_knows(make_pair):
    picture, h5ad = make_pair("S1", patient="P7", spot_diameter_px=30.0)
    section = read_section(picture, h5ad)
    assert (section.name, section.patient, section.mpp) == ("S1", "P7", 0.5)
    assert section.spot_diameter_px == 30.0
    assert section.genes == ("GENE0", "GENE1", "GENE2")
    assert section.spot_ids == ("S1_0", "S1_1", "S1_2", "S1_3")
    assert len(section) == 4
    np.testing.assert_array_equal(section.xy, [[10, 10], [110, 10], [10, 70], [110, 70]])
    assert (section.slide_path, section.counts_path) == (picture, h5ad)


@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64", "float32", "float64"])
def test_counts_of_any_storage_and_type(make_pair, kind, dtype):
    values = COUNTS.astype(dtype)
    stored = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix, "dense": np.asarray}[kind](values)
    section = read_section(*make_pair(counts=stored))
    assert section.counts.format == "csr"
    assert section.counts.dtype == np.float32
    np.testing.assert_array_equal(section.counts.toarray(), COUNTS)


def test_duplicated_entries_of_a_sparse_matrix_are_summed(make_pair):
    picture, h5ad = make_pair()
    with h5py.File(h5ad, "r+") as file:
        del file["X/data"], file["X/indices"], file["X/indptr"]
        file["X/data"] = np.array([2, 3], np.int32)
        file["X/indices"] = np.array([1, 1], np.int32)
        file["X/indptr"] = np.array([0, 2, 2, 2, 2], np.int32)
    section = read_section(picture, h5ad)
    assert section.counts[0, 1] == 5
    assert section.counts.nnz == 1


def test_slide_opens_with_the_scale_of_the_cohort(make_pair):
    section = read_section(*make_pair(um_per_px=0.69))
    with section.open_slide() as slide:
        assert slide.mpp is not None
        assert (slide.mpp.value, slide.mpp.source) == (0.69, "cohort")
        assert slide.shape == (80, 120)


@pytest.mark.parametrize(
    ("facts", "patient"),
    [
        ({"patient": "P", "individual": "I"}, "P"),
        ({"individual": "I"}, "I"),
        ({"individual": 3}, "3"),
        ({}, "A"),
    ],
)
def test_patient(make_pair, facts, patient):
    assert read_section(*make_pair(**facts)).patient == patient


def test_given_facts_replace_those_of_the_file(make_pair):
    section = read_section(*make_pair(patient="P"), name="N", patient="Q", um_per_px=2.0)
    assert (section.name, section.patient, section.mpp) == ("N", "Q", 2.0)


def test_scale_of_the_slide_is_taken_when_the_cohort_says_none(make_pair, write_pyramid):
    slide = write_pyramid(np.full((80, 120, 3), 200, np.uint8), mpp=0.25, levels=1, tile=64)
    _, h5ad = make_pair(um_per_px=None)
    assert read_section(slide, h5ad).mpp == pytest.approx(0.25)


FAULTS = {
    "no positions": ({"xy": None}, "obsm['spatial'] is missing"),
    "three coordinates": ({"xy": np.arange(12).reshape(4, 3)}, "shape (4, 3)"),
    "NaN position": ({"xy": [(10, 10), (np.nan, 10), (10, 70), (110, 70)]}, "1 of 4 spots"),
    "swapped": ({"xy": [(10, 10), (10, 110), (70, 10), (70, 110)]}, "x and y swapped"),
    "scaled": ({"xy": [(20, 20), (220, 20), (20, 140), (220, 140)]}, "3 of 4 spots lie outside"),
    "negative position": ({"xy": [(-5, 10), (110, 10), (10, 70), (110, 70)]}, "1 of 4 spots lie outside"),
    "negative count": ({"counts": COUNTS - 1}, "negative values, down to -1"),
    "NaN count": ({"counts": np.where(COUNTS == 5, np.nan, COUNTS)}, "1 values that are NaN"),
    "infinite count": ({"counts": np.where(COUNTS == 5, np.inf, COUNTS)}, "NaN or infinite"),
    "normalised": ({"counts": np.log1p(COUNTS)}, "not whole numbers, such as 1.79"),
    "sparse and normalised": ({"counts": sparse.csr_matrix(COUNTS * 0.5)}, "not whole numbers"),
    "genes twice": ({"genes": ["A", "B", "A"]}, "1 gene names occur more than once (A)"),
    "spots twice": ({"spots": ["s", "s", "t", "t"]}, "2 spot names occur more than once (s, t)"),
    "no spots": ({"counts": np.zeros((0, 3), np.int32), "xy": np.zeros((0, 2))}, "no spots"),
    "no genes": ({"counts": np.zeros((4, 0), np.int32)}, "no genes"),
    "no scale": ({"um_per_px": None}, "uns['um_per_px'] is missing"),
    "zero scale": ({"um_per_px": 0.0}, "not a number above zero"),
    "text scale": ({"um_per_px": "half"}, "not a number above zero"),
    "scale in mm": ({"um_per_px": 0.0005}, "which no slide has"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_one_clear_error_names_the_file_the_fault_and_the_remedy(make_pair, fault):
    change, expected = FAULTS[fault]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata's own, about names that are not unique
        picture, h5ad = make_pair(**change)
    with pytest.raises(CohortError) as caught:
        read_section(picture, h5ad)
    assert str(caught.value).startswith(f"{h5ad}: ")
    assert expected in str(caught.value)
    assert caught.value.remedy


def test_missing_h5ad(make_pair, tmp_path):
    picture, _ = make_pair()
    with pytest.raises(CohortError, match="no such h5ad"):
        read_section(picture, tmp_path / "B.h5ad")


def test_counts_kept_in_a_layer_are_taken_where_there_is_no_x(make_pair):
    picture, h5ad = make_pair()
    table = anndata.read_h5ad(h5ad)
    counts = table.X.toarray()
    table.layers["counts"] = table.X
    table.X = None
    table.write_h5ad(h5ad)
    section = read_section(picture, h5ad)
    np.testing.assert_array_equal(section.counts.toarray(), counts)
    (finding,) = section.findings
    assert "taken from layers['counts']" in finding.text


def test_a_prediction_is_not_taken_for_what_was_measured(make_pair):
    picture, h5ad = make_pair()
    with h5py.File(h5ad, "r+") as file:
        file.create_group("uns/chrep")
    with pytest.raises(CohortError, match="prediction, not what was measured"):
        read_section(picture, h5ad)


@pytest.mark.parametrize("kept", [0, 10, 2000, -100])
def test_truncated_file(make_pair, kept):
    picture, h5ad = make_pair()
    h5ad.write_bytes(h5ad.read_bytes()[:kept])
    with pytest.raises(CohortError, match="truncated, damaged or no h5ad"):
        read_section(picture, h5ad)


def _edit_indices(file: h5py.File) -> None:
    file["X/indices"][0] = 10**6


def _edit_indptr(file: h5py.File) -> None:
    file["X/indptr"][1] = 7
    file["X/indptr"][2] = 1


def _edit_encoding(file: h5py.File) -> None:
    file["X"].attrs["encoding-version"] = "99"


def _drop_index(file: h5py.File) -> None:
    del file["var"][file["var"].attrs["_index"]]


def _shorten_names(file: h5py.File) -> None:
    del file["obs/_index"]
    file["obs"]["_index"] = ["a", "b"]
    file["obs/_index"].attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})


@pytest.mark.parametrize("edit", [_edit_indices, _edit_indptr, _edit_encoding, _drop_index, _shorten_names])
def test_damage_inside(make_pair, edit):
    picture, h5ad = make_pair()
    with h5py.File(h5ad, "r+") as file:
        edit(file)
    with pytest.raises(CohortError, match=r"A\.h5ad"):
        read_section(picture, h5ad)


@pytest.mark.parametrize("way", ["external link", "soft link", "external storage", "virtual"])
def test_a_file_cannot_lead_to_another(make_pair, tmp_path, way):
    picture, h5ad = make_pair()
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["xy"] = np.full((4, 2), 10.0)
    with h5py.File(h5ad, "r+") as file:
        del file["obsm/spatial"]
        if way == "external link":
            file["obsm/spatial"] = h5py.ExternalLink(str(other), "/xy")
        elif way == "soft link":
            file["obsm/spatial"] = h5py.SoftLink("/X/data")
        elif way == "external storage":
            file["obsm"].create_dataset("spatial", (4, 2), "f8", external=[(str(other), 0, 64)])
        else:
            layout = h5py.VirtualLayout((4, 2), "f8")
            layout[:] = h5py.VirtualSource(str(other), "xy", (4, 2))
            file["obsm"].create_virtual_dataset("spatial", layout)
    with pytest.raises(CohortError, match=r"which (is not followed|are not opened)"):
        read_section(picture, h5ad)


def test_a_small_file_cannot_declare_a_huge_matrix(make_pair):
    picture, h5ad = make_pair()
    with h5py.File(h5ad, "r+") as file:
        del file["X"]
        x = file.create_dataset("X", (10**6, 10**6), "f4", chunks=(1000, 1000), compression="gzip")
        x.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    with pytest.raises(CohortError, match=r"declares 4000\.0 GB"):
        read_section(picture, h5ad)


def test_other_contents_are_never_read(make_pair, monkeypatch):
    """Layers and graphs may be huge or odd; they are no business of ours."""
    picture, h5ad = make_pair()
    with h5py.File(h5ad, "r+") as file:
        file["layers/odd"] = h5py.ExternalLink("/nowhere.h5", "/x")
        file["uns/graph"] = np.zeros(1000)
    monkeypatch.setattr(hdf5, "ALWAYS_ALLOWED_BYTES", 2000)
    monkeypatch.setattr(hdf5, "MAX_EXPANSION", 0)
    assert len(read_section(picture, h5ad)) == 4


@pytest.mark.real
def test_real_section(shared_data: Path):
    section = read_section(shared_data / "her2st" / "C2.jpg", shared_data / "her2st" / "C2.h5ad")
    assert (section.name, section.patient) == ("C2", "C")
    assert section.counts.shape == (187, 15706)
    assert section.mpp == pytest.approx(0.688098, abs=1e-5)
    assert section.spot_diameter_px == pytest.approx(145.3, abs=0.1)
    assert np.median(section.counts.toarray().sum(axis=1)) == 8508
