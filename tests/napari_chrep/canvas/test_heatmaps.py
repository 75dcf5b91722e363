"""Heatmaps: where they lie, how they change, what shows through."""

from __future__ import annotations

import numpy as np
import pytest

from chrep_model.errors import GeneError
from chrep_model.prediction.prediction import Prediction, Preview
from chrep_model.prediction.predictor import Predictor


@pytest.fixture
def predicted(desk, tiny_bundle, write_tissue):
    """A desk with a slide that is predicted as a whole."""
    desk.open(write_tissue())
    desk.load(tiny_bundle)
    desk.engine.predict(None)
    desk.wait()
    desk.qtbot.waitUntil(lambda: bool(desk.heatmaps.variants), timeout=5000)
    desk.qtbot.wait(200)  # the last of the refreshes, which come no faster than the eye needs
    return desk


def test_one_layer_for_each_variant(predicted):
    gene = predicted.session.gene
    layers = [predicted.heatmaps.layer(v) for v in ("raw", "calibrated")]
    assert [layer.name for layer in layers] == [f"{gene} raw [log10]", f"{gene} calibrated [log10]"]
    assert [layer.visible for layer in layers] == [False, True]
    assert layers[0].contrast_limits == layers[1].contrast_limits
    for layer, variant in zip(layers, ("raw", "calibrated"), strict=True):
        assert layer.data.dtype == np.float32
        assert [str(unit) for unit in layer.units] == ["micrometer", "micrometer"]
        np.testing.assert_array_equal(layer.data, predicted.session.prediction.map(gene, variant))


def test_a_tile_is_under_the_centre_of_its_tissue(predicted):
    session, layer = predicted.session, predicted.heatmaps.layer("calibrated")
    grid = session.context.grid
    values = session.prediction.gene(session.gene, "calibrated")
    for place, index in enumerate(session.prediction.indices):
        row, col = divmod(int(index), grid.shape[1])
        xy = grid.centres(np.array([index]))[0]
        world = (xy[::-1] - 0.5) * session.slide.mpp.value
        np.testing.assert_allclose(session.slide_layer.world_to_data(world), xy[::-1] - 0.5, atol=1e-6)
        assert layer.get_value(world, world=True) == pytest.approx(values[place], abs=1e-5)
        # half a level-0 pixel, in pixels of the heatmap
        np.testing.assert_allclose(layer.world_to_data(world), (row, col), atol=0.5 / grid.step_px)


def test_another_gene_changes_the_same_layers(predicted):
    session = predicted.session
    layers = [predicted.heatmaps.layer(v) for v in ("raw", "calibrated")]
    layers[1].opacity = 0.4
    states = []
    predicted.engine.state_changed.connect(states.append)
    gene = session.bundle.genes[5]
    session.show_gene(gene)
    assert [predicted.heatmaps.layer(v) for v in ("raw", "calibrated")] == layers
    assert [layer.name for layer in layers] == [f"{gene} raw [log10]", f"{gene} calibrated [log10]"]
    np.testing.assert_array_equal(layers[1].data, session.prediction.map(gene, "calibrated"))
    assert layers[1].opacity == 0.4
    assert len(predicted.viewer.layers) == 3
    assert states == []  # the model did not run


def test_colours_that_the_user_sets_stay_until_the_next_gene(predicted):
    session, layer = predicted.session, predicted.heatmaps.layer("calibrated")
    raw = predicted.heatmaps.layer("raw")
    raw.contrast_limits = (0.2, 0.4)
    assert tuple(layer.contrast_limits) == (0.2, 0.4)  # they are compared by their colours
    layer.contrast_limits = (0.25, 0.5)
    assert tuple(raw.contrast_limits) == (0.25, 0.5)
    session.prediction_grew.emit()
    predicted.qtbot.wait(300)
    assert tuple(layer.contrast_limits) == (0.25, 0.5)
    session.show_gene(session.bundle.genes[5])
    assert tuple(layer.contrast_limits) == tuple(raw.contrast_limits) != (0.25, 0.5)


def test_difference_interval_and_likeness_come_when_they_are_asked_for(predicted):
    session, maps = predicted.session, predicted.heatmaps
    gene, prediction = session.gene, session.prediction
    assert maps.variants == ("raw", "calibrated")
    for kind in ("difference", "interval", "unlike"):
        maps.show_only(kind)
        assert maps.visible == (kind,)
        predicted.qtbot.waitUntil(lambda kind=kind: maps.layer(kind).name_overlay.visible)
    difference, interval, unlike = (maps.layer(kind) for kind in ("difference", "interval", "unlike"))
    assert difference.name == f"{gene} difference [log10]"
    expected = prediction.map(gene, "calibrated") - prediction.map(gene, "raw")
    np.testing.assert_allclose(difference.data, expected, atol=1e-6)
    low, high = difference.contrast_limits
    assert low == -high < 0
    assert interval.name == f"{gene} interval [± log10]"
    np.testing.assert_array_equal(interval.data, prediction.on_grid(prediction.interval(gene)))
    assert unlike.name == "Unlike training [share]"
    np.testing.assert_array_equal(unlike.data, prediction.on_grid(prediction.unlike()))
    assert tuple(unlike.contrast_limits) == (0, 1)
    for layer in (difference, interval, unlike):
        np.testing.assert_array_equal(np.isnan(layer.data), np.isnan(prediction.map(gene)))
        assert layer.name_overlay.visible
        assert tuple(layer.scale) == tuple(maps.layer("raw").scale)


