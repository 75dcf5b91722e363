"""The user's settings, and what heeds them."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from chrep_model.cache import default_cache
from chrep_model.cohorts.cohort import open_cohort
from chrep_model.pipeline import TrainSettings, train
from napari_chrep.state.settings import preferences


def test_what_the_manifest_says_is_what_holds_at_first():
    first = preferences()
    assert (first.device, first.batch_size, first.tile_budget) == ("auto", None, 4000)
    assert first.cache == default_cache() and first.cache_bytes == 20e9


def test_what_was_set_is_read_and_what_is_impossible_refused(page, tmp_path):
    page.prediction.batch_size = 7
    page.store.folder = f" {tmp_path} "
    page.store.size_gb = 0.5
    assert preferences().batch_size == 7
    assert preferences().cache == tmp_path and preferences().cache_bytes == 5e8
    with pytest.raises(ValidationError):
        page.prediction.device = "abacus"
    with pytest.raises(ValidationError):
        page.prediction.batch_size = -1
    with pytest.raises(ValidationError):
        page.prediction.precision = "fp8"


def test_the_next_model_heeds_them(desk, tiny_bundle, page, tmp_path):
    page.prediction.device = "cpu"
    page.prediction.batch_size = 5
    page.store.folder = str(tmp_path / "store")
    desk.load(tiny_bundle)
    predictor = desk.session.predictor
    assert (predictor.device, predictor.batch_size) == ("cpu", 5)
    assert predictor.cache_dir == tmp_path / "store"


def test_bf16_is_for_encoders_that_know_it(desk, tiny_bundle, tiny_cohort, tiny_encoder, page, tmp_path):
    page.prediction.precision = "bf16"
    desk.load(tiny_bundle)
    assert desk.session.predictor.encoder.precision == "fp32"
    name, weights = tiny_encoder
    settings = TrainSettings(encoder=name, weights=weights, method="ridge", genes=5, context_um=())
    train(open_cohort(tiny_cohort), settings, tmp_path / "timm.chrep", cache=tmp_path / "cache", device="cpu")
    desk.load(tmp_path / "timm.chrep")
    assert desk.session.predictor.encoder.precision == "bf16"
