"""What is measured once is what later predictions on this machine do."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from chrep_model.bundle import load_bundle
from chrep_model.inference.predictor import Predictor
from chrep_model.networks import tuning
from chrep_model.networks.encoder import open_encoder
from chrep_model.networks.torchvision_compat import ensure_torchvision


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    ensure_torchvision()
    import timm

    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "random.safetensors"
    save_file(timm.create_model("test_resnet", num_classes=0).state_dict(), file, {"input_size": "3,64,64"})
    return file


def tiles(n):
    return np.random.default_rng(0).integers(0, 256, (n, 64, 64, 3), np.uint8)


def test_the_fastest_is_measured_and_kept(weights, tmp_path):
    encoder = open_encoder("test_resnet", weights=weights)
    assert tuning.tuning_of(encoder, tmp_path) is None
    told = []
    found = tuning.tune(encoder, tmp_path, told.append)
    assert tuning.tuning_of(open_encoder("test_resnet", weights=weights), tmp_path) == found
    best = max(found.tiles_per_s.values())
    assert found.tiles_per_s[found.batch_size] * tuning.GAIN >= best
    assert list(found.tiles_per_s) == list(tuning.SIZES[: len(found.tiles_per_s)])
    assert told[0] == "8 tiles at a time"
    assert told[-1] == f"{found.batch_size} tiles at a time, compiled"
    in_bf16 = open_encoder("test_resnet", weights=weights, precision="bf16")
    assert tuning.tuning_of(in_bf16, tmp_path) is None


def test_a_compiled_network_gives_the_same_whatever_the_batch(weights):
    plain, quick = (open_encoder("test_resnet", weights=weights) for _ in range(2))
    quick.compile(8)
    try:
        found = quick.encode(tiles(8), {})
    except torch._dynamo.exc.BackendCompilerFailed:
        pytest.skip("there is no compiler here")
    np.testing.assert_allclose(found, plain.encode(tiles(8), {}), rtol=1e-4, atol=1e-5)
    few = quick.encode(tiles(3), {})
    assert few.shape == (3, quick.dim)
    np.testing.assert_allclose(few, found[:3], rtol=1e-4, atol=1e-5)


def test_where_compiling_fails_it_is_said_and_not_done(weights, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("no compiler\nat all")

    monkeypatch.setattr(torch, "compile", broken)
    found = tuning.tune(open_encoder("test_resnet", weights=weights), tmp_path)
    assert (found.compiled, found.not_compiled) == (False, "no compiler")
    assert found.compile_s is None


def test_a_predictor_takes_what_was_measured_unless_told_otherwise(tiny_bundle, tmp_path):
    bundle = load_bundle(tiny_bundle)
    assert Predictor(bundle, cache_dir=tmp_path, device="cpu").batch_size == tuning.DEFAULT_BATCH
    encoder = bundle.encoder("cpu")
    measured = tuning.Tuning(batch_size=8, compiled=False, tiles_per_s={8: 1.0})
    file = tuning._file(encoder, tmp_path)
    file.parent.mkdir()
    file.write_text(measured.model_dump_json())
    assert Predictor(bundle, cache_dir=tmp_path, device="cpu").batch_size == 8
    assert Predictor(bundle, cache_dir=tmp_path, device="cpu", batch_size=5).batch_size == 5
    file.write_text(json.dumps({"batch_size": 0}))
    assert Predictor(bundle, cache_dir=tmp_path, device="cpu").batch_size == tuning.DEFAULT_BATCH
