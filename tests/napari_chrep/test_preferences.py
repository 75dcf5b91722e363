"""The plugin's page of napari's preferences, and what heeds it."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from chrep_model.cache import default_cache
from napari_chrep.preferences import preferences


def test_what_the_manifest_says_is_what_holds_at_first():
    first = preferences()
    assert (first.device, first.batch_size, first.tile_budget) == ("auto", 32, 4000)
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
        page.prediction.batch_size = 0


def test_the_next_model_heeds_them(desk, tiny_bundle, page, tmp_path):
    page.prediction.device = "cpu"
    page.prediction.batch_size = 5
    page.store.folder = str(tmp_path / "store")
    desk.load(tiny_bundle)
    predictor = desk.session.predictor
    assert (predictor.device, predictor.batch_size) == ("cpu", 5)
    assert predictor.cache_dir == tmp_path / "store"
