"""The buttons of the maps, and the maps side by side."""

from __future__ import annotations

import pytest
from qtpy.QtCore import QPoint, Qt


@pytest.fixture
def panel(desk):
    return desk.dock("Genes").maps


def click(qtbot, button):
    # A check box is only toggled by a click on its box.
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton, pos=QPoint(8, 10))


@pytest.fixture
def predict(desk, write_tissue):
    def run(bundle):
        desk.load(bundle)
        desk.open(write_tissue())
        desk.engine.predict(None)
        desk.wait()
        desk.qtbot.waitUntil(lambda: bool(desk.heatmaps.variants), timeout=5000)
        desk.qtbot.wait(200)  # the last refresh

    return run


def test_the_buttons_show_one_map_or_none(panel, desk, qtbot, tiny_bundle, predict):
    assert not any(button.isEnabled() for button in panel.toggles.values())
    assert "model" in panel.toggles["raw"].toolTip()
    desk.load(tiny_bundle)
    assert "Predict" in panel.toggles["raw"].toolTip()
    predict(tiny_bundle)
    on = [kind for kind, button in panel.toggles.items() if button.isEnabled()]
    assert on == ["calibrated", "raw", "difference", "interval", "unlike"]
    assert desk.heatmaps.visible == ("calibrated",)
    for kind in on[1:]:
        click(qtbot, panel.toggles[kind])
        assert desk.heatmaps.visible == (kind,)
        assert [k for k, button in panel.toggles.items() if button.isChecked()] == [kind]
    click(qtbot, panel.toggles["unlike"])
    assert desk.heatmaps.visible == ()
    desk.heatmaps.layer("calibrated").visible = True  # from napari's layer list
    assert panel.toggles["calibrated"].isChecked()


def test_what_a_model_lacks_is_disabled_and_says_why(panel, desk, trusting_bundle, predict):
    predict(trusting_bundle)
    off = {kind: button.toolTip() for kind, button in panel.toggles.items() if not button.isEnabled()}
    assert set(off) == {"calibrated", "difference", "signature"}
    assert "mean" in off["difference"] and "no calibrated" in off["difference"]
    assert "list" in off["signature"]


def test_side_by_side_and_back(panel, desk, qtbot, tiny_bundle, predict):
    predict(tiny_bundle)
    grid, camera = desk.viewer.canvas.grid, desk.viewer.scene.camera
    zoom, opacity = camera.zoom, desk.heatmaps.layer("calibrated").opacity
    click(qtbot, panel.side_by_side)
    assert grid.enabled and panel.side_by_side.isChecked()
    assert set(desk.heatmaps.visible) == {"raw", "calibrated"}
    assert grid.actual_shape(desk.viewer.layers) == (2, 2)  # with the slide
    assert camera.zoom == pytest.approx(zoom / 2)
    title = desk.heatmaps.layer("calibrated").name_overlay
    assert desk.heatmaps.layer("calibrated").opacity == 1
    wide = title.font_size
    click(qtbot, panel.toggles["difference"])
    click(qtbot, panel.toggles["interval"])
    assert set(desk.heatmaps.visible) == {"raw", "calibrated", "difference", "interval"}
    assert camera.zoom == pytest.approx(zoom / 3)
    assert desk.heatmaps.layer("interval").opacity == 1
    assert title.font_size < wide  # three cells in a row
    click(qtbot, panel.side_by_side)
    assert not grid.enabled and title.font_size == wide
    assert desk.heatmaps.visible == ("calibrated",)
    assert camera.zoom == pytest.approx(zoom)
    assert {desk.heatmaps.layer(kind).opacity for kind in desk.heatmaps.variants} == {opacity}


def test_an_opacity_that_is_chosen_in_the_grid_stays(panel, desk, qtbot, tiny_bundle, predict):
    predict(tiny_bundle)
    click(qtbot, panel.side_by_side)
    desk.heatmaps.layer("raw").opacity = 0.3
    desk.viewer.canvas.grid.enabled = False  # by napari's own button
    assert not panel.side_by_side.isChecked()
    assert desk.heatmaps.layer("raw").opacity == 0.3
    assert desk.heatmaps.layer("calibrated").opacity == 0.6
