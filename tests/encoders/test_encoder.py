"""Encoders: the built-in one per slide, timm's with real weights, and what is refused."""

import shutil

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from chrep_model.encoders.opening import open_encoder
from chrep_model.encoders.torchvision_compat import ensure_torchvision
from chrep_model.errors import BundleError, SettingsError

FILE = "mobilenetv2_100.tf2_in1k.fp16.safetensors"


@pytest.fixture(scope="module")
def tiles():
    """Smooth random colour fields, uint8 (4, 224, 224, 3)."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.uniform(0, 255, (4, 3, 14, 14)).astype(np.float32))
    fine = torch.nn.functional.interpolate(coarse, size=224, mode="bilinear")
    return fine.permute(0, 2, 3, 1).round().to(torch.uint8).contiguous().numpy()


@pytest.fixture(scope="module")
def weights(shared_weights):
    return shared_weights / FILE


def test_the_built_in_encoder_is_the_default_and_has_the_tile_that_was_asked_for():
    encoder = open_encoder()
    assert encoder.name == "stainbank"
    assert (encoder.spec.px, encoder.spec.um) == (224, pytest.approx(150))
    finer = open_encoder(tile_um=100, mpp=2.0)
    assert (finer.spec.px, finer.spec.mpp) == (50, 2.0)


def test_the_id_says_what_decides_the_numbers():
    ids = [
        open_encoder(tile_um=um, mpp=mpp).id for um, mpp in [(150, None), (100, None), (150, 1.0), (150, 2.0)]
    ]
    assert len(set(ids)) == 4
    assert open_encoder(tile_um=150, mpp=1.0).id == ids[2]


def test_the_built_in_encoder_sees_the_slide_it_was_fitted_to(tiles):
    encoder = open_encoder()
    state = encoder.fit_slide(tiles)
    first = encoder.encode(tiles, state)
    assert first.shape == (4, encoder.dim)
    assert first.dtype == np.float32
    other = {**state, "strength": [2 * s for s in state["strength"]]}
    assert np.abs(encoder.encode(tiles, other) - first).max() > 0.05
    np.testing.assert_array_equal(encoder.encode(tiles, state), first)  # and back again


@pytest.mark.parametrize(("tile_um", "mpp"), [(10, 1.0), (3, 0.1)])
def test_a_tile_without_room_for_texture_is_refused(tile_um, mpp):
    with pytest.raises(SettingsError, match=f"{tile_um} µm") as caught:
        open_encoder(tile_um=tile_um, mpp=mpp)
    assert "--tile-um" in caught.value.remedy


def test_the_smallest_tile_that_is_taken_has_numbers():
    encoder = open_encoder(tile_um=12, mpp=0.1)
    tiles = np.random.default_rng(0).integers(0, 256, (2, encoder.spec.px, encoder.spec.px, 3), np.uint8)
    assert np.isfinite(encoder.encode(tiles, encoder.fit_slide(tiles))).all()


def test_an_unknown_name_gets_the_nearest_ones():
    with pytest.raises(SettingsError, match="mobilenetv2_10O") as caught:
        open_encoder("mobilenetv2_10O")
    assert "mobilenetv2_100" in caught.value.remedy
    with pytest.raises(SettingsError, match="stainbank"):
        open_encoder("xyzzy")


def test_weights_for_the_encoder_without_weights(tmp_path):
    with pytest.raises(SettingsError, match="--weights"):
        open_encoder(weights=tmp_path / "some.safetensors")


@pytest.mark.parametrize("kind", ["missing", "text", "folder", "pickle"])
def test_a_file_that_is_no_safetensors_is_refused_by_name(kind, tmp_path):
    path = tmp_path / "weights.bin"
    if kind == "text":
        path.write_text("not weights")
    elif kind == "folder":
        path.mkdir()
    elif kind == "pickle":
        torch.save({"a": torch.zeros(2)}, path)
    with pytest.raises(SettingsError, match="safetensors") as caught:
        open_encoder("mobilenetv2_100", weights=path)
    assert caught.value.path == str(path)


def test_weights_of_another_network_are_refused_by_name(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"conv_stem.weight": torch.zeros(8, 3, 3, 3)}, path)
    with pytest.raises(BundleError, match="mobilenetv2_100") as caught:
        open_encoder("mobilenetv2_100", weights=path)
    assert caught.value.path == str(path)
    assert caught.value.remedy


def test_weights_that_cannot_be_fetched_are_asked_for(monkeypatch):
    import timm

    def offline(*args, **kwargs):
        raise OSError("[Errno -2] Name or service not known")

    ensure_torchvision()
    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(SettingsError, match="mobilenetv2_100") as caught:
        open_encoder("mobilenetv2_100")
    assert "--weights" in caught.value.remedy


@pytest.mark.real
def test_real_weights_give_the_features_of_a_plain_timm_model(weights, tiles):
    encoder = open_encoder("mobilenetv2_100", weights=weights)
    assert (encoder.dim, encoder.spec.px, encoder.spec.um) == (1280, 224, pytest.approx(150))

    import timm

    model = timm.create_model(
        "mobilenetv2_100", pretrained=False, pad_type="same", checkpoint_path=str(weights)
    )
    model.reset_classifier(0)
    model.eval()
    x = torch.from_numpy(tiles).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        expected = model((x - 0.5) / 0.5).numpy()
    found = encoder.encode(tiles, encoder.fit_slide(tiles))
    assert expected.std() > 0.05
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.real
def test_padding_and_preprocessing_come_from_the_weights_file(weights, tiles, tmp_path):
    """The same numbers under other metadata are another encoder, and say so."""
    encoder = open_encoder("mobilenetv2_100", weights=weights)
    with safe_open(weights, framework="pt") as file:
        facts = dict(file.metadata())
    assert facts["pad_type"] == "same"
    ids, features = {encoder.id}, [encoder.encode(tiles, {})]
    for i, change in enumerate([{"pad_type": ""}, {"mean": "0.485,0.456,0.406"}]):
        path = tmp_path / f"{i}.safetensors"
        save_file(load_file(weights), path, metadata=facts | change)
        other = open_encoder("mobilenetv2_100", weights=path)
        ids.add(other.id)
        features.append(other.encode(tiles, {}))
    assert len(ids) == 3
    assert min(np.abs(f - features[0]).max() for f in features[1:]) > 0.01


@pytest.mark.real
def test_the_id_follows_the_weights_and_the_tile_not_the_file_name(weights, tmp_path):
    encoder = open_encoder("mobilenetv2_100", weights=weights)
    copy = tmp_path / "renamed.safetensors"
    shutil.copyfile(weights, copy)
    assert open_encoder("mobilenetv2_100", weights=copy).id == encoder.id
    assert open_encoder("mobilenetv2_100", weights=weights, tile_um=100).id != encoder.id
    assert open_encoder("mobilenetv2_100", weights=weights, mpp=0.5).spec.um == pytest.approx(112)
    with safe_open(weights, framework="pt") as file:
        facts = dict(file.metadata())
    state = load_file(weights)
    state["conv_stem.weight"][0, 0, 0, 0] += 0.01
    changed = tmp_path / "changed.safetensors"
    save_file(state, changed, metadata=facts)
    assert open_encoder("mobilenetv2_100", weights=changed).id != encoder.id


@pytest.mark.parametrize(
    "name",
    [
        "mobilenetv3_small_050",
        pytest.param("resnet18", marks=pytest.mark.slow),
        pytest.param("vit_tiny_patch16_224", marks=pytest.mark.slow),
    ],
)
def test_embeddings_are_as_long_as_said(name, tiles, tmp_path):
    """Also where a hidden layer stands between the pooling and the classifier."""
    ensure_torchvision()
    import timm

    weights = tmp_path / "random.safetensors"
    save_file(timm.create_model(name, num_classes=0).state_dict(), weights)
    encoder = open_encoder(name, weights=weights)
    pixels = np.zeros((1, encoder.spec.px, encoder.spec.px, 3), np.uint8)
    assert encoder.encode(pixels, {}).shape == (1, encoder.dim)


def test_in_bf16_embeddings_are_those_of_fp32_but_for_rounding(weights, tiles):
    full, half = (open_encoder("mobilenetv2_100", weights=weights, precision=p) for p in ("fp32", "bf16"))
    one, other = full.encode(tiles, {}), half.encode(tiles, {})
    assert other.dtype == np.float32
    assert 0.99 < np.corrcoef(one.ravel(), other.ravel())[0, 1] < 1 - 1e-6
    assert full.id == half.id and (full.precision, half.precision) == ("fp32", "bf16")
    with pytest.raises(SettingsError, match="fp32 alone"):
        open_encoder(precision="bf16")
