"""What the checks find in sections that were spoilt in one way, and that they find nothing in good ones."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pytest
from scipy import sparse

from chrep_model.cohorts.checks.names import between_sections
from chrep_model.cohorts.cohort import Cohort, open_cohort
from chrep_model.cohorts.findings import worst
from chrep_model.cohorts.matching import matched, with_shared_names
from chrep_model.cohorts.pair_check import check_cohort, check_section
from chrep_model.cohorts.section import read_section
from chrep_model.errors import CohortError

SAMPLE = Path(__file__).resolve().parents[2] / "sample_data"
NAME, SIDE, MPP = "SYNTHETIC_P1B", 3800, 0.5


@pytest.fixture(scope="module")
def good():
    """A section of the sample data, whose tissue fills the picture."""
    return read_section(SAMPLE / f"{NAME}.tif", SAMPLE / f"{NAME}.h5ad")


def levels(found):
    return {finding.text: finding.level for finding in found}


def the_error(found):
    (text,) = (text for text, level in levels(found).items() if level == "error")
    return text


def test_the_sample_data_have_nothing_wrong():
    found = check_cohort(open_cohort(SAMPLE))
    assert list(found) == [f"SYNTHETIC_{name}" for name in ("P1A", "P1B", "P2A", "P2B")]
    assert not any(found.values())


@pytest.mark.real
@pytest.mark.parametrize("cohort", ["her2st", "her2st_lowres", "mob_stahl2016", "mob_stutility"])
def test_real_sections_have_nothing_wrong(shared_data, cohort):
    for found in check_cohort(open_cohort(shared_data / cohort)).values():
        assert [finding.text for finding in found if "nuclei cannot be made out" not in finding.text] == []


TURNS = {
    "x and y swapped": lambda xy: xy[:, ::-1],
    "left and right mirrored": lambda xy: np.stack([SIDE - xy[:, 0], xy[:, 1]], 1),
    "top and bottom mirrored": lambda xy: np.stack([xy[:, 0], SIDE - xy[:, 1]], 1),
    "the picture turned by 180°": lambda xy: SIDE - xy,
    "the picture turned by 270°": lambda xy: np.stack([SIDE - xy[:, 1], xy[:, 0]], 1),
    "the picture turned by 90°": lambda xy: np.stack([xy[:, 1], SIDE - xy[:, 0]], 1),
    "x and y swapped and both mirrored": lambda xy: SIDE - xy[:, ::-1],
}


@pytest.mark.parametrize("how", TURNS)
def test_counts_tell_the_orientation_where_tissue_cannot(good, how):
    found = check_section(replace(good, xy=TURNS[how](good.xy), array=None))
    assert the_error(found).startswith(f"The counts follow the picture much better with {how}")


def test_counts_without_a_pattern_tell_nothing(good):
    shuffled = np.random.default_rng(0).permutation(len(good))
    found = check_section(replace(good, counts=good.counts[shuffled]))
    assert levels(found) == {"Neither tissue nor counts can tell whether x and y are swapped.": "ok"}


@pytest.mark.parametrize("factor", [0.17, 600 / SIDE, 2000 / SIDE, MPP])
@pytest.mark.parametrize("diameter", [None, 200.0])
def test_positions_of_another_scale(good, factor, diameter):
    found = check_section(replace(good, xy=good.xy * factor, spot_diameter_px=diameter))
    assert "over the tissue: they look like" in the_error(found)


def test_scale_factors_name_the_reduced_picture(good):
    found = check_section(replace(good, xy=good.xy * 0.17, facts={"tissue_hires_scalef": 0.17}))
    assert "coordinates of the hires picture (scaled by tissue_hires_scalef)" in the_error(found)


def test_places_on_the_array_instead_of_pixels(good):
    places = np.round((good.xy - good.xy.min(axis=0)) / 150)
    assert "these are places on the array" in the_error(check_section(replace(good, xy=places)))


def test_spots_that_would_overlap(good):
    found = check_section(replace(good, spot_diameter_px=900.0))
    assert "they would overlap" in the_error(found)


def test_spots_that_are_in_the_table_twice(good):
    rows = np.r_[np.arange(len(good)), [0, 5]]
    twice = replace(
        good, counts=good.counts[rows], xy=good.xy[rows], array=good.array[rows],
        spot_ids=(*good.spot_ids, "again 0", "again 5"),
    )  # fmt: skip
    assert levels(check_section(twice)) == {"2 of 133 spots lie exactly where another does.": "warning"}


def test_few_spots_still_tell_the_orientation(good):
    near = np.argsort(np.abs(good.xy - good.xy.mean(axis=0)).max(axis=1))[:58]
    few = replace(
        good, counts=good.counts[near], xy=SIDE - good.xy[near], array=None,
        spot_ids=tuple(good.spot_ids[i] for i in near),
    )  # fmt: skip
    assert any("much better with the picture turned by 180°" in text for text in levels(check_section(few)))


def test_spots_narrower_than_on_any_array(good):
    (finding,) = check_section(replace(good, spot_diameter_px=0.5 * 200.0))  # µm in the place of px
    assert finding.level == "warning" and "no array has spots so narrow" in finding.text


@pytest.mark.parametrize("move", [(-260.0, -400.0), (-250.0, 0.0), (0.0, 270.0)])
def test_spots_moved_against_the_picture(good, move):
    found = check_section(replace(good, xy=good.xy + move))
    (text,) = (text for text, level in levels(found).items() if level == "warning")
    x, y = (float(number) for number in re.findall(r"([+-]\d+) px", text))
    assert np.hypot(x + move[0], y + move[1]) < 0.4 * 300  # of the distance between spots


def test_a_gene_without_any_count_in_one_section_alone():
    cohort = open_cohort(SAMPLE)
    first = cohort.sections[0]
    common = np.argsort(-np.asarray((first.counts > 0).sum(axis=0)).ravel())[:3]
    counts = first.counts.tolil()
    counts[:, common] = 0
    spoilt = replace(first, counts=sparse.csr_matrix(counts, dtype=np.float32))
    spoilt.counts.eliminate_zeros()
    found = check_cohort(Cohort(cohort.path, "c", (spoilt, *cohort.sections[1:])))
    assert [len(of) for of in found.values()] == [1, 0, 0, 0]
    (finding,) = found[first.name]
    assert finding.level == "warning" and finding.text.startswith("3 genes have no count in any of its spots")
    assert all(first.genes[gene] in finding.text for gene in common)


def test_positions_that_belong_to_other_rows(good):
    shuffled = np.random.default_rng(0).permutation(len(good))
    found = check_section(replace(good, xy=good.xy[shuffled]))
    assert any("do not go with array_row and array_col" in text for text in levels(found))
    assert worst(found) == "error"


def test_axes_exchanged_against_the_array(good):
    mirrored = replace(good, array=np.stack([good.array[:, 0], -good.array[:, 1]], axis=1))
    assert levels(check_section(mirrored)) == {
        "Against array_row and array_col the positions are mirrored, as they are with x and y swapped.": (
            "warning"
        )
    }
    turned = replace(good, array=-good.array)  # a slide put in the other way round: no mirror
    assert check_section(turned) == ()


def honeycomb(make_pair, *, pitch_px=50.0, um_per_px=2.0, ids=None, **more):
    """Write a section as Visium's: rows of every second place, 100 µm apart where the scale is right."""
    rows, cols = 10, 20
    array = np.array([(r, c) for r in range(rows) for c in range(cols) if (r + c) % 2 == 0])
    xy = 30 + np.stack([array[:, 1] * pitch_px / 2, array[:, 0] * pitch_px * np.sqrt(3) / 2], axis=1)
    counts = np.random.default_rng(0).poisson(3.0, (len(array), 8)).astype(np.int32)
    size = tuple(int(side) for side in xy.max(axis=0) + 60)
    picture, h5ad = make_pair(
        "V",
        counts=counts,
        xy=xy,
        size=size,
        um_per_px=um_per_px,
        spots=ids and [ids(*place) for place in array],
    )
    table = anndata.read_h5ad(h5ad)
    table.obs["array_row"], table.obs["array_col"] = array.T
    table.uns["spatial"] = {"V": {"scalefactors": {"spot_diameter_fullres": pitch_px * 0.55} | more}}
    table.write_h5ad(h5ad)
    return read_section(picture, h5ad)