def test_another_gene_changes_every_map_and_keeps_what_the_user_set(predicted):
    session, maps = predicted.session, predicted.heatmaps
    for kind in ("difference", "interval", "unlike"):
        maps.show(kind)
    maps.layer("unlike").contrast_limits = (0.5, 1)
    maps.layer("interval").name = "my doubts"
    maps.layer("difference").colormap = "PiYG"
    gene = session.bundle.genes[5]
    session.show_gene(gene)
    assert maps.layer("difference").name == f"{gene} difference [log10]"
    assert maps.layer("difference").colormap.name == "PiYG"
    np.testing.assert_array_equal(
        maps.layer("interval").data, session.prediction.on_grid(session.prediction.interval(gene))
    )
    assert maps.layer("interval").name == "my doubts"
    assert tuple(maps.layer("unlike").contrast_limits) == (0.5, 1)  # it does not depend on the gene
    assert set(maps.visible) == {"calibrated", "difference", "interval", "unlike"}


def test_a_map_that_the_user_deleted_stays_away_until_asked_for(predicted):
    maps = predicted.heatmaps
    maps.show("interval")
    predicted.viewer.layers.remove(maps.layer("interval"))
    predicted.session.show_gene(predicted.session.bundle.genes[5])
    assert maps.layer("interval") is None
    maps.show("interval")
    assert maps.layer("interval").visible


def test_a_signature_grows_with_its_prediction(predicted, tiny_bundle):
    session, maps = predicted.session, predicted.heatmaps
    genes = session.bundle.genes[:3]
    session.show_signature("mine", [*genes, "unheard-of"])
    maps.show_only("signature")
    layer = maps.layer("signature")
    assert layer.name == "mine signature [mean z]"
    np.testing.assert_array_equal(
        layer.data, session.prediction.on_grid(session.signature.values(session.prediction))
    )
    with pytest.raises(GeneError):
        session.show_signature("other", ["unheard-of"])
    assert layer.name == "mine signature [mean z]"
    session.show_signature("other", genes[:1])
    assert layer.name == "other signature [mean z]"
    panel = session.bundle.panel
    z = panel.standardise(session.prediction.values(np.array([0]), None).repeat(len(panel), 1))[:, 0]
    np.testing.assert_allclose(layer.data, session.prediction.on_grid(z), atol=1e-5)


def test_a_deleted_heatmap_comes_back_with_the_next_gene(predicted):
    layer = predicted.heatmaps.layer("calibrated")
    predicted.viewer.layers.remove(layer)
    assert predicted.heatmaps.variants == ("raw",)
    predicted.session.show_gene(predicted.session.bundle.genes[5])
    assert set(predicted.heatmaps.variants) == {"raw", "calibrated"}


def test_maps_come_below_what_was_drawn_on_the_slide(predicted):
    raw, calibrated = (predicted.heatmaps.layer(kind) for kind in ("raw", "calibrated"))
    predicted.viewer.layers.remove(calibrated)
    drawn = predicted.viewer.add_shapes(np.array([[0, 0], [9, 9]]), shape_type="rectangle", name="region")
    predicted.session.show_gene(predicted.session.bundle.genes[5])
    back = predicted.heatmaps.layer("calibrated")
    assert back is not calibrated
    assert list(predicted.viewer.layers) == [predicted.session.slide_layer, raw, back, drawn]


def test_heatmaps_leave_with_their_slide(predicted):
    predicted.session.set_slide_layer(None)
    assert predicted.heatmaps.variants == ()
    assert len(predicted.viewer.layers) == 1


def test_the_slide_shows_where_nothing_is_predicted(make_napari_viewer, qtbot):
    viewer = make_napari_viewer(show=True)
    viewer.add_image(np.full((20, 20, 3), (255, 0, 0), np.uint8), rgb=True)
    values = np.full((20, 20), 0.5, np.float32)
    values[:, :10] = np.nan
    viewer.add_image(values, colormap="viridis", contrast_limits=(0, 1), opacity=0.6, blending="translucent")
    qtbot.wait(300)
    picture = viewer.screenshot(canvas_only=True, flash=False)
    rows, cols = picture.shape[:2]
    bare, covered = picture[rows // 2, cols // 2 - 60], picture[rows // 2, cols // 2 + 60]
    assert tuple(bare[:3]) == (255, 0, 0)
    assert tuple(covered[:3]) != (255, 0, 0)


def test_a_rough_map_goes_when_its_run_ends_without_a_tile(desk, write_tissue, tiny_bundle, qtbot):
    desk.open(write_tissue())
    desk.load(tiny_bundle)
    predictor = Predictor(desk.session.bundle, device="cpu")
    context = predictor.prepare(desk.session.slide)
    desk.session.set_slide_context(predictor, context)
    few = Prediction(desk.session.bundle, context.grid, context.slide)
    few.add(next(predictor.stream(context, context.tiles()[:1])))
    desk.session.set_preview(Preview(few, context.tiles(), np.zeros(len(context.tiles()), np.int64)))
    qtbot.waitUntil(lambda: desk.heatmaps.layer("calibrated") is not None)
    assert np.isfinite(desk.heatmaps.layer("calibrated").data).sum() == len(context.tiles())
    desk.session.end_run()  # cancelled before its first batch
    qtbot.waitUntil(lambda: np.isnan(desk.heatmaps.layer("calibrated").data).all())
    assert not desk.session.prediction and desk.session.preview is None
