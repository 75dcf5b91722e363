"""The slide panel: properties where one looks for them, a scale that is kept, and warnings in time."""

from __future__ import annotations

import shutil

import pytest
from napari._app_model import get_app_model
from napari.utils.notifications import notification_manager
from PIL import Image
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog, QLabel

from chrep_model.bundle import load_bundle
from chrep_model.prediction.predictor import Predictor
from chrep_model.slides.slide import open_slide
from napari_chrep.explorer.advice import ENOUGH_TILES, advice
from napari_chrep.io.opening import open_path


@pytest.fixture
def panel(desk):
    return desk.dock("Slide explorer").slide


def titles(panel):
    return [one.title for one in panel.banners.shown]


def test_properties_are_a_click_away(panel, desk, write_tissue, qtbot):
    desk.open(write_tissue(compression="jpeg"))
    assert panel.size_note.text() == "1,536 × 1,536 px, 1.08 × 1.08 mm"
    assert panel.properties.table.isHidden()
    qtbot.mouseClick(panel.properties.button, Qt.MouseButton.LeftButton)
    assert not panel.properties.table.isHidden()
    texts = [label.text() for label in panel.properties.table.findChildren(QLabel)]
    known = dict(zip(texts[::2], texts[1::2], strict=True))
    assert known["Levels"] == "2: 1×, 2×" and known["Format"] == "OME-TIFF"
    assert known["Compression"] == "JPEG" and known["File"].endswith("slide.ome.tif")


def test_a_scale_that_was_typed_in_is_kept_with_the_content(panel, desk, tissue, tmp_path, qtbot):
    path = tmp_path / "photo.png"
    Image.fromarray(tissue).save(path)
    layer = desk.open(path)
    assert titles(panel) == ["Scale unknown"]
    field = panel.mpp.lineEdit()
    field.selectAll()
    qtbot.keyClicks(field, "0.7")
    qtbot.keyClick(field, Qt.Key.Key_Return)
    assert titles(panel) == [] and panel.source.text() == "typed in"
    desk.viewer.layers.remove(layer)
    moved = tmp_path / "elsewhere" / "renamed.png"
    moved.parent.mkdir()
    shutil.move(path, moved)
    layer = desk.open(moved)
    assert tuple(layer.scale) == (0.7, 0.7) and panel.mpp.value() == 0.7
    assert panel.source.text() == "remembered" and not panel.mpp.isReadOnly()
    panel.mpp.setValue(0.5)
    assert panel.source.text() == "typed in" and tuple(layer.scale) == (0.5, 0.5)
    Image.fromarray(255 - tissue).save(path)  # another picture at the former place
    desk.open(path)
    assert panel.mpp.text() == "unknown"


def test_the_scale_is_compared_before_anything_is_predicted(panel, desk, tiny_bundle, write_tissue):
    desk.load(tiny_bundle)
    desk.open(write_tissue(mpp=2.0, name="coarse.ome.tif"))
    assert titles(panel) == ["Too coarse for this model"] and panel.banners.shown[0].grave
    assert "2 µm per pixel" in panel.banners.shown[0].text and not panel.banners.isHidden()
    run = desk.dock("Slide explorer").run
    assert not run.predict_view.isEnabled() and "too coarse" in run.status.text()
    desk.open(write_tissue(mpp=0.1, name="fine.ome.tif"))
    assert titles(panel) == ["Much finer than the training slides"]
    desk.open(write_tissue())
    assert titles(panel) == [] and panel.banners.isHidden()


def test_a_slide_unlike_the_training_slides(trusting_bundle, striped_slide, tiny_cohort, tmp_path):
    bundle = load_bundle(trusting_bundle)
    predictor = Predictor(bundle, device="cpu", cache_dir=tmp_path / "cache")
    for path, expected in (
        (striped_slide, ["Unlike the training slides"]),
        (tiny_cohort / "SYNTHETIC_P1A.jpg", []),
    ):
        slide = open_slide(path, mpp=0.7)
        prediction = predictor.predict(slide)
        assert len(prediction) >= ENOUGH_TILES
        found = advice(slide, bundle, prediction)
        assert [one.title for one in found] == expected


def test_whatever_is_opened_from_the_panel_is_opened_or_explained(panel, desk, tissue, tmp_path):
    before = len(notification_manager.records)
    Image.fromarray(tissue).save(tmp_path / "plain.tif")  # no tiles: left to others when it is dropped
    open_path(desk.viewer, tmp_path / "plain.tif")
    assert panel.picker.currentText() == "plain" and len(notification_manager.records) == before
    (tmp_path / "letter.svs").write_text("Dear reader, this is a letter.")
    open_path(desk.viewer, tmp_path / "letter.svs")
    (record,) = notification_manager.records[before:]
    assert "no slide that can be read" in record.message and len(desk.viewer.layers) == 1
    assert [action.text() for action in panel.browse.menu().actions()] == ["File…", "Folder…"]


def test_the_commands_of_the_palette(desk, tmp_path, tissue, monkeypatch):
    Image.fromarray(tissue).save(tmp_path / "photo.png")
    run = get_app_model().commands.execute_command
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(tmp_path / "photo.png"), ""))
    run("napari-chrep.open_file").result()
    assert [layer.name for layer in desk.viewer.layers] == ["photo"]
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: "")  # the user thinks better of it
    run("napari-chrep.open_folder").result()
    for command in ("predict_view", "predict_tissue"):  # without a model the explorer says what is missing
        run(f"napari-chrep.{command}").result()
    explorer = desk.dock("Slide explorer")
    assert explorer.run.status.text() == "Choose a model to begin." and desk.engine.state == "idle"
