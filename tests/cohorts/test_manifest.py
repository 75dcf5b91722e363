"""A cohort written as a manifest, and read back."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from chrep_model.cohorts.cohort import Cohort, open_cohort
from chrep_model.cohorts.manifest import write_manifest
from chrep_model.cohorts.pair_check import check_pair
from chrep_model.cohorts.pairing import suggest_pairs
from chrep_model.cohorts.section import read_section
from chrep_model.errors import CohortError


@pytest.fixture
def cohort(make_pair, tmp_path: Path) -> Cohort:
    """Two sections from two folders; name, patient and scale of the second are nowhere in its files."""
    one = read_section(*make_pair("A", folder=tmp_path / "one"))
    two = read_section(
        *make_pair("A", folder=tmp_path / "zwei ä", um_per_px=None), name="7", patient="no: 1", um_per_px=0.3
    )
    return Cohort(tmp_path, "both", (one, two))


def test_what_is_written_is_read_back(cohort, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    path = tmp_path / "elsewhere" / "cohort.yaml"
    write_manifest(cohort.name, cohort, path)
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = open_cohort(path)
    assert (again.name, again.names, again.patients) == ("both", ("A", "7"), {"A": ("A",), "no: 1": ("7",)})
    for section, kept in zip(again, cohort, strict=True):
        assert (section.mpp, section.genes, section.spot_ids) == (kept.mpp, kept.genes, kept.spot_ids)
        assert (section.slide_path, section.counts_path) == (kept.slide_path, kept.counts_path)
        np.testing.assert_array_equal(section.xy, kept.xy)
        assert (section.counts != kept.counts).nnz == 0


def test_relative_paths_become_absolute(make_pair, tmp_path, monkeypatch):
    make_pair("A", folder=tmp_path / "one")
    monkeypatch.chdir(tmp_path)
    cohort = open_cohort("one")
    write_manifest(cohort.name, cohort, "here.yaml")
    monkeypatch.chdir(tmp_path / "one")
    assert open_cohort(tmp_path / "here.yaml")["A"].counts_path == tmp_path / "one" / "A.h5ad"


def test_an_older_manifest_stays_when_the_new_one_cannot_be_written(cohort, tmp_path, monkeypatch):
    path = tmp_path / "cohort.yaml"
    path.write_text("old")

    def full(_descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CohortError, match="No space left"):
        write_manifest(cohort.name, cohort, path)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.glob(".*")] == []


def test_a_name_that_would_not_be_read_as_a_manifest_is_refused(cohort, tmp_path):
    with pytest.raises(CohortError, match=r"cohort\.txt\.yaml"):
        write_manifest(cohort.name, cohort, tmp_path / "cohort.txt")


def test_a_scene_of_a_file_with_several(make_pair, tmp_path):
    """Written by name, read by name or number; the pixels are those of that scene."""
    import tifffile

    path = tmp_path / "A.ome.tif"
    make_pair("A")[0].unlink()
    with tifffile.TiffWriter(path, ome=True) as writer:
        for number, size in enumerate([(80, 120), (160, 240)], 1):
            image = np.full((*size, 3), 50 * number, np.uint8)
            writer.write(
                image, photometric="rgb", tile=(64, 64), metadata={"axes": "YXS", "Name": f"core {number}"}
            )
    listed = tmp_path / "given.yaml"
    listed.write_text("sections: [{slide: A.ome.tif, counts: A.h5ad, scene: 1}]")
    cohort = open_cohort(listed)
    write_manifest(cohort.name, cohort, tmp_path / "written.yaml")
    for section in (*cohort, *open_cohort(tmp_path / "written.yaml")):
        assert section.scene == "core 1"
        with section.open_slide() as slide:
            assert slide.shape == (80, 120)
            assert (slide.read(0, 0, 80, 120) == 50).all()
    assert "scene: core 1" in (tmp_path / "written.yaml").read_text()
    assert read_section(path, tmp_path / "A.h5ad").scene == "core 2"
    (pair,) = suggest_pairs([listed]).pairs
    assert pair.scene == "1"
    assert check_pair(pair).section.scene == "core 1"
