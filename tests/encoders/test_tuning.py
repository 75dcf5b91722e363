"""What is measured once is what later predictions on this machine do."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from chrep_model.bundle import load_bundle
from chrep_model.embeddings.encoding import TileEncoding
from chrep_model.encoders import tuning
from chrep_model.encoders.encoder import DEFAULT_BATCH
from chrep_model.encoders.opening import open_encoder
from chrep_model.prediction.predictor import Predictor
from chrep_model.progress import Progress
from chrep_model.slides.slide import open_slide


@pytest.fixture
def opened(tiny_encoder):
    """Open a small encoder: ``opened(precision="fp32")``."""
    name, weights = tiny_encoder
    return lambda **options: open_encoder(name, weights=weights, **options)


def tiles(n):
    return np.random.default_rng(0).integers(0, 256, (n, 64, 64, 3), np.uint8)


def test_the_fastest_is_measured_and_kept(opened, tmp_path):
    encoder = opened()
    assert tuning.tuning_of(encoder, tmp_path) is None
    told = []
    found = tuning.tune(encoder, tmp_path, Progress(message=told.append))
    assert tuning.tuning_of(opened(), tmp_path) == found
    best = max(found.tiles_per_s.values())
    assert found.tiles_per_s[found.batch_size] * tuning.GAIN >= best
    assert list(found.tiles_per_s) == list(tuning.SIZES[: len(found.tiles_per_s)])
    assert told[0] == "8 tiles at a time"
    chosen = f"{found.batch_size} tiles at a time"
    assert told[-2:] == [f"{chosen} on each core", f"{chosen}, compiled"]
    assert found.each_core_tiles_per_s > 0
    assert tuning.tuning_of(opened(precision="bf16"), tmp_path) is None


def test_a_compiled_network_gives_the_same_whatever_the_batch(opened):
    plain, quick = opened(), opened()
    quick.compile(8)
    try:
        found = quick.encode(tiles(8), {})
    except torch._dynamo.exc.BackendCompilerFailed:
        pytest.skip("there is no compiler here")
    np.testing.assert_allclose(found, plain.encode(tiles(8), {}), rtol=1e-4, atol=1e-5)
    few = quick.encode(tiles(3), {})
    assert few.shape == (3, quick.dim)
    np.testing.assert_allclose(few, found[:3], rtol=1e-4, atol=1e-5)


def test_a_compiled_network_without_room_takes_smaller_batches(opened, monkeypatch):
    encoder, plain, seen = opened(), opened(), []
    network = plain._for_inference

    def tight(x):
        seen.append(len(x))
        if len(x) > 3:
            raise torch.OutOfMemoryError("no room")
        return network(x)

    monkeypatch.setattr(torch, "compile", lambda _network, **_options: tight)
    encoder.compile(8)
    encoding = TileEncoding(None, encoder, 8)
    np.testing.assert_allclose(
        encoding.encode(tiles(6), {}), plain.encode(tiles(6), {}), rtol=1e-4, atol=1e-5
    )
    assert seen == [8, 3, 3]  # filled up, then as they are
    assert encoding.batch_size == 3


def test_where_compiling_fails_it_is_said_and_not_done(opened, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("no compiler\nat all")

    monkeypatch.setattr(torch, "compile", broken)
    found = tuning.tune(opened(), tmp_path)
    assert (found.compiled, found.not_compiled) == (False, "no compiler")
    assert found.compile_s is None


def test_a_predictor_takes_what_was_measured_unless_told_otherwise(tiny_bundle, tmp_path):
    bundle = load_bundle(tiny_bundle)
    assert Predictor(bundle, cache_dir=tmp_path, device="cpu").batch_size == DEFAULT_BATCH
    encoder = bundle.encoder("cpu")
    measured = tuning.Tuning(batch_size=8, compiled=False, tiles_per_s={8: 1.0})
    file = tuning._file(encoder, tmp_path)
    file.parent.mkdir()
    file.write_text(measured.model_dump_json())
    assert Predictor(bundle, cache_dir=tmp_path, device="cpu").batch_size == 8
    assert Predictor(bundle, cache_dir=tmp_path, device="cpu", batch_size=5).batch_size == 5
    file.write_text(json.dumps({"batch_size": 0}))
    assert Predictor(bundle, cache_dir=tmp_path, device="cpu").batch_size == DEFAULT_BATCH


@pytest.mark.parametrize(("pays", "whole_slides"), [(True, True), (True, False), (False, True)])
def test_a_network_is_compiled_for_whole_slides_where_that_pays(
    pays, whole_slides, tiny_bundle, tiny_cohort, tmp_path, monkeypatch
):
    bundle = load_bundle(tiny_bundle)
    compiled = []
    encoder = bundle.encoder("cpu")
    monkeypatch.setattr(type(encoder), "compile", lambda _, size: compiled.append(size))
    file = tuning._file(encoder, tmp_path)
    file.parent.mkdir()
    file.write_text(tuning.Tuning(batch_size=8, compiled=pays, tiles_per_s={8: 1.0}).model_dump_json())
    predictor = Predictor(bundle, cache_dir=tmp_path, device="cpu", whole_slides=whole_slides)
    assert compiled == ([8] if pays and whole_slides else [])
    with open_slide(tiny_cohort / "SYNTHETIC_P1A.jpg", mpp=0.7) as slide:
        encoding = predictor.prepare(slide).embeddings._encoding
    assert encoding.in_bulk is (whole_slides and not pays)  # what is compiled needs all cores
