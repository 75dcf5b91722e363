"""From files to a bundle and what is shown of it, where a section's table lacks genes."""

from __future__ import annotations

import shutil

import anndata
import numpy as np
import pytest
import zarr

from chrep_model.analysis.explanation import explain
from chrep_model.bundle import load_bundle
from chrep_model.bundle.extending import with_section
from chrep_model.bundle.stored_gallery import read_gallery, write_gallery
from chrep_model.calibration.corrector import CorrectorSettings
from chrep_model.cohorts.cohort import open_cohort
from chrep_model.methods.chrep import ChrepSettings
from chrep_model.methods.chrep.phase1 import Phase1Settings
from chrep_model.pipeline import TrainSettings, calibrate, train
from chrep_model.prediction.predictor import Predictor
from chrep_model.progress import Progress
from chrep_model.slides.slide import open_slide
from chrep_model.training.features import section_features

SMALL = ChrepSettings(
    trees=5,
    phase1=Phase1Settings(members=1, epochs=2, inputs=8, dim=8, hidden=8),
    corrector=CorrectorSettings(epochs=2, hidden=8),
    k=10,
)


@pytest.fixture(scope="module")
def cohorts(tiny_cohort, tiny_bundle, tmp_path_factory):
    """The tiny cohort, and a copy in which one section's table lacks four genes."""
    folder = tmp_path_factory.mktemp("gaps") / "cohort"
    shutil.copytree(tiny_cohort, folder)
    path = folder / "SYNTHETIC_P1B.h5ad"
    table = anndata.read_h5ad(path)
    table[:, ~table.var_names.isin(load_bundle(tiny_bundle).genes[:4])].copy().write_h5ad(path)
    return open_cohort(tiny_cohort), open_cohort(folder)


@pytest.fixture(scope="module")
def trained(cohorts, tmp_path_factory):
    """A bundle of the copy, with what was said."""
    _, cohort = cohorts
    folder, said = tmp_path_factory.mktemp("bundle"), []
    genes = folder / "genes.txt"
    genes.write_text("\n".join([*cohort.sections[0].genes, "NOBODY1"]), encoding="utf-8")
    settings = TrainSettings(tile_um=100, mpp=2.0, context_um=(200.0,), genes=genes, chrep=SMALL)
    progress = Progress(warn=said.append)
    train(cohort, settings, folder / "gaps.chrep", device="cpu", cache=folder / "cache", progress=progress)
    return load_bundle(folder / "gaps.chrep"), said


@pytest.fixture(scope="module")
def dropped(cohorts):
    whole, cohort = (c["SYNTHETIC_P1B"] for c in cohorts)
    return tuple(name for name in whole.genes if name not in cohort.genes)


def test_the_user_is_told(trained, dropped):
    bundle, said = trained
    assert "NOBODY1" not in bundle.genes
    unknown, gap = said
    assert (
        f"1 of {len(bundle.genes) + 1} listed genes are in no training section and are left out: NOBODY1"
        in unknown
    )
    assert (
        f"section SYNTHETIC_P1B did not measure 4 of the {len(bundle.genes)} genes ({', '.join(dropped)})"
        in gap
    )


def test_the_bundle_knows_what_was_measured(trained, dropped, tmp_path):
    bundle, _ = trained
    gallery = bundle.model.fitted.gallery
    lacking = gallery.section_names.index("SYNTHETIC_P1B")
    expected = np.ones((3, len(bundle.genes)), bool)
    expected[lacking, bundle.panel.indices(dropped)] = False
    np.testing.assert_array_equal(gallery.measured, expected)
    assert np.isfinite(gallery.expression).all()
    write_gallery(tmp_path / "gallery.zarr", gallery)
    np.testing.assert_array_equal(read_gallery(tmp_path / "gallery.zarr").measured, expected)
    zarr.open_group(tmp_path / "gallery.zarr", mode="r+").create_array(
        "measured", data=np.ones((2, 5), np.uint8), overwrite=True
    )
    with pytest.raises(ValueError, match="what was measured has the shape"):
        read_gallery(tmp_path / "gallery.zarr")
    trust = bundle.trust
    assert np.isnan(trust.correlations[lacking, bundle.panel.indices(dropped)]).all()
    assert np.isfinite(trust.quantiles).all() and np.isfinite(trust.variance).all()


def test_a_complete_cohort_stores_no_such_thing(tiny_bundle):
    bundle = load_bundle(tiny_bundle)
    assert "measured" not in zarr.open_group(tiny_bundle / "gallery.zarr", mode="r")
    assert bundle.model.fitted.gallery.measured is None
    assert "counted" not in bundle.trust.arrays()


def test_a_neighbour_that_lacks_the_gene_says_so(trained, dropped, cohorts, tmp_path):
    bundle, _ = trained
    slide = open_slide(cohorts[1]["SYNTHETIC_P1B"].slide_path).with_mpp(0.7, source="cohort")
    prediction = Predictor(bundle, device="cpu", cache_dir=tmp_path).predict(slide)
    gene, tile = dropped[0], int(prediction.indices[len(prediction) // 2])
    assert np.isfinite(prediction.map(gene).ravel()[prediction.indices]).all()
    why = explain(prediction, tile, gene)
    lacking = [n for n in why.neighbours if n.section == "SYNTHETIC_P1B"]
    others = [n for n in why.neighbours if n.section != "SYNTHETIC_P1B"]
    assert lacking and others  # the slide's own section is near
    assert all(n.measured is None and n.weight == 0 for n in lacking)
    assert sum(n.weight for n in others) == pytest.approx(1, abs=1e-5)
    estimate = sum(n.weight * n.measured for n in others)
    assert estimate == pytest.approx(next(t.answer for t in why.terms if t.name == "estimate"), abs=1e-4)
    gallery = bundle.model.fitted.gallery
    assert len(why.gallery) == (gallery.section != gallery.section_names.index("SYNTHETIC_P1B")).sum()
    assert np.isfinite(why.gallery).all()
    known = next(g for g in bundle.genes if g not in dropped)
    why = explain(prediction, tile, known)
    assert len(why.gallery) == len(gallery) and all(n.measured is not None for n in why.neighbours)


def test_calibrating_and_adding_spots_that_lack_genes(tiny_bundle, cohorts, tmp_path):
    whole, gaps = cohorts
    old, said = load_bundle(tiny_bundle), []
    lacking = old.panel.missing(gaps["SYNTHETIC_P1B"])
    assert lacking
    new = calibrate(
        old,
        gaps,
        tmp_path / "new.chrep",
        device="cpu",
        cache=tmp_path / "c",
        progress=Progress(warn=said.append),
    )
    assert len(said) == 1 and "section SYNTHETIC_P1B did not measure" in said[0]
    measured = new.model.fitted.gallery.measured
    number = new.model.fitted.gallery.section_names.index("SYNTHETIC_P1B")
    assert not measured[number, old.panel.indices(lacking)].any()
    assert measured.sum() == measured.size - len(lacking)

    encoder = old.encoder()
    section = gaps["SYNTHETIC_P1B"]
    features = section_features([section], encoder, old.context_um, cache=tmp_path / "c")[section.name]
    more = with_section(old, section, features, encoder, tmp_path / "more.chrep")
    gallery = load_bundle(more.path).model.fitted.gallery
    np.testing.assert_array_equal(gallery.measured, measured)
    assert np.isfinite(more.model.read(more.model.respond(features), "calibrated")).all()
    again = with_section(
        more, whole["SYNTHETIC_P1B"], features, encoder, tmp_path / "again.chrep"
    )  # now it is complete
    assert again.model.fitted.gallery.measured is None
