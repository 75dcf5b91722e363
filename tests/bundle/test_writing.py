"""Bundles: the same model from disk, and writing that leaves the old bundle or the new one."""

import errno
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr

from chrep_model import files
from chrep_model.bundle import check_place, describe, load_bundle, stored_gallery, writing
from chrep_model.calibration.trust import LEVELS
from chrep_model.encoders.opening import open_encoder
from chrep_model.errors import BundleError
from chrep_model.methods import trees
from chrep_model.methods.chrep import ChrepSettings
from chrep_model.methods.registry import BUILT_IN


@pytest.mark.parametrize("method", BUILT_IN)
def test_a_model_comes_back_as_it_was(method, tmp_path, monkeypatch, save, make_model, features):
    monkeypatch.setattr(trees, "TREES", 5)
    model = make_model(method)
    save(tmp_path / "m.chrep", model)
    again = load_bundle(tmp_path / "m.chrep")
    assert again.card.method == method
    assert tuple(again.card.variants) == model.fitted.variants
    first, second = model.respond(features), again.model.respond(features)
    np.testing.assert_array_equal(first["distance"], second["distance"])
    for variant in model.fitted.variants:
        np.testing.assert_array_equal(model.read(first, variant), again.model.read(second, variant))


def test_everything_on_the_card_and_in_the_gallery_comes_back(original, make_model, small_settings):
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
    assert ChrepSettings.model_validate(card.settings["chrep"]) == small_settings
    assert (bundle.spec.mpp, bundle.spec.px, bundle.context_um) == (2.0, 50, (300.0,))
    assert bundle.encoder().id == card.encoder_id == open_encoder(tile_um=100, mpp=2.0).id
    assert describe(card)[0].endswith("ridge on stainbank, 9 genes")
    assert describe(card)[-1] == "a note, µm"


def test_how_far_to_trust_it_comes_back(trusting, make_model, features):
    model, bundle = make_model("mean"), load_bundle(trusting)
    expected, found = model.respond(features), bundle.model.respond(features)
    for level in LEVELS:
        half = bundle.model.interval(found, "raw", level=level)
        np.testing.assert_array_equal(half, model.interval(expected, "raw", level=level))
        assert (half > 0).all()
    np.testing.assert_array_equal(
        bundle.trust.unlike(found["distance"]), model.fitted.trust.unlike(expected["distance"])
    )


def test_intervals_have_the_unit_of_the_values(make_model, features):
    model = make_model("mean")
    response = model.respond(features)
    some = np.array([3, 1])
    half = model.interval(response, "raw", some, level=0.5)
    np.testing.assert_allclose(half, model.fitted.interval(response, "raw", some, 0.5) * model.panel.sd[some])
    assert model.interval(response, "calibrated") is None


def test_the_table_of_genes_says_how_accurate(original, trusting):
    frame, trust = pd.read_parquet(trusting / "genes.parquet"), load_bundle(trusting).trust
    assert list(frame) == ["gene", "mean", "sd", "share", "accuracy", "predictable"]
    np.testing.assert_array_equal(frame["accuracy"], trust.accuracy)
    np.testing.assert_array_equal(frame["predictable"], trust.predictable)
    assert list(pd.read_parquet(original / "genes.parquet")) == ["gene", "mean", "sd", "share"]


def test_a_bundle_that_does_not_say(original, features):
    """A ridge learns no intervals."""
    bundle = load_bundle(original)
    assert bundle.trust is None
    assert bundle.model.interval(bundle.model.respond(features), "raw") is None


def test_the_hash_follows_the_content(original, tmp_path, save, make_model):
    bundle = load_bundle(original)
    assert len(bundle.hash) == 64
    assert load_bundle(shutil.copytree(original, tmp_path / "moved")).hash == bundle.hash
    assert save(tmp_path / "other.chrep", make_model(seed=1)).hash != bundle.hash


def test_nothing_in_it_is_code_or_pickle(original, contents):
    suffixes = {Path(name).suffix for name in contents(original)}
    assert suffixes <= {".json", ".safetensors", ".parquet", ""}  # "": chunks of the zarr arrays
    for name, content in contents(original).items():
        assert not content.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK")), name
        assert b"torch.nn" not in content
        assert b"sklearn" not in content


def test_nobody_s_folders_are_told(tmp_path, save, contents):
    folder = save(tmp_path / "somebodys" / "model.chrep").path
    for name, content in contents(folder).items():
        assert b"somebodys" not in content, name


