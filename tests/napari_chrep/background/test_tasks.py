"""What the worker makes of a schedule: the order of tiles and rough maps, with a model that only counts."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from chrep_model.geometry import Rect
from chrep_model.prediction.parts import PredictionPart
from chrep_model.prediction.prediction import Prediction, Preview
from chrep_model.slides.tiles import TileGrid, TileSpec
from napari_chrep.background import tasks
from napari_chrep.background.runner import Task
from napari_chrep.background.tasks import predict_tiles
from napari_chrep.background.tile_schedule import TileSchedule

GRID = TileGrid((3_200, 3_200), 1.0, TileSpec(1.0, 100))  # 32 x 32 tiles
EVERYTHING = np.arange(GRID.size)
CONTEXT = SimpleNamespace(grid=GRID, slide=None)


class Counting:
    """Stands in for a predictor; each tile's value is its index."""

    batch_size = 16

    def __init__(self, rough=False, context_um=(300.0,)):
        self.bundle = SimpleNamespace(context_um=context_um)
        self.rough, self.seen, self.asked = rough, [], []

    def preview(self, context, indices, *, progress):
        self.asked.append(indices)
        if not self.rough:
            return None
        return Preview(Prediction(None, GRID, None), indices, np.zeros(len(indices), np.int64))

    def stream(self, context, indices, *, progress):
        for part in indices:
            if progress.cancelled():
                return
            self.seen.append(part)
            yield PredictionPart(part, {"value": part.astype(np.float32)})


@pytest.fixture(autouse=True)
def _in_this_thread(monkeypatch):
    monkeypatch.setattr(tasks, "_lower_priority", lambda: None)


@pytest.fixture
def schedule():
    schedule = TileSchedule(GRID, EVERYTHING)
    schedule.set_view(Rect(0, 0, 3_200, 3_200))
    return schedule


def run(predictor, schedule, task=None):
    return list(predict_tiles(predictor, CONTEXT, schedule, task or Task()))


def test_coarse_passes_draw_what_still_waits(schedule):
    came = run(Counting(), schedule)
    kinds = "".join("m" if isinstance(result, Preview) else "p" for result in came)
    assert kinds == "p" * 4 + "m" + "p" * 12 + "m" + "p" * 48  # 64 tiles, 192 more, 768 more
    for preview, step in zip([r for r in came if isinstance(r, Preview)], (4, 2), strict=True):
        few = preview.prediction.indices
        assert len(few) == GRID.size / step**2
        apart = GRID.centres(preview.tiles) - GRID.centres(few[preview.stand_in])
        assert np.abs(apart).max() < 100 * step
        values = np.full(GRID.shape, np.nan, np.float32)
        values.flat[few] = few
        preview.fill(few.astype(np.float32), values)
        assert np.isfinite(values).all()
    parts = [result.indices for result in came if isinstance(result, PredictionPart)]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), EVERYTHING)


def test_where_neighbourhoods_are_unknown_a_rough_map_comes_first_and_then_the_centre(schedule):
    predictor = Counting(rough=True)
    first, *parts = run(predictor, schedule)
    assert isinstance(first, Preview) and all(isinstance(part, PredictionPart) for part in parts)
    assert len(predictor.asked) == 1
    order = np.concatenate(predictor.seen)
    np.testing.assert_array_equal(np.sort(order), EVERYTHING)
    assert (np.diff(np.hypot(*(GRID.centres(order) - 1_600).T)) >= 0).all()


def test_a_model_that_looks_at_no_neighbours_keeps_its_coarse_passes(schedule):
    predictor = Counting(rough=True, context_um=())
    came = run(predictor, schedule)
    assert isinstance(came[0], Preview) and sum(isinstance(result, Preview) for result in came) == 3
    assert sum(map(len, predictor.seen)) == GRID.size and len(predictor.asked) == 1
    row, col = np.divmod(np.concatenate(predictor.seen[:4]), GRID.shape[1])
    assert not (row % 4).any() and not (col % 4).any()


def test_each_new_view_may_have_a_rough_map_of_its_own():
    now = [0.0]
    schedule = TileSchedule(GRID, EVERYTHING, clock=lambda: now[0])
    schedule.set_view(Rect(0, 0, 1_000, 1_000))
    predictor = Counting(rough=True)
    coming = predict_tiles(predictor, CONTEXT, schedule, Task())
    assert isinstance(next(coming), Preview)
    next(coming)
    schedule.set_view(Rect(500, 0, 1_000, 1_000))
    now[0] += 1.0
    rest = list(coming)
    assert sum(isinstance(result, Preview) for result in rest) == 1
    done = np.concatenate(predictor.seen)
    assert len(done) == len(np.unique(done))
    assert not np.isin(predictor.asked[1], predictor.seen[0]).any()


def test_what_is_under_way_is_left_for_a_view_elsewhere():
    now = [0.0]
    schedule = TileSchedule(GRID, EVERYTHING, clock=lambda: now[0])
    schedule.set_view(Rect(0, 0, 1_000, 1_000))

    class ReadingAhead(Counting):
        def stream(self, context, indices, *, progress):
            ahead = [next(indices), next(indices)]
            while ahead and not progress.cancelled():
                self.seen.append(part := ahead.pop(0))
                yield PredictionPart(part, {})
                ahead.extend(batch for batch in [next(indices, None)] if batch is not None)

    predictor = ReadingAhead()
    coming = predict_tiles(predictor, CONTEXT, schedule, Task())
    next(coming)
    schedule.set_view(Rect(2_000, 2_000, 1_000, 1_000))
    now[0] += 1.0
    list(coming)
    elsewhere = GRID.indices_in(Rect(2_000, 2_000, 1_000, 1_000))
    assert len(predictor.seen[0]) == 16
    np.testing.assert_array_equal(np.sort(np.concatenate(predictor.seen[1:])), elsewhere)


def test_few_tiles_have_no_rough_map():
    schedule = TileSchedule(GRID, EVERYTHING)
    schedule.set_view(Rect(0, 0, 300, 300))
    predictor = Counting(rough=True)
    (part,) = run(predictor, schedule)
    assert len(part.indices) == 9 and not predictor.asked


def test_it_stops_within_a_batch_and_draws_nothing_more(schedule):
    task, came = Task(), []
    for result in predict_tiles(Counting(), CONTEXT, schedule, task):
        came.append(result)
        if len(came) == 3:
            task.cancel()
    assert len(came) == 3
