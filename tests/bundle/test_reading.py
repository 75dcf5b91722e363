"""Bundles that are damaged, edited or do not belong together: a clear refusal of each."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch

from chrep_model.bundle import load_bundle
from chrep_model.bundle.reading import folder_hash
from chrep_model.encoders.opening import open_encoder
from chrep_model.encoders.torchvision_compat import ensure_torchvision
from chrep_model.methods import trees

# Damage


FILES = ("weights.safetensors", "genes.parquet", "gallery.zarr/z/c/0/0", "gallery.zarr/zarr.json")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_file_is_named(copy, name, damage, refused):
    file = copy / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes({"flip": content, "cut": content[:-5], "empty": b""}[damage])
    top = name.split("/")[0]
    refused(copy, match=f"{top} is not the file", file=top)


@pytest.mark.parametrize("name", ["weights.safetensors", "genes.parquet", "gallery.zarr"])
def test_a_lost_file_is_named(copy, name, refused):
    shutil.rmtree(copy / name) if (copy / name).is_dir() else (copy / name).unlink()
    refused(copy, match=f"lost {name}")


def test_a_chunk_too_few_or_too_many(copy, refused):
    (copy / "gallery.zarr/z/c/0/0").rename(copy / "gallery.zarr/z/c/0/1")
    refused(copy, match=r"gallery.zarr is not", file="gallery.zarr")


def test_what_file_managers_leave_behind_does_no_harm(copy):
    for name in (
        ".DS_Store",
        "gallery.zarr/.DS_Store",
        "gallery.zarr/z/._zarr.json",
        "gallery.zarr/Thumbs.db",
    ):
        (copy / name).write_bytes(b"\0\0\0\1Bud1")
    assert load_bundle(copy).model


def test_a_swapped_gallery(copy, tmp_path, save, make_model, refused):
    other = save(tmp_path / "other.chrep", make_model(seed=5)).path
    shutil.rmtree(copy / "gallery.zarr")
    shutil.copytree(other / "gallery.zarr", copy / "gallery.zarr")
    refused(copy, match=r"gallery.zarr is not the file", file="gallery.zarr")


@pytest.mark.parametrize(
    "change",
    [
        {"context_um": [600.0]}, {"note": ""}, {"variants": ["raw", "calibrated"]}, {"mpp": 1.0}, {"px": 224},
        {"genes": 8}, {"method": "knn"}, {"encoder_id": "0" * 16}, {"seed": 4}, {"files": {}}, {"seal": ""},
        {"cohort": "a larger one"},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_an_edited_card_is_refused(copy, change, edit_card, refused):
    edit_card(copy, **change)
    refused(copy, match="card", file="card.json")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '"card"', "{}", '{"format": 2}', '{"format": 2, "name": NaN}', "\ud800"],
)
def test_a_card_that_is_none(copy, text, refused):
    (copy / "card.json").write_bytes(text.encode("utf-16" if text == "\ud800" else "utf-8", "surrogatepass"))
    refused(copy, match="card.json", file="card.json")


def test_a_card_with_more_fields_is_none_of_ours(copy, edit_card, refused):
    edit_card(copy, command="rm -rf")
    refused(copy, match="card.json", file="card.json")


@pytest.mark.parametrize("other", [1, 3])
def test_another_format_says_so_whatever_else_it_holds(copy, edit_card, refused, other):
    edit_card(copy, format=other, something_new=[1])
    error = refused(copy, match=f"format {other}; this version reads 2")
    assert "train it again" in error.remedy


@pytest.mark.parametrize("place", ["missing", "file", "folder"])
def test_no_bundle_at_all(place, tmp_path, refused):
    path = tmp_path / "x"
    if place == "file":
        path.write_text("text")
    elif place == "folder":
        path.mkdir()
    refused(path, match="no bundle")


# Bundles that were written wrongly: the hashes are right, and the parts do not fit


def test_a_wrong_number_of_genes(copy, edit_card, refused):
    edit_card(copy, resealed=True, genes=8)
    refused(copy, match="8 genes, the file has 9")


def test_a_gallery_of_other_genes(copy, tmp_path, edit_card, reseal, refused):
    frame = pd.read_parquet(copy / "genes.parquet")
    frame.iloc[:-1].to_parquet(copy / "genes.parquet")
    reseal(copy, "genes.parquet")
    edit_card(copy, resealed=True, genes=8)
    refused(copy, match="gallery holds 9 genes, the panel 8")


@pytest.mark.parametrize("fault", ["text", "columns", "nan"])
def test_genes_that_are_none(copy, fault, reseal, refused):
    file = copy / "genes.parquet"
    frame = pd.read_parquet(file)
    if fault == "text":
        file.write_text("gene,mean,sd")
    else:
        (frame.drop(columns="sd") if fault == "columns" else frame.assign(mean=np.nan)).to_parquet(file)
    reseal(copy, "genes.parquet")
    refused(copy, match="genes cannot be read", file="genes.parquet")


def test_an_encoder_it_was_not_trained_on(copy, edit_card, refused):
    edit_card(copy, resealed=True, encoder_id="0" * 16)
    refused(copy, match="encoder stainbank is not the one")


@pytest.mark.parametrize("change", [{"mpp": 1.0}, {"px": 60}])
def test_tiles_it_was_not_trained_on(copy, change, edit_card, refused):
    edit_card(copy, resealed=True, **change)
    refused(copy, match="encoder stainbank is not the one")


def test_a_method_of_another_version(copy, edit_card, refused):
    edit_card(copy, resealed=True, method="cleverer")
    refused(copy, match="'cleverer', which this version does not know")


@pytest.mark.parametrize("fault", ["another method", "a weight too few", "no scale"])
def test_weights_that_do_not_fit(copy, fault, edit_card, reseal, refused):
    file = copy / "weights.safetensors"
    arrays = load_file(file)
    if fault == "another method":
        edit_card(copy, resealed=True, method="chrep")
    else:
        del arrays["method.w" if fault == "a weight too few" else "scale.sd"]
        save_file(arrays, file)
        reseal(copy, "weights.safetensors")
    refused(copy, match="do not fit together")


@pytest.mark.parametrize("fault", ["lost", "shape", "genes"])
def test_intervals_that_do_not_fit(trusting, tmp_path, reseal, refused, fault):
    folder = shutil.copytree(trusting, tmp_path / "m.chrep")
    file = folder / "weights.safetensors"
    arrays = load_file(file)
    names = [name for name in arrays if name.startswith("trust.")]
    if fault == "lost":
        del arrays["trust.variance"]
    for name in names if fault == "genes" else ["trust.quantiles"]:
        if fault != "lost" and name != "trust.distances":
            arrays[name] = arrays[name][:, :-1].copy()
    save_file(arrays, file)
    reseal(folder, "weights.safetensors")
    refused(folder, match="for 8 genes, the panel has 9" if fault == "genes" else "intervals cannot be read")


def test_weights_of_another_shape(tmp_path, monkeypatch, save, make_model, reseal, refused):
    monkeypatch.setattr(trees, "TREES", 5)
    folder = save(tmp_path / "m.chrep", make_model("chrep")).path
    file = folder / "weights.safetensors"
    arrays = load_file(file)
    name = next(k for k in arrays if k.endswith("residual.0.weight"))
    arrays[name] = arrays[name][:, :-1].copy()
    save_file(arrays, file)
    reseal(folder, "weights.safetensors")
    refused(folder, match="do not fit together")


def test_a_card_cannot_reach_out_of_its_folder(copy, tmp_path, edit_card, refused):
    (tmp_path / "secret").write_text("x")
    facts = json.loads((copy / "card.json").read_text(encoding="utf-8"))
    edit_card(copy, resealed=True, files=facts["files"] | {"../secret": folder_hash(tmp_path / "secret")})
    refused(copy, match="lost")


# Encoder weights


def test_weights_from_a_file_travel_with_the_bundle(tmp_path, save, reseal, refused):
    """A tiny stand-in: the file is copied, hashed, and its encoder id compared."""
    ensure_torchvision()
    import timm

    model = timm.create_model("mobilenetv2_035", num_classes=0)
    weights = tmp_path / "mine.safetensors"
    save_torch(model.state_dict(), weights)
    encoder = open_encoder("mobilenetv2_035", weights=weights, tile_um=100)
    folder = save(tmp_path / "m.chrep", encoder=encoder, weights=weights).path
    weights.unlink()
    bundle = load_bundle(folder)
    assert bundle.encoder_weights == folder / "encoder.safetensors"
    again = bundle.encoder()
    assert again.id == encoder.id
    assert again.spec == encoder.spec
    tiles = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), np.uint8)
    np.testing.assert_array_equal(again.encode(tiles, {}), encoder.encode(tiles, {}))

    state = model.state_dict()
    state["conv_stem.weight"] = torch.zeros_like(state["conv_stem.weight"])
    save_torch(state, folder / "encoder.safetensors")
    refused(folder, match=r"encoder.safetensors is not the file", file="encoder.safetensors")
    reseal(folder, "encoder.safetensors")
    refused(folder, match="its weights differ")
    (folder / "encoder.safetensors").unlink()
    refused(folder, match="weights of its encoder mobilenetv2_035 are not on this machine")
