"""Indexes of galleries: made once, kept in the cache, used by predictors, told of in what they predict."""

import shutil

import numpy as np
import pytest

from chrep_model.batch.slides import BatchSettings
from chrep_model.bundle import load_bundle
from chrep_model.calibration import index, index_making
from chrep_model.export.writing import write_prediction
from chrep_model.methods import base
from chrep_model.prediction import indexes
from chrep_model.prediction.predictor import Predictor
from chrep_model.prediction.stored import read_prediction
from chrep_model.slides.slide import open_slide

pytest.importorskip("faiss")


@pytest.fixture
def bundle(tiny_bundle):
    return load_bundle(tiny_bundle)


@pytest.fixture
def slow(monkeypatch):
    """Let the exact search seem slow; and have a few be missed, which takes less of so small a gallery."""
    monkeypatch.setattr(base, "REACH", 10)
    monkeypatch.setattr(index_making, "RECALL", 0.8)
    clock = iter([1.0, *[0.1] * 20])
    monkeypatch.setattr(index_making, "_timed", lambda work: (work(), next(clock)))


@pytest.fixture
def made(bundle, slow, tmp_path):
    return indexes.make(bundle, tmp_path)


def predictor(bundle, cache):
    return Predictor(bundle, device="cpu", cache_dir=cache)


def test_a_predictor_looks_for_neighbours_in_the_index_that_is_kept(bundle, made, tmp_path):
    assert 0.8 <= made.recall < 1
    assert indexes.kept(bundle, tmp_path) == made
    gallery = predictor(bundle, tmp_path).bundle.model.fitted.gallery
    assert gallery.index.facts == made
    assert bundle.recall == made.recall
    found, exact = (
        gallery.search(gallery.z, 5),
        load_bundle(bundle.path).model.fitted.gallery.search(gallery.z, 5),
    )
    assert np.mean(found.index == exact.index) > 0.9
    assert not list(tmp_path.rglob("*.partial"))


def test_there_is_none_without_faiss_or_in_another_cache(bundle, made, tmp_path, monkeypatch):
    assert indexes.kept(bundle, tmp_path / "other") is None
    monkeypatch.setattr(index, "available", lambda: False)
    assert indexes.kept(bundle, tmp_path) is None
    assert predictor(bundle, tmp_path).bundle.recall == 1


@pytest.mark.parametrize("ending", ["faiss", "json"])
def test_a_damaged_index_is_not_used(bundle, made, tmp_path, ending):
    (file,) = (tmp_path / "indexes").glob(f"*.{ending}")
    file.write_bytes(file.read_bytes()[:50])
    assert predictor(bundle, tmp_path).bundle.recall == 1


def test_one_that_no_longer_pays_is_removed(bundle, made, tmp_path, monkeypatch):
    monkeypatch.setattr(index_making, "_timed", lambda work: (work(), 1.0))
    assert indexes.make(bundle, tmp_path) is None
    assert not list((tmp_path / "indexes").iterdir())


def test_predictions_say_what_their_search_finds(bundle, made, tiny_cohort, tmp_path):
    with open_slide(sorted(tiny_cohort.glob("*.jpg"))[0]) as slide:
        prediction = predictor(bundle, tmp_path).predict(slide.with_mpp(0.7))
        write_prediction(prediction, tmp_path / "out.h5ad", "h5ad", bundle.genes)
        exact = Predictor(load_bundle(bundle.path), device="cpu", cache_dir=tmp_path / "other")
        assert exact.predict(slide.with_mpp(0.7)).facts()["search_recall"] == 1
    assert prediction.facts()["search_recall"] == made.recall
    assert read_prediction(tmp_path / "out.h5ad").facts()["search_recall"] == pytest.approx(made.recall)


def test_a_slide_is_predicted_again_once_there_is_an_index(bundle, made, tiny_cohort, tmp_path):
    def request(cache):
        job = BatchSettings(
            bundle.path, bundle.hash, cache, (), None, None, 1.0, "h5ad", "cpu", None, "fp32", True
        )
        with open_slide(sorted(tiny_cohort.glob("*.jpg"))[0]) as slide:
            return job.request(slide, bundle)

    with_index, without = request(tmp_path), request(tmp_path / "other")
    shutil.rmtree(tmp_path / "indexes")
    assert with_index != without == request(tmp_path)
