"""The view is followed in a real viewer: runs go on while it moves, and nothing is predicted twice."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import Qt

from chrep_model.errors import SlideError


class Follower:
    """The explorer following a view of a slide; tiles come one at a time, and unhurried."""

    def __init__(self, desk, explorer, qtbot):
        self.desk, self.run, self.qtbot = desk, explorer.run, qtbot
        self.workers, self.parts = [], []
        start, add = desk.engine._start, desk.session.add_part
        desk.engine._start = lambda state, *args: (self.workers.append(state), start(state, *args))
        desk.session.add_part = lambda part: (self.parts.append(part.indices), add(part))

    def move(self, row, col, zoom=None):
        """Look at a place in µm."""
        camera = self.desk.viewer.scene.camera
        if zoom is not None:
            camera.zoom = zoom
        camera.center = (0, row, col)

    def begin(self):
        """Follow, and wait for the first tile."""
        self.run.follow.click()
        self.qtbot.waitUntil(lambda: len(self.parts) > 0, timeout=60_000)

    def rest(self):
        """Wait until the view has come to rest and everything is done."""
        self.qtbot.wait(500)
        self.desk.wait()

    def tiles_in_view(self):
        return self.desk.session.context.tiles(self.run.viewport.rect(self.desk.session.slide))

    @property
    def predicted(self):
        """All tiles that a worker handed out, as often as it did."""
        return np.concatenate([np.empty(0, np.int64), *self.parts])


@pytest.fixture
def follower(desk, tiny_bundle, write_tissue, qtbot):
    explorer = desk.dock("Slide explorer")
    desk.open(write_tissue())
    desk.prepare(tiny_bundle, batch_size=1)
    return Follower(desk, explorer, qtbot)


def test_a_pan_with_overlap_goes_on_with_the_run(follower):
    follower.move(540, 300, zoom=1.5)
    before = follower.tiles_in_view()
    follower.begin()
    follower.move(540, 600)
    after = follower.tiles_in_view()
    assert np.intersect1d(before, after).size and np.setdiff1d(after, before).size
    follower.rest()
    assert follower.workers == ["predicting"]
    assert np.isin(after, follower.predicted).all()
    assert len(np.unique(follower.predicted)) == len(follower.predicted)


def test_what_left_the_view_is_not_predicted(follower):
    follower.move(540, 200, zoom=2.0)
    before = follower.tiles_in_view()
    follower.begin()
    follower.move(540, 900)
    after = follower.tiles_in_view()
    assert not np.intersect1d(before, after).size
    follower.rest()
    assert np.isin(after, follower.predicted).all()
    left = np.intersect1d(before, follower.predicted)
    assert 0 < len(left) < len(before)


def test_going_back_and_zooming_out_predict_nothing_again(follower):
    follower.move(540, 300, zoom=2.0)
    follower.begin()
    follower.rest()
    for row, col, zoom in ((540, 700, 2.0), (540, 300, 2.0), (540, 540, 0.5)):
        follower.move(row, col, zoom)
        follower.rest()
    tissue = follower.desk.session.context.tissue
    np.testing.assert_array_equal(np.sort(follower.predicted), tissue)
    follower.move(500, 500)
    follower.rest()
    assert len(follower.predicted) == len(tissue)
    assert follower.run.status.text() == f"All {len(tissue):,} tissue tiles in view are predicted."


def test_a_cancelled_run_begins_again_with_the_next_move_only(follower):
    follower.move(540, 540, zoom=1.0)
    follower.begin()
    follower.qtbot.mouseClick(follower.run.cancel, Qt.MouseButton.LeftButton)
    follower.rest()
    done = len(follower.predicted)
    follower.qtbot.wait(400)
    assert len(follower.predicted) == done < len(follower.tiles_in_view())
    follower.move(540, 545)
    follower.rest()
    assert np.isin(follower.tiles_in_view(), follower.predicted).all()


def test_of_too_many_tiles_the_budget_is_predicted_and_the_rest_is_asked_about(follower, page, qtbot):
    page.prediction.tile_budget = 5
    follower.move(540, 540, zoom=1.0)
    follower.begin()
    follower.rest()
    left = len(follower.tiles_in_view()) - 5
    assert len(follower.predicted) == 5 and left > 0
    assert follower.run.status.text().startswith(f"In view are {left:,} more tiles")
    assert not follower.run.anyway.isHidden()
    qtbot.mouseClick(follower.run.anyway, Qt.MouseButton.LeftButton)
    follower.rest()
    np.testing.assert_array_equal(np.sort(follower.predicted), np.sort(follower.tiles_in_view()))


def test_the_tissue_that_was_asked_for_is_finished_while_the_view_moves(follower, qtbot):
    follower.move(540, 300, zoom=2.0)
    follower.begin()
    qtbot.mouseClick(follower.run.predict_tissue, Qt.MouseButton.LeftButton)
    follower.move(540, 900)
    follower.rest()
    np.testing.assert_array_equal(np.unique(follower.predicted), follower.desk.session.context.tissue)
    assert follower.workers == ["predicting", "predicting"]


def test_what_went_wrong_is_the_last_word(follower, monkeypatch):
    def broken(*_args, **_kwargs):
        raise SlideError("the file is damaged", remedy="Copy it again.")
        yield

    monkeypatch.setattr(follower.desk.session.predictor, "stream", broken)
    follower.move(540, 540, zoom=1.0)
    follower.run.follow.click()
    follower.rest()
    assert "the file is damaged" in follower.run.status.text()
    assert follower.workers == ["predicting"] and not len(follower.predicted)