# Writing


def test_a_bundle_is_replaced_by_the_next(tmp_path, save, make_model):
    first = save(tmp_path / "m.chrep")
    second = save(tmp_path / "m.chrep", make_model(seed=1))
    assert load_bundle(tmp_path / "m.chrep").hash == second.hash != first.hash
    assert [p.name for p in tmp_path.iterdir()] == ["m.chrep"]


@pytest.mark.parametrize("step", ["write_gallery", "sync", "rename"])
def test_a_failure_leaves_the_old_bundle_and_nothing_else(
    step, tmp_path, monkeypatch, save, make_model, contents
):
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
        monkeypatch.setattr(files if step == "sync" else writing, step, fail)
    with pytest.raises(BundleError, match="No space left") as caught:
        save(folder, make_model(seed=1))
    monkeypatch.undo()
    assert caught.value.path == str(folder)
    assert contents(folder) == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.chrep"]


def test_an_interrupt_leaves_the_old_bundle(tmp_path, monkeypatch, save, make_model):
    folder = save(tmp_path / "m.chrep").path

    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "sync", stop)
    with pytest.raises(KeyboardInterrupt):
        save(folder, make_model(seed=1))
    monkeypatch.undo()
    assert load_bundle(folder).card.seed == 3
    assert [p.name for p in tmp_path.iterdir()] == ["m.chrep"]


@pytest.mark.parametrize("kind", ["file", "folder", "empty folder"])
def test_something_else_is_never_overwritten(kind, tmp_path, save):
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


def test_a_large_gallery_is_mapped_and_any_reader_of_zarr_reads_it(
    tmp_path, monkeypatch, save, make_model, features
):
    model = make_model("chrep")
    save(tmp_path / "small.chrep", model)
    monkeypatch.setattr(stored_gallery, "MAPPED", 100)
    monkeypatch.setattr(stored_gallery, "_BLOCK", 7)
    save(tmp_path / "large.chrep", model)
    small, large = (load_bundle(tmp_path / f"{name}.chrep").model for name in ("small", "large"))
    plain = zarr.open_group(tmp_path / "large.chrep/gallery.zarr", mode="r")
    for name in ("z", "expression"):
        values, expected = (getattr(m.fitted.gallery, name) for m in (large, model))
        assert isinstance(values, np.memmap)
        np.testing.assert_array_equal(values, expected)
        np.testing.assert_array_equal(plain[name][:], expected)
    assert large.fitted.gallery.expression[:, 3].flags.c_contiguous
    assert not isinstance(small.fitted.gallery.z, np.memmap)
    first, second = small.respond(features), large.respond(features)
    for variant in model.fitted.variants:
        np.testing.assert_array_equal(large.read(second, variant), small.read(first, variant))


def test_a_gallery_without_room_on_the_disk(tmp_path, monkeypatch, save, make_model):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(stored_gallery, "MAPPED", 100)
    monkeypatch.setattr("os.posix_fallocate", full, raising=False)
    with pytest.raises(BundleError, match="No space left"):
        save(tmp_path / "m.chrep", make_model())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_mapped_gallery_is_opened_and_searched_in_little_memory(tmp_path, growth_mb):
    """Embeddings of 256 MB and expression of 128 MB; two blocks of embeddings are 67 MB."""
    setup = f"""
import zarr
from chrep_model.bundle import stored_gallery
from chrep_model.mapped_arrays import temporary_array, write_rows
from chrep_model.calibration.gallery import Gallery

stored_gallery.MAPPED = 1
rng, n, path = np.random.default_rng(0), 500_000, {str(tmp_path / "gallery.zarr")!r}
path = stored_gallery.Path(path)
z, expression, number = temporary_array((n, 128)), temporary_array((n, 64)), np.zeros(n, np.int64)
for values in (z, expression):
    write_rows(values, (rng.standard_normal((5000, values.shape[1]), np.float32) / 100 for _ in range(100)))
gallery = Gallery(z, expression, number, number, np.zeros((n, 2)), ("A",))
queries = rng.standard_normal((16, 128), np.float32) / 20
gallery.search(queries, 20)
"""
    measured = """
stored_gallery.write_gallery(path, gallery)
again = stored_gallery.read_gallery(path)
again.search(queries, 20)
again.expression[:, 3].sum()
"""
    assert growth_mb(setup, measured) < 190
