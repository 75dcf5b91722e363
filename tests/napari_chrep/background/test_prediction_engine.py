"""Runs: what they give, how they stop, and what they drop."""

from __future__ import annotations

import numpy as np
import pytest
from napari.utils.notifications import notification_manager

from chrep_model.encoders.stainbank import StainbankEncoder
from chrep_model.geometry import Rect
from chrep_model.prediction.prediction import Prediction
from chrep_model.prediction.predictor import Predictor
from chrep_model.slides.slide import open_slide


@pytest.fixture
def slide_path(write_tissue):
    return write_tissue()


def test_a_bundle_is_opened(desk, tiny_bundle, bundle):
    desk.load(tiny_bundle)
    assert desk.session.bundle.hash == bundle.hash
    assert desk.session.gene == bundle.genes[0]


def test_a_broken_bundle_is_reported_and_the_former_one_stays(desk, tiny_bundle, tmp_path):
    desk.load(tiny_bundle)
    before = desk.session.bundle
    empty = tmp_path / "empty"
    empty.mkdir()
    said = []
    desk.engine.failed.connect(said.append)
    with notification_manager:
        notification_manager.records.clear()
        desk.load(empty)
        messages = [record.message for record in notification_manager.records]
    assert desk.session.bundle is before
    assert len(said) == 1 and str(empty) in said[0]
    assert said == messages


def test_a_bundle_whose_opening_was_cancelled_is_not_used(desk, tiny_bundle):
    desk.engine.load_bundle(tiny_bundle)
    desk.engine.cancel()
    desk.wait()
    assert desk.session.bundle is None


def test_a_slide_that_was_predicted_before_comes_with_its_maps(
    desk, tiny_bundle, slide_path, make_napari_viewer, qtbot, monkeypatch
):
    desk.open(slide_path)
    desk.load(tiny_bundle)
    desk.engine.prepare_slide()
    desk.wait()
    assert not desk.session.prediction  # nothing comes unasked the first time
    desk.engine.predict(None)
    desk.wait()
    before = desk.session.prediction
    monkeypatch.setattr(StainbankEncoder, "encode", None)
    again = type(desk)(make_napari_viewer(), qtbot)
    again.open(slide_path)
    again.load(tiny_bundle)
    again.engine.prepare_slide()
    again.wait()
    assert len(again.session.prediction) == len(before)
    qtbot.waitUntil(lambda: again.heatmaps.layer("calibrated") is not None)
    tiles, column = before.indices[:20], np.array([0])
    np.testing.assert_allclose(
        again.session.prediction.only(tiles).values(column, "calibrated"),
        before.only(tiles).values(column, "calibrated"),
        atol=1e-5,
    )


def test_the_run_gives_what_the_predictor_gives(desk, tiny_bundle, bundle, slide_path):
    desk.open(slide_path)
    desk.load(tiny_bundle)
    desk.engine.predict(None)
    desk.wait()
    predictor = Predictor(bundle)
    context = predictor.prepare(open_slide(slide_path))
    direct = Prediction(bundle, context.grid, context.slide)
    for part in predictor.stream(context, context.tiles()):
        direct.add(part)
    gene = bundle.genes[3]
    for variant in direct.variants:
        np.testing.assert_allclose(
            desk.session.prediction.map(gene, variant), direct.map(gene, variant), atol=1e-5
        )


def test_a_cancelled_run_keeps_what_is_done(desk, tiny_bundle, slide_path):
    desk.open(slide_path)
    desk.prepare(tiny_bundle, batch_size=1)
    wanted = desk.session.context.tiles()

    def stop(done, _total, _rate):
        if done:
            desk.engine.cancel()

    desk.engine.progressed.connect(stop)
    desk.engine.predict(None)
    desk.wait()
    done = desk.session.prediction.indices
    assert 0 < done.size < wanted.size
    desk.engine.progressed.disconnect(stop)
    desk.engine.predict(None)
    desk.wait()
    np.testing.assert_array_equal(np.sort(desk.session.prediction.indices), np.sort(wanted))


def test_of_an_overtaken_request_only_what_is_under_way_is_still_predicted(desk, tiny_bundle, slide_path):
    desk.open(slide_path)
    desk.prepare(tiny_bundle, batch_size=1)
    rows, cols = desk.session.slide.shape
    left, right = Rect(0, 0, cols * 0.3, rows), Rect(cols * 0.7, 0, cols * 0.3, rows)
    tiles = desk.session.context.tiles
    assert not np.isin(tiles(left), tiles(right)).any()
    at_the_turn = []

    def turn(done, _total, _rate):
        if done and not at_the_turn:
            at_the_turn.append(desk.session.prediction.indices.size)
            desk.engine.predict(right)

    desk.engine.progressed.connect(turn)
    desk.engine.predict(left)
    desk.wait()
    later = desk.session.prediction.indices[at_the_turn[0] :]
    assert np.isin(tiles(right), later).all()
    assert len(later) <= len(tiles(right)) + 3 < len(tiles(right)) + len(tiles(left)) - at_the_turn[0]


