"""Bundles: the same model from disk, and a clear refusal of everything that does not belong together."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch

from chrep_model import bundle as module
from chrep_model.bundle import Card, check_place, describe, load_bundle, save_bundle
from chrep_model.calibration.corrector import CorrectorSettings
from chrep_model.cohorts.genes import GenePanel
from chrep_model.errors import BundleError
from chrep_model.methods import trees
from chrep_model.methods.chrep import ChrepSettings
from chrep_model.methods.model import FeatureScale, Model
from chrep_model.methods.phase1 import Phase1Settings
from chrep_model.methods.registry import METHODS, MethodSettings, make_method
from chrep_model.networks.encoder import open_encoder
from chrep_model.networks.torchvision_compat import ensure_torchvision
from chrep_model.training.samples import SpotTable

DIM, GENES = 12, 9
SMALL = ChrepSettings(
    phase1=Phase1Settings(members=1, epochs=2, inputs=8, dim=8, hidden=8),
    corrector=CorrectorSettings(epochs=2, hidden=8),
    k=10,
)


def make_model(method="ridge", seed=0):
    rng = np.random.default_rng(seed)
    n = 60
    table = SpotTable(
        features=rng.standard_normal((n, DIM)).astype(np.float32),
        targets=rng.standard_normal((n, GENES)).astype(np.float32),
        section=np.repeat([0, 1, 2], 20),
        patient=np.repeat([0, 0, 1], 20),
        position=rng.uniform(0, 1000, (n, 2)),
        section_names=("A", "B", "Ö"),
    )
    genes = tuple(f"G{i}" for i in range(GENES))
    panel = GenePanel(genes, rng.uniform(0, 2, GENES), rng.uniform(0.5, 1, GENES))
    scale = FeatureScale(rng.standard_normal(DIM).astype(np.float32), np.full(DIM, 1.5, np.float32))
    return Model(panel, scale, make_method(method, MethodSettings(chrep=SMALL)).fit(table, seed=seed))


def save(path, model=None, encoder=None, **changes):
    facts = {
        "weights": None, "context_um": (300.0,), "cohort": "cohort", "seed": 3, "note": "a note, µm",
        "sections": [{"name": "A", "patient": "P1", "slide": "A.jpg", "mpp": 0.7, "spots": 20}],
        "settings": {"genes": 9, "tile_um": 100.0, "chrep": SMALL.model_dump(mode="json")},
    }  # fmt: skip
    encoder = encoder or open_encoder(tile_um=100, mpp=2.0)
    return save_bundle(path, model or make_model(), encoder, **(facts | changes))


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A bundle that is only read."""
    return save(tmp_path_factory.mktemp("bundles") / "model.chrep").path


@pytest.fixture
def copy(original, tmp_path):
    """A bundle to be damaged."""
    return Path(shutil.copytree(original, tmp_path / "model.chrep"))


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def edit_card(folder, resealed=False, **changes):
    """Change fields of the card; `resealed` as somebody who writes bundles would."""
    file = folder / "card.json"
    facts = json.loads(file.read_text(encoding="utf-8")) | changes
    if resealed:
        facts = json.loads(Card.model_validate(facts).sealed().model_dump_json())
    file.write_text(json.dumps(facts), encoding="utf-8")


def refused(folder, *, match, file=None):
    """Check that loading (with model and encoder) fails in one clear line; give the error."""
    with pytest.raises(BundleError, match=match) as caught:
        loaded = load_bundle(folder)
        loaded.encoder()
        loaded.model  # noqa: B018
    assert caught.value.path == str(folder / file if file else folder)
    assert caught.value.remedy
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("method", METHODS)
def test_a_model_comes_back_as_it_was(method, tmp_path, monkeypatch):
    monkeypatch.setattr(trees, "TREES", 5)
    model = make_model(method)
    save(tmp_path / "m.chrep", model)
    again = load_bundle(tmp_path / "m.chrep")
    assert again.card.method == method
    assert tuple(again.card.variants) == model.fitted.variants
    features = np.random.default_rng(1).standard_normal((30, DIM)).astype(np.float32)
    first, second = model.respond(features), again.model.respond(features)
    np.testing.assert_array_equal(first["distance"], second["distance"])
    for variant in model.fitted.variants:
        np.testing.assert_array_equal(model.read(first, variant), again.model.read(second, variant))


