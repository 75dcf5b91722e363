"""The explorer in a real viewer: from an empty window to a heatmap."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pytest
from napari.utils.notifications import notification_manager
from PIL import Image
from qtpy.QtCore import Qt

from chrep_model.cohorts.cohort import open_cohort
from chrep_model.pipeline import TrainSettings, train


@pytest.fixture
def explorer(desk):
    return desk.dock("Slide explorer")


def click(qtbot, button):
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def test_it_says_what_is_missing(explorer, desk, tiny_bundle, write_tissue):
    run = explorer.run
    assert "model" in run.status.text() and not run.predict_view.isEnabled()
    desk.load(tiny_bundle)
    assert "slide" in run.status.text() and not run.predict_view.isEnabled()
    desk.viewer.open(write_tissue(), plugin="napari-chrep")
    assert run.predict_view.isEnabled()
    assert run.status.text().startswith("Preparing")  # before anybody asks
    desk.wait()
    assert run.status.text() == "Ready." and desk.session.context is not None


def test_what_is_wrong_with_a_slide_is_told_when_one_asks(explorer, desk, tiny_bundle, write_pyramid, qtbot):
    desk.load(tiny_bundle)
    with notification_manager:
        notification_manager.records.clear()
        desk.open(write_pyramid(np.full((600, 600, 3), 244, np.uint8), mpp=0.7, levels=1))
        desk.wait()
        assert not notification_manager.records and explorer.run.status.text() == "Ready."
        click(qtbot, explorer.run.predict_view)
        desk.wait()
        (record,) = notification_manager.records
    assert "no tissue was found" in record.message and explorer.run.predict_view.isEnabled()


def test_the_card_in_short(explorer, desk, tiny_bundle, bundle):
    assert explorer.model.card.isHidden()
    desk.load(tiny_bundle)
    assert not explorer.model.card.isHidden()
    texts = [label.text() for label in explorer.model._values.values()]
    assert bundle.card.method in texts[0] and bundle.card.encoder in texts[0]
    assert f"{len(bundle.genes):,}" in texts[1] and f"{bundle.spec.um:.0f} µm" in texts[1]
    good = bundle.trust.predictable
    assert good.any()
    assert f"{bundle.trust.accuracy[good].mean():.2f}, {good.sum()} genes" in texts[2]
    assert explorer.model.picker.currentText() == tiny_bundle.name


def test_the_scale_and_where_it_comes_from(explorer, desk, write_tissue):
    desk.open(write_tissue())
    assert explorer.slide.mpp.value() == 0.7
    assert explorer.slide.mpp.isReadOnly()
    assert explorer.slide.source.text() == "from file"


def test_a_picture_without_scale_is_asked_for_it(explorer, desk, tiny_bundle, tmp_path, tissue, qtbot):
    path = tmp_path / "photo.png"
    Image.fromarray(tissue).save(path)
    desk.load(tiny_bundle)
    layer = desk.open(path)
    assert explorer.slide.mpp.text() == "unknown"
    assert not explorer.run.predict_view.isEnabled()
    assert "µm per pixel" in explorer.run.status.text()
    field = explorer.slide.mpp.lineEdit()
    field.selectAll()
    qtbot.keyClicks(field, "0.7")
    qtbot.keyClick(field, Qt.Key.Key_Return)
    assert tuple(layer.scale) == (0.7, 0.7)
    assert explorer.slide.source.text() == "typed in"
    assert explorer.run.predict_view.isEnabled()


def test_slides_can_be_switched(explorer, desk, write_tissue):
    first = desk.open(write_tissue(name="first.ome.tif"))
    desk.open(write_tissue(name="second.ome.tif"))
    picker = explorer.slide.picker
    assert [picker.itemText(i) for i in range(picker.count())] == ["first", "second"]
    assert picker.currentText() == "second"
    picker.activated.emit(0)
    assert desk.session.slide_layer is first
    desk.viewer.layers.remove(first)
    assert picker.currentText() == "second" and desk.session.slide.name == "second"


def test_follow_view_predicts_where_the_view_goes(explorer, desk, tiny_bundle, write_tissue, qtbot):
    desk.open(write_tissue())
    desk.load(tiny_bundle)
    camera = desk.viewer.scene.camera
    camera.zoom = 8
    camera.center = (0, 200, 200)
    explorer.run.follow.click()
    qtbot.waitUntil(lambda: desk.session.prediction is not None, timeout=60_000)
    desk.wait()
    here = desk.session.prediction.indices
    camera.center = (0, 800, 800)
    qtbot.waitUntil(lambda: desk.session.prediction.indices.size > here.size, timeout=60_000)
    desk.wait()
    there = explorer.run.viewport.rect(desk.session.slide)
    assert np.isin(desk.session.context.tiles(there), desk.session.prediction.indices).all()


def test_a_followed_view_does_not_overtake_the_whole_tissue(explorer, desk, tiny_bundle, write_tissue, qtbot):
    desk.open(write_tissue())
    desk.prepare(tiny_bundle, batch_size=1)
    desk.viewer.scene.camera.zoom = 8
    click(qtbot, explorer.run.predict_tissue)
    explorer.run.follow.click()
    desk.viewer.scene.camera.center = (0, 200, 200)
    desk.wait()
    assert desk.session.prediction.indices.size == desk.session.context.tiles().size


def test_too_many_tiles_are_asked_for_first(explorer, desk, tiny_bundle, write_tissue, qtbot, page):
    page.prediction.tile_budget = 3
    desk.open(write_tissue())
    desk.load(tiny_bundle)
    click(qtbot, explorer.run.predict_tissue)
    desk.wait()
    assert not explorer.run.anyway.isHidden()
    assert desk.session.prediction.indices.size == 0
    click(qtbot, explorer.run.anyway)
    desk.wait()
    assert explorer.run.anyway.isHidden()
    assert desk.session.prediction.indices.size == desk.session.context.tiles().size


def test_cancel_says_so_until_the_batch_is_done(explorer, desk, tiny_bundle, write_tissue, qtbot):
    desk.open(write_tissue())
    desk.prepare(tiny_bundle, batch_size=1)
    desk.engine.predict(None)
    qtbot.waitUntil(lambda: desk.session.prediction.indices.size > 0, timeout=60_000)
    assert not explorer.run.cancel.isHidden()
    click(qtbot, explorer.run.cancel)
    assert explorer.run.cancel.text() == "Cancelling…"
    desk.wait()
    assert explorer.run.cancel.isHidden() and explorer.run.cancel.text() == "Cancel"


def test_a_closed_widget_stops_its_run_and_hears_nothing_more(
    explorer, desk, tiny_bundle, write_tissue, qtbot
):
    desk.open(write_tissue())
    desk.prepare(tiny_bundle, batch_size=1)
    desk.engine.predict(None)
    qtbot.waitUntil(lambda: desk.session.prediction.indices.size > 0, timeout=60_000)
    desk.viewer.window.remove_dock_widget(explorer)
    explorer.deleteLater()
    qtbot.wait(50)
    desk.wait()
    assert desk.session.prediction.indices.size < desk.session.context.tiles().size
    desk.session.show_gene(desk.session.bundle.genes[1])
    desk.open(write_tissue(name="another.ome.tif"))  # events that the widget listened to


@pytest.mark.real
@pytest.mark.timeout(600)  # three processes and a viewer, on a machine that may be busy
def test_a_real_slide_shows_what_the_command_line_writes(
    explorer, desk, tiny_bundle, svs, qtbot, tmp_path, monkeypatch
):
    desk.open(svs)
    desk.load(tiny_bundle)
    desk.viewer.reset_view()
    qtbot.wait(50)
    click(qtbot, explorer.run.predict_view)
    qtbot.waitUntil(lambda: desk.session.prediction is not None, timeout=120_000)
    desk.wait()
    qtbot.waitUntil(lambda: "calibrated" in desk.heatmaps.variants, timeout=5000)
    qtbot.wait(200)

    # The command line computes everything again: it has a cache of its own.
    monkeypatch.setenv("CHREP_CACHE", str(tmp_path / "another cache"))
    chrep = Path(sys.executable).with_name("chrep")
    subprocess.run([chrep, "predict", svs, "-b", tiny_bundle, "-o", tmp_path], check=True, timeout=400)
    table = anndata.read_h5ad(tmp_path / f"{svs.stem}.h5ad")

    seen = desk.session.prediction.indices
    mpp, tile_px = desk.session.slide.require_mpp(), desk.session.context.grid.tile_px
    for gene in table.var_names[:3]:
        desk.session.show_gene(gene)
        for variant in ("raw", "calibrated"):
            layer = desk.heatmaps.layer(variant)
            cells = table.obs[["row", "col"]].to_numpy()
            in_view = np.isin(cells @ [layer.data.shape[1], 1], seen)
            assert in_view.sum() == np.isfinite(layer.data).sum() == len(seen) > 0
            written = np.asarray(table[in_view, gene].layers[variant])[:, 0]
            for (x, y), cell, value in zip(
                table.obsm["spatial"][in_view], cells[in_view], written, strict=True
            ):
                # napari centres pixel 0 on world 0: the continuous level-0 pixel u is at (u - 0.5) * mpp.
                under = np.array(layer.world_to_data(((y - 0.5) * mpp, (x - 0.5) * mpp)))
                assert np.abs(under - cell).max() * tile_px <= 0.5
                assert layer.data[tuple(np.round(under).astype(int))] == pytest.approx(value, abs=1e-5)


def test_predict_region(explorer, desk, tiny_bundle, write_tissue, qtbot):
    run = explorer.run
    desk.open(write_tissue())
    desk.load(tiny_bundle)
    assert not run.predict_region.isEnabled() and "Select a Shapes layer" in run.predict_region.toolTip()
    shapes = desk.viewer.add_shapes(units=("um", "um"), name="tumour")
    assert not run.predict_region.isEnabled()
    shapes.add_rectangles(np.array([(100, 200), (100, 800), (600, 800), (600, 200)]))  # rows, columns in µm
    assert run.predict_region.isEnabled() and "tumour" in run.predict_region.toolTip()
    click(qtbot, run.predict_region)
    desk.wait()
    context = desk.session.context
    xy = context.grid.centres(context.tissue) * 0.7
    inside = ((xy > (199.65, 99.65)) & (xy < (800.35, 600.35))).all(1)
    assert 0 < inside.sum() < len(xy)
    np.testing.assert_array_equal(np.sort(desk.session.prediction.indices), context.tissue[inside])
    click(qtbot, run.predict_region)
    desk.wait()
    assert run.status.text() == f"All {inside.sum():,} tissue tiles in the region are predicted."
    desk.viewer.layers.selection.active = desk.session.slide_layer
    assert not run.predict_region.isEnabled()


def test_a_region_that_crosses_itself(explorer, desk, tiny_bundle, write_tissue, qtbot):
    desk.open(write_tissue())
    desk.load(tiny_bundle)
    loop = np.array([(100, 100), (900, 900), (900, 100), (100, 900)])
    desk.viewer.add_shapes([loop], shape_type="polygon", units=("um", "um"))
    before = len(notification_manager.records)
    click(qtbot, explorer.run.predict_region)
    assert "crosses itself" in explorer.run.status.text()
    assert [record.message for record in notification_manager.records[before:]] == [
        explorer.run.status.text()
    ]
    assert desk.engine.state == "idle" and not desk.session.prediction


def test_a_view_without_tissue_or_beside_the_slide_is_told_of(
    explorer, desk, tiny_bundle, tissue, write_pyramid, qtbot
):
    glass = np.full((1536, 3072, 3), 244, np.uint8)
    glass[:, :1536] = tissue
    desk.open(write_pyramid(glass, mpp=0.7, levels=2))
    desk.load(tiny_bundle)
    run, camera, before = explorer.run, desk.viewer.scene.camera, len(notification_manager.records)
    camera.zoom = 8
    for centre, said in (
        ((0, 500, 1900), "No tissue in view. Move"),
        ((0, 9000, 9000), "No part of the slide"),
    ):
        camera.center = centre
        click(qtbot, run.predict_view)
        desk.wait()
        assert run.status.text().startswith(said)
    told = [record.message for record in notification_manager.records[before:]]
    assert len(told) == 2 and told[-1] == run.status.text()
    camera.center = (0, 1000, 1900)  # following is no question: it is only noted
    run.follow.click()
    qtbot.waitUntil(lambda: run.status.text() == "No tissue in view.", timeout=60_000)
    assert len(notification_manager.records) == before + 2
    camera.center = (0, 200, 200)
    qtbot.waitUntil(lambda: bool(desk.session.prediction), timeout=60_000)
    desk.wait()


def test_a_bundle_without_its_encoder_weights_says_where_they_belong(
    explorer, desk, tiny_bundle, tiny_cohort, tiny_encoder, tmp_path
):
    desk.load(tiny_bundle)
    former, (name, weights) = desk.session.bundle, tiny_encoder
    settings = TrainSettings(encoder=name, weights=weights, method="ridge", genes=8, context_um=())
    bundle = train(open_cohort(tiny_cohort), settings, tmp_path / "timm.chrep", device="cpu")
    (bundle.path / "encoder.safetensors").unlink()
    before = len(notification_manager.records)
    desk.load(bundle.path)
    (told,) = [record.message for record in notification_manager.records[before:]]
    assert name in told and "encoder.safetensors is missing" in told and str(bundle.path) in told
    assert "into this folder" in told
    assert desk.session.bundle is former