def test_a_view_that_moves_while_the_slide_is_prepared_does_not_start_it_again(desk, tiny_bundle, slide_path):
    desk.open(slide_path)
    desk.load(tiny_bundle)
    states = []
    desk.engine.state_changed.connect(states.append)
    rows, cols = desk.session.slide.shape
    target = Rect(cols * 0.5, rows * 0.5, cols * 0.1, rows * 0.1)
    desk.engine.predict(Rect(0, 0, 10, 10))
    desk.engine.predict(target)
    desk.wait()
    assert states == ["preparing", "predicting", "idle"]
    np.testing.assert_array_equal(
        np.sort(desk.session.prediction.indices), np.sort(desk.session.context.tiles(target))
    )


def test_more_tiles_than_the_budget_are_not_started(desk, tiny_bundle, slide_path):
    desk.open(slide_path)
    desk.load(tiny_bundle)
    refused = []
    desk.engine.over_budget.connect(refused.append)
    desk.engine.predict(None, budget=2)
    desk.wait()
    assert refused == [desk.session.context.tiles().size]
    assert desk.session.prediction.indices.size == 0


def test_what_is_predicted_is_not_predicted_again(desk, tiny_bundle, slide_path):
    desk.open(slide_path)
    desk.load(tiny_bundle)
    desk.engine.predict(None)
    desk.wait()
    states, nothing = [], []
    desk.engine.state_changed.connect(states.append)
    desk.engine.nothing_to_do.connect(nothing.append)
    desk.engine.predict(None)
    desk.wait()
    assert states == [] and nothing == [desk.session.context.tiles().size]


def test_a_slide_too_coarse_for_the_model_is_reported(desk, tiny_bundle, write_tissue):
    desk.open(write_tissue(mpp=20.0))
    desk.load(tiny_bundle)
    said = []
    desk.engine.failed.connect(said.append)
    desk.engine.predict(None)
    desk.wait()
    assert len(said) == 1 and "µm" in said[0]
    assert desk.session.prediction is None


def test_another_slide_stops_the_run_and_the_former_prediction_is_kept(desk, tiny_bundle, write_tissue):
    first = desk.open(write_tissue(name="first.ome.tif"))
    desk.load(tiny_bundle)
    desk.engine.predict(None)
    desk.wait()
    kept = desk.session.prediction
    desk.open(write_tissue(name="second.ome.tif"))
    assert desk.session.prediction is None
    desk.session.set_slide_layer(first)
    assert desk.session.prediction is kept


def test_closing_the_window_stops_the_run(desk, tiny_bundle, slide_path, qtbot):
    desk.dock("Slide explorer")
    desk.open(slide_path)
    desk.prepare(tiny_bundle, batch_size=1)
    total = desk.session.context.tiles().size
    prediction = desk.session.prediction
    desk.engine.predict(None)
    qtbot.waitUntil(lambda: prediction.indices.size > 0, timeout=60_000)
    desk.viewer.close()
    desk.wait()
    assert prediction.indices.size < total


def test_what_waits_is_dropped_when_napari_stops_the_worker(desk, tiny_bundle, slide_path, qtbot):
    desk.open(slide_path)
    desk.prepare(tiny_bundle, batch_size=1)
    desk.engine.predict(None)
    qtbot.waitUntil(lambda: desk.session.prediction.indices.size > 0, timeout=60_000)
    desk.engine.predict(None)  # waits for the run under way to stop
    desk.engine._task.worker.quit()  # as napari does when its window closes
    desk.wait()
    assert desk.session.prediction.indices.size < desk.session.context.tiles().size


def test_a_request_while_the_networks_are_loaded_waits_for_them(desk, tiny_bundle, slide_path):
    desk.open(slide_path)
    states = []
    desk.engine.state_changed.connect(states.append)
    desk.session.bundle_changed.connect(lambda: desk.engine.predict(None))
    desk.load(tiny_bundle)
    assert states == ["loading", "preparing", "predicting", "idle"]
    assert desk.session.prediction.indices.size == desk.session.context.tiles().size
