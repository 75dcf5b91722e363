"""File > Open Sample."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from chrep_model.errors import ChrepError
from chrep_model.samples import ENVIRONMENT_VARIABLE, sample_folder
from napari_chrep.io.samples import sample_bundles, sample_slide


@pytest.fixture
def folder(tmp_path, monkeypatch, write_tissue, tiny_cohort):
    """A folder of sample data as `sample_data` is laid out."""
    shutil.copytree(tiny_cohort, tmp_path, dirs_exist_ok=True)
    write_tissue(name="SYNTHETIC_slide.ome.tif")
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path))
    return tmp_path


def test_without_sample_data_the_message_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(ChrepError, match=ENVIRONMENT_VARIABLE):
        sample_folder()
    assert sample_bundles() == []


def test_without_a_slide_the_message_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path))
    with pytest.raises(ChrepError, match=r"no SYNTHETIC_slide\.ome\.tif"):
        sample_slide()


def test_the_slide_opens_from_the_menu(folder, make_napari_viewer):
    viewer = make_napari_viewer()
    (layer,) = viewer.open_sample("napari-chrep", "slide")
    assert layer.name == "SYNTHETIC_slide"
    assert tuple(layer.scale) == (0.7, 0.7)


def test_the_slide_opens_with_its_model(folder, desk, tiny_bundle):
    with pytest.raises(ChrepError, match="no model"):
        desk.viewer.open_sample("napari-chrep", "demo")
    shutil.copytree(tiny_bundle, folder / "tiny.chrep")
    (layer,) = desk.viewer.open_sample("napari-chrep", "demo")
    desk.wait()
    assert desk.session.bundle.path == folder / "tiny.chrep" and desk.session.slide_layer is layer


def test_the_section_opens_with_its_spots_in_place(folder, make_napari_viewer):
    viewer = make_napari_viewer()
    slide, spots = viewer.open_sample("napari-chrep", "section")
    assert spots.name == f"{slide.name} spots"
    assert tuple(spots.scale) == tuple(slide.scale)
    section_xy = spots.data[:, ::-1] + 0.5
    rows, cols = slide.data[0].shape[:2] if slide.multiscale else slide.data.shape[:2]
    assert (section_xy > 0).all() and (section_xy < (cols, rows)).all()
    np.testing.assert_allclose(spots.size, spots.size[0])


def test_bundles_among_the_sample_data_are_found(folder):
    assert sample_bundles() == []
    (folder / "demo").mkdir()
    (folder / "demo" / "card.json").write_text("{}")
    assert sample_bundles() == [folder / "demo"]
