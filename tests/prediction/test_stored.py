"""Predictions read back from their files."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image

from chrep_model.analysis.signature import Signature
from chrep_model.errors import BundleError, PredictionError, SlideError
from chrep_model.export.writing import FORMATS, output_path, write_prediction
from chrep_model.prediction.places import recall, remember
from chrep_model.prediction.prediction import Prediction
from chrep_model.prediction.stored import first_gene, is_stored, read_prediction
from chrep_model.slides.absent import AbsentSlide
from chrep_model.slides.slide import open_slide
from chrep_model.slides.tiles import TileGrid


def written(prediction, folder, format="h5ad", genes=None, name=None):
    path = output_path(folder, name or prediction.slide.name, format)
    write_prediction(prediction, path, format, genes)
    return path


@pytest.mark.parametrize("format", ["h5ad", "zarr", "spatialdata"])
def test_every_value_comes_back(trusting, tmp_path, format):
    path = written(trusting, tmp_path, format)
    assert is_stored(path)
    stored = read_prediction(path)
    assert stored.slide.path == trusting.slide.path and stored.slide.mpp.value == 0.7
    assert stored.genes == trusting.genes and stored.variants == trusting.variants
    assert stored.grid.shape == trusting.grid.shape
    name = first_gene(stored)
    assert name == trusting.genes[int(np.nanargmax(trusting.bundle.trust.accuracy))]
    for variant in trusting.variants:
        np.testing.assert_allclose(stored.map(name, variant), trusting.map(name, variant), rtol=1e-5)
    same = [
        stored.on_grid(stored.interval(name)),
        stored.on_grid(stored.unlike()),
        stored.on_grid(stored.distance()),
    ]
    was = [
        trusting.on_grid(trusting.interval(name)),
        trusting.on_grid(trusting.unlike()),
        trusting.on_grid(trusting.distance()),
    ]
    np.testing.assert_allclose(same, was, rtol=1e-6)
    assert stored.unlike_share() == trusting.unlike_share()
    np.testing.assert_array_equal(stored.bundle.trust.predictable, trusting.bundle.trust.predictable)


def test_signatures_and_parts_work_as_on_the_model(prediction, tmp_path):
    """With half overlapping tiles, chosen genes, and several variants of which the last is to be trusted."""
    genes = prediction.genes[5:15]
    stored = read_prediction(written(prediction, tmp_path, genes=genes))
    assert stored.genes == genes and stored.variants[-1] == "calibrated"
    signature = Signature.match("mine", genes[2:5], stored.bundle.panel)
    expected = prediction.on_grid(signature.values(prediction))
    np.testing.assert_allclose(stored.on_grid(signature.values(stored)), expected, rtol=1e-4, atol=1e-5)
    again = read_prediction(written(stored, tmp_path / ".."))
    np.testing.assert_array_equal(again.map(genes[3], "raw"), stored.map(genes[3], "raw"))


def test_the_model_is_asked_for_where_it_is_needed(prediction, tmp_path):
    stored = read_prediction(written(prediction, tmp_path))
    with pytest.raises(BundleError, match=r"not the model. Open the model to predict more"):
        stored.bundle.encoder()
    with pytest.raises(BundleError, match="not the model"):
        _ = stored.bundle.model.fitted
    assert stored.bundle.hash != prediction.bundle.hash


def test_the_slide_is_found_by_its_content(prediction, tmp_path, tiny_cohort, monkeypatch):
    slide = tmp_path / prediction.slide.path.name
    shutil.copy(prediction.slide.path, slide)
    folder = tmp_path / "predictions"
    folder.mkdir()
    gone = tmp_path / "gone" / slide.name  # where `recall` will say that it was
    monkeypatch.setattr(prediction.slide, "path", gone)
    path = written(prediction, folder)
    assert read_prediction(path).slide.path == slide  # in the folder above
    assert read_prediction(path, [prediction.slide]).slide is prediction.slide
    shutil.copy(tiny_cohort / "SYNTHETIC_P2A.jpg", slide)  # another one of the same name
    stored = read_prediction(path)
    assert isinstance(stored.slide, AbsentSlide) and str(stored.slide.path) == slide.name
    np.testing.assert_allclose(stored.map(stored.genes[0]), prediction.map(stored.genes[0]), rtol=1e-5)
    with pytest.raises(SlideError, match=r"not here\. Open it first"):
        stored.slide.read(0, 0, 10, 10)


@pytest.mark.parametrize("format", FORMATS)
def test_no_file_says_where_the_slide_lies(prediction, tmp_path, format):
    """Folders tell names; the prediction finds its slide on this computer all the same."""
    path = written(prediction, tmp_path, format, prediction.genes[:2])
    folder = str(prediction.slide.path.parent).encode()
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    assert files and not any(folder in file.read_bytes() for file in files)
    if is_stored(path):
        assert read_prediction(path).slide.path == prediction.slide.path.absolute()


def test_an_earlier_version_said_where_the_slide_lay(prediction, tmp_path, monkeypatch):
    path = written(prediction, tmp_path)
    monkeypatch.setenv("CHREP_CACHE", str(tmp_path / "another computer"))
    assert isinstance(read_prediction(path).slide, AbsentSlide)
    with h5py.File(path, "r+") as file:
        file["uns/chrep"]["slide_path"] = str(prediction.slide.path)
        for name in ("slide_path", "slide"):
            file["uns/chrep"][name].attrs.update({"encoding-type": "string", "encoding-version": "0.2.0"})
    assert read_prediction(path).slide.path == prediction.slide.path


def test_where_slides_lie_is_kept_by_their_content(prediction, tmp_path, monkeypatch):
    slide = prediction.slide
    assert recall(slide.fingerprint) is None
    remember(slide)
    assert recall(slide.fingerprint) == slide.path.absolute()
    remember(AbsentSlide(Path("elsewhere.svs"), (10, 10), slide.fingerprint, slide.mpp))
    assert recall(slide.fingerprint) == slide.path.absolute()
    for made_up in ("", "../../secret", "/etc/passwd", "a" * 3):
        assert recall(made_up) is None
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("CHREP_CACHE", str(tmp_path / "file"))
    remember(slide)  # where nothing can be kept, nothing fails
    assert recall(slide.fingerprint) is None


def test_other_files_are_refused(prediction, tmp_path, tiny_cohort):
    measured = tiny_cohort / "SYNTHETIC_P1A.h5ad"
    csv = written(prediction, tmp_path, "csv", prediction.genes[:2])
    for path in (measured, csv, tmp_path, tmp_path / "none.h5ad"):
        assert not is_stored(path)
    with pytest.raises(PredictionError, match="no prediction as AnnData"):
        read_prediction(csv)
    with pytest.raises(PredictionError, match="damaged, or written by an older version"):
        read_prediction(measured)
    damaged = written(prediction, tmp_path)
    damaged.write_bytes(damaged.read_bytes()[:5000])
    with pytest.raises(PredictionError, match="Predict again"):
        read_prediction(damaged)


@pytest.mark.parametrize("format", ["h5ad", "zarr", "spatialdata"])
def test_exported_again_and_again_it_says_the_same_of_its_origin(prediction, tmp_path, format):
    """Not through which files it went, either: their folders tell names."""
    source = read_prediction(written(prediction, tmp_path, genes=prediction.genes[:3]))
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        source = read_prediction(written(source, folder, format))
    assert source.facts() == prediction.facts()
    assert source.facts()["bundle_hash"] == prediction.bundle.hash


def test_the_hash_that_an_earlier_version_wrote_with_a_path(prediction, tmp_path):
    path = written(prediction, tmp_path, genes=prediction.genes[:3])
    with h5py.File(path, "r+") as file:
        file["uns/chrep/bundle_hash"][()] = f"{prediction.bundle.hash} in /somewhere/a.h5ad"
    assert read_prediction(path).facts()["bundle_hash"] == prediction.bundle.hash


@pytest.mark.parametrize("format", ["h5ad", "zarr", "spatialdata"])
def test_a_scene_stays_the_one_that_it_was(prediction, tmp_path, tiny_cohort, format):
    """Also when its slide is not here, and whatever letters its name has."""
    picture = np.asarray(Image.open(tiny_cohort / "SYNTHETIC_P1A.jpg"))
    path = tmp_path / "gone" / "two.ome.tif"
    path.parent.mkdir()
    with tifffile.TiffWriter(path, ome=True) as writer:
        for name, image in (("whole", picture), ("HE/part 1", picture[:-9])):
            about = {"axes": "YXS", "Name": name, "PhysicalSizeX": 0.7, "PhysicalSizeY": 0.7}
            writer.write(image, photometric="rgb", tile=(256, 256), metadata=about)
    with open_slide(path, scene="HE/part 1", mpp=0.7) as slide:
        grid = TileGrid(slide.shape, 0.7, prediction.bundle.spec, prediction.grid.stride)
        of_scene = Prediction(prediction.bundle, grid, slide)
        for part in prediction.only(prediction.indices[:4])._parts:
            of_scene.add(part)
        target = output_path(tmp_path, "two", format)
        write_prediction(of_scene, target, format, prediction.genes[:3])
        library = {"two HE_part 1"}
        assert set(read_prediction(target).bundle.table.uns["spatial"]) == library
        facts = of_scene.facts()
    shutil.rmtree(path.parent)
    absent = read_prediction(target)
    assert isinstance(absent.slide, AbsentSlide) and absent.slide.name == "two HE/part 1"
    again = read_prediction(written(absent, tmp_path, format, None, "again"))
    assert again.facts() == facts and set(again.bundle.table.uns["spatial"]) == library