def test_everything_on_the_card_and_in_the_gallery_comes_back(original):
    model, bundle = make_model(), load_bundle(original)
    assert bundle.genes == model.panel.genes
    assert bundle.panel.hash == model.panel.hash
    np.testing.assert_array_equal(bundle.model.scale.mean, model.scale.mean)
    np.testing.assert_array_equal(bundle.model.scale.sd, model.scale.sd)
    for name in ("z", "expression", "section", "patient", "position"):
        values = getattr(bundle.model.fitted.gallery, name)
        expected = getattr(model.fitted.gallery, name)
        np.testing.assert_array_equal(values, expected)
        assert values.dtype == expected.dtype
    assert bundle.model.fitted.gallery.section_names == ("A", "B", "Ö")
    card = bundle.card
    assert (card.name, card.cohort, card.seed, card.note) == ("model", "cohort", 3, "a note, µm")
    assert card.sections[0] == {"name": "A", "patient": "P1", "slide": "A.jpg", "mpp": 0.7, "spots": 20}
    assert ChrepSettings.model_validate(card.settings["chrep"]) == SMALL
    assert (bundle.spec.mpp, bundle.spec.px, bundle.context_um) == (2.0, 50, (300.0,))
    assert bundle.encoder().id == card.encoder_id == open_encoder(tile_um=100, mpp=2.0).id
    assert "ridge on stainbank, 9 genes" in describe(card)
    assert "a note" in describe(card)


def test_the_hash_follows_the_content(original, tmp_path):
    bundle = load_bundle(original)
    assert len(bundle.hash) == 64
    assert load_bundle(shutil.copytree(original, tmp_path / "moved")).hash == bundle.hash
    assert save(tmp_path / "other.chrep", make_model(seed=1)).hash != bundle.hash


def test_nothing_in_it_is_code_or_pickle(original):
    suffixes = {Path(name).suffix for name in contents(original)}
    assert suffixes <= {".json", ".safetensors", ".parquet", ""}  # "": chunks of the zarr arrays
    for name, content in contents(original).items():
        assert not content.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK")), name
        assert b"torch.nn" not in content
        assert b"sklearn" not in content


def test_nobody_s_folders_are_told(tmp_path):
    folder = save(tmp_path / "somebodys" / "model.chrep").path
    for name, content in contents(folder).items():
        assert b"somebodys" not in content, name


# Damage


FILES = ("weights.safetensors", "genes.parquet", "gallery.zarr/z/c/0/0", "gallery.zarr/zarr.json")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_file_is_named(copy, name, damage):
    file = copy / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes({"flip": content, "cut": content[:-5], "empty": b""}[damage])
    top = name.split("/")[0]
    refused(copy, match=f"{top} is not the file", file=top)


@pytest.mark.parametrize("name", ["weights.safetensors", "genes.parquet", "gallery.zarr"])
def test_a_lost_file_is_named(copy, name):
    shutil.rmtree(copy / name) if (copy / name).is_dir() else (copy / name).unlink()
    refused(copy, match=f"lost {name}")


def test_a_chunk_too_few_or_too_many(copy):
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


def test_a_swapped_gallery(copy, tmp_path):
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
def test_an_edited_card_is_refused(copy, change):
    edit_card(copy, **change)
    refused(copy, match="card", file="card.json")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '"card"', "{}", '{"format": 1}', '{"format": 1, "name": NaN}', "\ud800"],
)
def test_a_card_that_is_none(copy, text):
    (copy / "card.json").write_bytes(text.encode("utf-16" if text == "\ud800" else "utf-8", "surrogatepass"))
    refused(copy, match="card.json", file="card.json")


def test_a_card_with_more_fields_is_none_of_ours(copy):
    edit_card(copy, command="rm -rf")
    refused(copy, match="card.json", file="card.json")


def test_another_format_says_so_whatever_else_it_holds(copy):
    edit_card(copy, format=2, something_new=[1])
    error = refused(copy, match="format 2; this version reads 1")
    assert "version" in error.remedy


@pytest.mark.parametrize("place", ["missing", "file", "folder"])
def test_no_bundle_at_all(place, tmp_path):
    path = tmp_path / "x"
    if place == "file":
        path.write_text("text")
    elif place == "folder":
        path.mkdir()
    refused(path, match="no bundle")


# Bundles that were written wrongly: the hashes are right, and the parts do not fit


def reseal(folder, name):
    facts = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    edit_card(folder, resealed=True, files=facts["files"] | {name: module._hash(folder / name)})


def test_a_wrong_number_of_genes(copy):
    edit_card(copy, resealed=True, genes=8)
    refused(copy, match="8 genes, the file has 9")


def test_a_gallery_of_other_genes(copy, tmp_path):
    frame = pd.read_parquet(copy / "genes.parquet")
    frame.iloc[:-1].to_parquet(copy / "genes.parquet")
    reseal(copy, "genes.parquet")
    edit_card(copy, resealed=True, genes=8)
    refused(copy, match="gallery holds 9 genes, the panel 8")