@pytest.mark.parametrize(
    ("um_per_px", "level"), [(2.0, None), (2.05, None), (2.25, "warning"), (4.0, "error"), (1.0, "error")]
)
def test_visium_knows_its_scale(make_pair, um_per_px, level):
    section = honeycomb(make_pair, um_per_px=um_per_px)
    assert section.spot_diameter_px == pytest.approx(27.5)
    said = [finding for finding in check_section(section) if "Visium has 100 µm" in finding.text]
    assert [finding.level for finding in said] == ([] if level is None else [level])
    assert all("the scale is 2 µm/px" in finding.remedy for finding in said)


def test_bins_of_visium_hd_know_their_scale(make_pair):
    section = honeycomb(make_pair, um_per_px=1.0, ids=lambda r, c: f"s_008um_{r:05}_{c:05}-1")
    said = levels(check_section(section))
    assert any("Visium HD in bins of 8 µm has 8 µm" in text for text in said)


def test_scales_that_disagree_and_the_spots_know_which_is_right(make_pair):
    section = honeycomb(make_pair, um_per_px=2.0, microns_per_pixel=1.0)
    said = [text for text in levels(check_section(section)) if "scale factors say" in text]
    assert said == [
        "The scale factors say 1 µm/px, and 2 are used (h5ad). The distance between the spots fits it."
    ]


