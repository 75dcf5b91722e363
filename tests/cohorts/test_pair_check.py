"""Does this slide go with these counts?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy import sparse

from chrep_model.cohorts.checks.names import compare_genes
from chrep_model.cohorts.pair_check import THUMBNAIL_PX, check_pair
from chrep_model.cohorts.pairing import Pair

SIDE, MPP = 600, 4.0
#: The tissue: wider than high, in the upper right of a square picture; (left, top, right, bottom).
TISSUE = (220, 60, 560, 260)


@pytest.fixture
def pair(make_pair):
    """Write a square picture with tissue off its diagonal, and spots in it or where they are put."""
    rng = np.random.default_rng(0)
    picture = np.full((SIDE, SIDE, 3), 244, np.uint8)
    left, top, right, bottom = TISSUE
    grain = rng.integers(-60, 60, ((bottom - top) // 4, (right - left) // 4, 1)).repeat(4, 0).repeat(4, 1)
    picture[top:bottom, left:right] = np.clip(np.array([190, 110, 180]) + grain, 0, 255)

    def make(xy=None, **replaced):
        if xy is None:
            xy = np.stack(np.meshgrid(np.arange(240, 550, 30), np.arange(80, 250, 30)), -1).reshape(-1, 2)
        counts = replaced.pop("counts", np.full((len(xy), 3), 2, np.int32))
        uns = {"um_per_px": MPP, "spot_diameter_px": 15.0, "patient": "p"} | replaced
        slide, table = make_pair(counts=sparse.csr_matrix(counts), xy=xy, size=(SIDE, SIDE), **uns)
        Image.fromarray(picture).save(slide)
        return Pair(slide, table), np.asarray(xy, float)

    return make


def said(check):
    return {finding.text: finding.level for finding in check.findings}


def test_a_good_pair(pair):
    good, xy = pair(um_per_px=1.5)
    check = check_pair(good)
    assert (check.level, check.on_tissue) == ("ok", 1.0)
    assert (check.section.mpp, check.mpp_source, check.section.patient) == (1.5, "h5ad", "p")
    assert check.findings == ()
    assert check.overlay.picture.shape == (THUMBNAIL_PX, THUMBNAIL_PX, 3)
    np.testing.assert_allclose(check.overlay.xy, xy * THUMBNAIL_PX / SIDE)
    assert check.overlay.diameter == pytest.approx(15 * THUMBNAIL_PX / SIDE)


@pytest.mark.parametrize(
    ("turn", "how"),
    [
        (lambda xy: xy[:, ::-1], "x and y swapped"),
        (lambda xy: (SIDE - xy[:, 0])[:, None] * [1, 0] + xy * [0, 1], "left and right mirrored"),
        (lambda xy: SIDE - xy, "the picture turned by 180°"),
    ],
)
def test_spots_that_lie_better_in_another_orientation(pair, turn, how):
    _, xy = pair()
    wrong, _ = pair(turn(xy))
    check = check_pair(wrong)
    assert check.section is None
    (text,) = (text for text, level in said(check).items() if level == "error")
    assert how in text and "100% would" in text
    assert check.on_tissue < 0.6
    assert check.overlay.on_tissue.mean() == check.on_tissue


def test_spots_outside_of_the_picture_are_an_error_with_a_picture(pair):
    _, xy = pair()
    check = check_pair(pair(xy + np.array([100, 0]))[0])
    assert check.section is None
    assert "outside of the image" in check.findings[0].text
    assert "swapped" in check.findings[0].remedy
    assert check.overlay.xy[:, 0].max() > THUMBNAIL_PX


def test_few_spots_on_tissue(pair):
    grid = np.stack(np.meshgrid(np.arange(20, 600, 40), np.arange(20, 600, 40)), -1).reshape(-1, 2)
    check = check_pair(pair(grid)[0])
    assert check.section is not None
    assert said(check) == {
        f"Only {check.on_tissue:.0%} of the spots lie on tissue.": "warning",
        "At 4 µm/px nuclei cannot be made out.": "warning",
    }


def test_spots_without_counts(pair):
    _, xy = pair()
    counts = np.full((len(xy), 3), 2, np.int32)
    counts[:5] = 0
    check = check_pair(pair(counts=counts)[0])
    assert said(check)[f"5 of {len(xy)} spots have no counts."] == "warning"
    check = check_pair(pair(counts=np.zeros_like(counts))[0])
    assert (check.level, check.section) == ("error", None)
    assert said(check)["No spot has any count."] == "error"


def test_values_that_are_no_counts(pair):
    _, xy = pair()
    check = check_pair(pair(counts=np.full((len(xy), 3), 0.5, np.float32))[0])
    assert (check.level, check.section, check.overlay) == ("error", None, None)
    assert "not whole numbers" in check.findings[0].text
    assert "raw counts" in check.findings[0].remedy


def test_an_unknown_scale_is_an_error_until_it_is_typed_in(pair):
    unknown, _ = pair(um_per_px=None)
    check = check_pair(unknown)
    assert check.section is None and check.overlay is not None
    assert "um_per_px" in check.findings[0].text
    check = check_pair(replace(unknown, um_per_px=1.0, name="again", patient="q"))
    assert (check.level, check.mpp_source) == ("ok", "typed in")
    assert (check.section.mpp, check.section.name, check.section.patient) == (1.0, "again", "q")


def test_a_scale_that_no_array_has(pair):
    check = check_pair(pair(um_per_px=90.0)[0])
    assert check.level == "warning"
    assert "2.7e+03 µm apart" in check.findings[0].text


def test_a_scale_that_the_slide_contradicts(pair, write_pyramid):
    good, _ = pair(um_per_px=1.5)
    slide = write_pyramid(np.asarray(Image.open(good.slide)), mpp=1.0, levels=1)
    check = check_pair(Pair(slide, good.counts))
    assert "slide says 1 µm/px, and 1.5 are used" in check.findings[0].text


def test_a_picture_without_tissue(make_pair):
    slide, table = make_pair(patient="p")
    assert said(check_pair(Pair(slide, table)))["No tissue was found on this picture."] == "warning"


def test_a_patient_that_nothing_names(pair):
    check = check_pair(pair(um_per_px=1.5, patient=None)[0])
    assert check.level == "ok"
    assert "Nothing says whose tissue" in check.findings[0].text
    known = check.of_patient("q")
    assert (known.pair.patient, known.section.patient, known.findings) == ("q", "q", ())
    assert known.section.counts is check.section.counts


def test_names_of_genes():
    symbols = ["ERBB2", "CD3E", "COL1A1"]
    assert compare_genes(symbols, [*symbols, "GAPDH", "ACTB"], "section B") is None
    other = compare_genes(["ENSG00000141736", "ENSG00000198851"], symbols, "section B")
    assert other.level == "error"
    assert "only 0 are also genes of section B" in other.text
    assert "Ensembl ids like ENSG00000141736" in other.text and "names like ERBB2" in other.text
    assert compare_genes(["Erbb2"], symbols, "the model in use", level="warning").level == "warning"