@pytest.mark.parametrize("fault", ["text", "columns", "nan"])
def test_genes_that_are_none(copy, fault):
    file = copy / "genes.parquet"
    frame = pd.read_parquet(file)
    if fault == "text":
        file.write_text("gene,mean,sd")
    else:
        (frame.drop(columns="sd") if fault == "columns" else frame.assign(mean=np.nan)).to_parquet(file)
    reseal(copy, "genes.parquet")
    refused(copy, match="genes cannot be read", file="genes.parquet")


def test_an_encoder_it_was_not_trained_on(copy):
    edit_card(copy, resealed=True, encoder_id="0" * 16)
    refused(copy, match="encoder stainbank is not the one")


@pytest.mark.parametrize("change", [{"mpp": 1.0}, {"px": 60}])
def test_tiles_it_was_not_trained_on(copy, change):
    edit_card(copy, resealed=True, **change)
    refused(copy, match="encoder stainbank is not the one")


def test_a_method_of_another_version(copy):
    edit_card(copy, resealed=True, method="cleverer")
    refused(copy, match="'cleverer', which this version does not know")


@pytest.mark.parametrize("fault", ["another method", "a weight too few", "no scale"])
def test_weights_that_do_not_fit(copy, fault):
    file = copy / "weights.safetensors"
    arrays = load_file(file)
    if fault == "another method":
        edit_card(copy, resealed=True, method="chrep")
    else:
        del arrays["method.w" if fault == "a weight too few" else "scale.sd"]
        save_file(arrays, file)
        reseal(copy, "weights.safetensors")
    refused(copy, match="do not fit together")


def test_weights_of_another_shape(tmp_path):
    folder = save(tmp_path / "m.chrep", make_model("chrep")).path
    file = folder / "weights.safetensors"
    arrays = load_file(file)
    name = next(k for k in arrays if k.endswith("residual.0.weight"))
    arrays[name] = arrays[name][:, :-1].copy()
    save_file(arrays, file)
    reseal(folder, "weights.safetensors")
    refused(folder, match="do not fit together")


def test_a_card_cannot_reach_out_of_its_folder(copy, tmp_path):
    (tmp_path / "secret").write_text("x")
    facts = json.loads((copy / "card.json").read_text(encoding="utf-8"))
    edit_card(copy, resealed=True, files=facts["files"] | {"../secret": module._hash(tmp_path / "secret")})
    refused(copy, match="lost")


# Encoder weights


def test_weights_from_a_file_travel_with_the_bundle(tmp_path):
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


# Writing


def test_a_bundle_is_replaced_by_the_next(tmp_path):
    first = save(tmp_path / "m.chrep")
    second = save(tmp_path / "m.chrep", make_model(seed=1))
    assert load_bundle(tmp_path / "m.chrep").hash == second.hash != first.hash
    assert [p.name for p in tmp_path.iterdir()] == ["m.chrep"]


@pytest.mark.parametrize("step", ["_write_gallery", "_sync", "_swap", "rename"])
def test_a_failure_leaves_the_old_bundle_and_nothing_else(step, tmp_path, monkeypatch):
    folder = save(tmp_path / "m.chrep").path
    before = contents(folder)

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    if step == "rename":  # the new one cannot take the place of the old one, which has moved aside already
        rename = Path.rename
        monkeypatch.setattr(
            Path, "rename", lambda self, to: fail() if "partial" in self.name else rename(self, to)
        )
    else:
        monkeypatch.setattr(module, step, fail)
    with pytest.raises(BundleError, match="No space left") as caught:
        save(folder, make_model(seed=1))
    monkeypatch.undo()
    assert caught.value.path == str(folder)
    assert contents(folder) == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.chrep"]


def test_an_interrupt_leaves_the_old_bundle(tmp_path, monkeypatch):
    folder = save(tmp_path / "m.chrep").path

    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_sync", stop)
    with pytest.raises(KeyboardInterrupt):
        save(folder, make_model(seed=1))
    monkeypatch.undo()
    assert load_bundle(folder).card.seed == 3
    assert [p.name for p in tmp_path.iterdir()] == ["m.chrep"]


@pytest.mark.parametrize("kind", ["file", "folder", "empty folder"])
def test_something_else_is_never_overwritten(kind, tmp_path):
    place = tmp_path / "thesis"
    if kind == "file":
        place.write_text("important")
    else:
        place.mkdir()
        if kind == "folder":
            (place / "chapter.txt").write_text("important")
    for write in (save, check_place):
        with pytest.raises(BundleError, match="something else") as caught:
            write(place)
        assert caught.value.path == str(place)
    assert place.read_text() == "important" if kind == "file" else place.is_dir()
    assert [p.name for p in tmp_path.iterdir()] == ["thesis"]


def test_a_place_that_cannot_be_written_is_noticed_first(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BundleError, match="cannot be written"):
        check_place(tmp_path / "file" / "m.chrep")
    check_place(tmp_path / "new" / "m.chrep")
    assert not any((tmp_path / "new").iterdir())