def test_a_scale_of_the_scale_factors_alone_is_used(make_pair):
    section = honeycomb(make_pair, um_per_px=None, microns_per_pixel=2.0)
    assert (section.mpp, section.mpp_source) == (2.0, "scale factors")
    assert any("Only Space Ranger's scale factors say" in text for text in levels(check_section(section)))


def test_an_unknown_scale_is_offered_by_the_diameter_of_the_spots(make_pair):
    with pytest.raises(CohortError, match=r"px are 65 µm across, as in Visium, it is 2\.36"):
        honeycomb(make_pair, um_per_px=None)


def test_the_reduced_picture_with_positions_of_the_full_one(make_pair):
    picture, h5ad = make_pair(xy=[(100, 100), (1100, 100), (100, 700), (1100, 700)])
    table = anndata.read_h5ad(h5ad)
    table.uns["spatial"] = {"V": {"scalefactors": {"tissue_hires_scalef": 0.1}}}
    table.write_h5ad(h5ad)
    with pytest.raises(CohortError, match=r"Times tissue_hires_scalef \(0.1\) they would lie inside"):
        read_section(picture, h5ad)


def test_a_cohort_of_symbols_and_ids_is_brought_together(good):
    ids = tuple(f"ENSG{i:011d}" for i in range(len(good.genes)))
    by_id = replace(good, name="B", genes=tuple(f"{name}.7" for name in ids), gene_ids=good.genes)
    one, other = with_shared_names([by_id, good])
    assert one.genes == good.genes and other is good
    assert one.gene_ids == by_id.genes and (one.counts != by_id.counts).nnz == 0
    assert "Its genes are called as in section" in one.findings[-1].text
    assert list(between_sections([one, other])) == []


def test_ids_of_a_model_find_the_genes_of_a_section_without_symbols(good):
    ids = tuple(f"ENSG{i:011d}" for i in range(len(good.genes)))
    nameless = replace(good, genes=tuple(f"{name}.7" for name in ids), gene_ids=None)
    assert matched(nameless, good.genes[::-1], ids[::-1], "the model").genes == good.genes
    assert matched(nameless, good.genes, None, "the model") is nameless
    assert matched(good, good.genes[:9], None, "the model") is good


def test_two_ids_of_one_symbol_are_added_up(good):
    ids = [f"ENSG{i:011d}" for i in range(len(good.genes))]
    twice = replace(good, genes=tuple(ids), gene_ids=(good.genes[1], *good.genes[1:]))
    joined = matched(twice, good.genes, None, "the model")
    assert len(joined.genes) == len(good.genes) - 1
    np.testing.assert_array_equal(
        joined.counts[:, joined.genes.index(good.genes[1])].toarray(), good.counts[:, :2].sum(axis=1)
    )


def test_sections_whose_names_cannot_be_brought_together(good, tmp_path):
    other = replace(good, name="B", genes=tuple(name.capitalize() + "x" for name in good.genes))
    third = replace(good, name="C")
    found = check_cohort(Cohort(tmp_path, "c", (good, other, third)))
    assert "are also genes of section SYNTHETIC_P1B" in the_error(found["B"])
    assert (found[NAME], found["C"]) == ((), ())


def test_a_manifest_chooses_a_capture_for_each_section(tmp_path, good):
    table = anndata.read_h5ad(SAMPLE / f"{NAME}.h5ad")
    both = anndata.concat([table, table], keys=["one", "two"], label="library_id", index_unique="-")
    both.uns["um_per_px"] = MPP
    both.write_h5ad(tmp_path / "both.h5ad")
    shutil.copy(SAMPLE / f"{NAME}.tif", tmp_path / "both.tif")
    with pytest.raises(CohortError, match="names several captures"):
        open_cohort(tmp_path)
    lines = [f"- {{slide: both.tif, counts: both.h5ad, name: {n}, library: {n}}}" for n in ("one", "two")]
    (tmp_path / "m.yaml").write_text("\n".join(["sections:", *lines]))
    cohort = open_cohort(tmp_path / "m.yaml")
    assert [(section.name, section.library, len(section)) for section in cohort] == [
        ("one", "one", len(good)), ("two", "two", len(good)),
    ]  # fmt: skip
    np.testing.assert_array_equal(cohort["two"].xy, good.xy)
