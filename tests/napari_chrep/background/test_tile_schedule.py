"""Which tiles come next: order, coarse to fine, what leaves the view and what stays. A clock by hand."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest

from chrep_model.geometry import Rect
from chrep_model.slides.tiles import TileGrid, TileSpec
from napari_chrep.background.tile_schedule import LEAST, REST_S, TileSchedule

SIDE = 100.0  # of a tile, in level-0 pixels
GRID = TileGrid((6_000, 6_000), 1.0, TileSpec(1.0, int(SIDE)))  # 60 x 60 tiles
COLS = GRID.shape[1]
EVERYTHING = np.arange(GRID.size)


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def schedule(clock):
    return TileSchedule(GRID, EVERYTHING, clock=clock)


def tiles(row, col, rows, cols):
    """The view of so many tiles."""
    return Rect(col * SIDE, row * SIDE, cols * SIDE, rows * SIDE)


def seen(rect):
    return GRID.indices_in(rect)


def settle(schedule, clock, rect):
    schedule.set_view(rect)
    clock.now += REST_S


def pull(schedule, most=32):
    """All batches until nothing waits."""
    batches = []
    while schedule.next_pass() is not None:
        batches += list(schedule.batches(most))
    return batches


def pulled(schedule, most=32):
    return np.concatenate([np.empty(0, np.int64), *pull(schedule, most)])


def distance(indices, rect):
    return np.hypot(*(GRID.centres(indices) - rect.centre).T)


def lattice(indices, stride):
    row, col = np.divmod(indices, COLS)
    return (row % stride == 0) & (col % stride == 0)


def same(a, b):
    np.testing.assert_array_equal(np.sort(a), np.sort(b))


def test_nothing_waits_before_anybody_looks(schedule):
    assert schedule.next_pass() is None and not len(schedule.next_batch(8))


def test_the_tiles_in_view_are_handed_out_each_once(schedule):
    rect = tiles(3, 5, 20, 30)
    schedule.set_view(rect)
    same(pulled(schedule), seen(rect))
    assert schedule.next_pass() is None


def test_tiles_without_tissue_are_not(clock):
    tissue = EVERYTHING[::3]
    schedule = TileSchedule(GRID, tissue, clock=clock)
    rect = tiles(0, 0, 10, 10)
    schedule.set_view(rect)
    same(pulled(schedule), np.intersect1d(tissue, seen(rect)))


def test_few_tiles_come_in_one_pass_from_the_centre_outwards(schedule):
    rect = tiles(10, 10, 15, 17)  # 255: the lattice of every second would have less than 64
    schedule.set_view(rect)
    step = schedule.next_pass()
    assert step.stride == 1
    order = pulled(schedule)
    np.testing.assert_array_equal(order, step.waiting)
    assert (np.diff(distance(order, rect)) >= 0).all()


@pytest.mark.parametrize(
    ("side", "strides"), [(8, [1]), (15, [1]), (16, [2, 1]), (31, [2, 1]), (32, [4, 2, 1]), (60, [4, 2, 1])]
)
def test_how_coarse_it_begins_depends_on_the_scale(schedule, side, strides):
    schedule.set_view(tiles(0, 0, side, side))
    found = []
    while (step := schedule.next_pass()) is not None:
        found.append(step.stride)
        list(schedule.batches(32))
    assert found == strides


def test_coarse_to_fine_each_pass_from_the_centre_outwards(schedule):
    rect = tiles(8, 9, 40, 40)
    schedule.set_view(rect)
    expected = {4: 100, 2: 300, 1: 1200}
    while (step := schedule.next_pass()) is not None:
        batches = list(schedule.batches(32))
        order = np.concatenate(batches)
        assert len(order) == expected.pop(step.stride) and all(len(b) <= 32 for b in batches)
        assert lattice(order, step.stride).all()
        assert step.stride == 4 or not lattice(order, 2 * step.stride).any()
        assert (np.diff(distance(order, rect)) >= 0).all()
        np.testing.assert_array_equal(order, step.waiting[: len(order)])
    assert not expected


def test_a_coarse_pass_has_tiles_enough_for_a_map(schedule):
    schedule.set_view(tiles(0, 0, 16, 16))
    assert sum(len(batch) for batch in schedule.batches(7)) == 0  # nothing is planned yet
    assert schedule.next_pass().stride == 2
    assert sum(len(batch) for batch in schedule.batches(7)) == LEAST


def test_the_lattice_hangs_on_the_slide_and_not_on_the_view(clock):
    coarse = []
    for corner in (8, 9, 10, 11):
        schedule = TileSchedule(GRID, EVERYTHING, clock=clock)
        schedule.set_view(tiles(corner, corner, 40, 40))
        assert schedule.next_pass().stride == 4
        coarse.append(np.concatenate(list(schedule.batches(32))))
        assert lattice(coarse[-1], 4).all()
    assert len(np.intersect1d(coarse[0], coarse[-1])) >= 81


def test_without_coarse_passes_all_come_from_the_centre_outwards(schedule):
    rect = tiles(8, 9, 40, 40)
    schedule.set_view(rect)
    assert schedule.next_pass().stride == 4
    schedule.skip_coarse_passes()
    assert schedule.next_pass().stride == 1
    order = pulled(schedule)
    same(order, seen(rect))
    assert (np.diff(distance(order, rect)) >= 0).all()


def test_what_is_predicted_is_left_out(schedule):
    rect = tiles(0, 0, 10, 10)
    known = seen(tiles(0, 0, 10, 4))
    schedule.set_view(rect)
    schedule.start_run(known, None)
    same(pulled(schedule), np.setdiff1d(seen(rect), known))
    assert schedule.in_view == 100 and schedule.total == 60


def test_a_new_view_counts_once_it_rests(schedule, clock):
    here, there = tiles(0, 0, 4, 4), tiles(30, 30, 4, 4)
    schedule.set_view(here)
    assert schedule.seconds_to_rest() == 0.0  # the first
    same(pulled(schedule), seen(here))
    schedule.set_view(there)
    assert schedule.seconds_to_rest() == pytest.approx(REST_S) and schedule.next_pass() is None
    clock.now += 0.9 * REST_S
    schedule.set_view(tiles(31, 30, 4, 4))  # moves on: begins anew
    clock.now += 0.9 * REST_S
    assert schedule.seconds_to_rest() == pytest.approx(0.1 * REST_S) and schedule.next_pass() is None
    clock.now += 0.2 * REST_S
    assert schedule.seconds_to_rest() == 0.0
    same(pulled(schedule), seen(tiles(31, 30, 4, 4)))


def test_the_generation_counts_views_that_are_new(schedule, clock):
    settle(schedule, clock, tiles(0, 0, 4, 4))
    first = schedule.next_pass().view.generation
    for _ in range(3):
        schedule.set_view(tiles(0, 0, 4, 4))  # napari tells several times of one move
    assert not schedule.has_moved and schedule.seconds_to_rest() == 0.0
    settle(schedule, clock, tiles(0, 1, 4, 4))
    assert schedule.has_moved
    assert schedule.next_pass().view.generation == first + 1
    assert not schedule.has_moved


def test_what_leaves_the_view_is_dropped_at_once(schedule, clock):
    here, moved = tiles(0, 0, 10, 10), tiles(0, 6, 10, 10)
    schedule.set_view(here)
    schedule.next_pass()
    before = schedule.next_batch(8)
    schedule.set_view(moved)  # moves still
    during = np.concatenate(list(schedule.batches(8)))
    same(during, np.setdiff1d(np.intersect1d(seen(here), seen(moved)), before))
    assert schedule.total == len(before) + len(during)


def test_beside_the_slide_nothing_waits(schedule, clock):
    schedule.set_view(tiles(0, 0, 10, 10))
    schedule.next_pass()
    schedule.next_batch(8)
    schedule.set_view(None)
    assert not len(schedule.next_batch(8)) and schedule.next_pass() is None and schedule.total == 8
    clock.now += REST_S
    assert schedule.next_pass() is None and schedule.in_view == 0


def test_a_view_that_overlaps_goes_on_and_takes_in_what_is_new(schedule, clock):
    here, there = tiles(0, 0, 10, 10), tiles(0, 3, 10, 10)
    schedule.set_view(here)
    schedule.next_pass()
    before = np.concatenate([schedule.next_batch(8) for _ in range(3)])
    settle(schedule, clock, there)
    assert not len(schedule.next_batch(8))  # the plan is another: ask for it
    after = pulled(schedule)
    same(after, np.setdiff1d(seen(there), before))
    assert (np.diff(distance(after, there)) >= 0).all()
    assert schedule.total == len(before) + len(after)


def test_a_view_that_went_away_and_came_back_misses_nothing(schedule, clock):
    here = tiles(0, 0, 10, 10)
    schedule.set_view(here)
    schedule.next_pass()
    before = schedule.next_batch(8)
    schedule.set_view(tiles(40, 40, 10, 10))
    assert not len(schedule.next_batch(8))  # all dropped
    settle(schedule, clock, here)
    same(np.concatenate([before, pulled(schedule)]), seen(here))


def test_zooming_out_uses_all_that_was_handed_out(schedule, clock):
    near, far = tiles(20, 20, 10, 10), tiles(5, 5, 40, 40)
    schedule.set_view(near)
    before = pulled(schedule)
    settle(schedule, clock, far)
    step = schedule.next_pass()
    assert step.stride == 4 and not np.isin(step.waiting, before).any()
    same(np.concatenate([before, pulled(schedule)]), seen(far))


def test_no_more_than_the_budget_for_one_view(schedule, clock):
    rect = tiles(0, 0, 40, 40)
    schedule.set_view(rect)
    schedule.start_run(np.empty(0, np.int64), 500)
    assert schedule.total == 500 and schedule.left_out == 1100
    order = pulled(schedule)
    assert len(order) == 500 and schedule.next_pass() is None
    same(order[:400], seen(rect)[lattice(seen(rect), 2)])  # the coarse passes cover the view
    settle(schedule, clock, tiles(0, 1, 40, 40))
    assert len(pulled(schedule)) == 500  # another view, another budget


def test_of_a_budget_without_coarse_passes_the_centre_is_left(schedule):
    rect = tiles(0, 0, 40, 40)
    schedule.set_view(rect)
    schedule.start_run(np.empty(0, np.int64), 500)
    schedule.next_pass()
    schedule.skip_coarse_passes()
    order = pulled(schedule)
    same(order, GRID.order_from(rect.centre, seen(rect))[:500])


def test_what_a_cancelled_run_did_not_finish_waits_again(schedule):
    rect = tiles(0, 0, 10, 10)
    schedule.set_view(rect)
    schedule.start_run(np.empty(0, np.int64), None)
    first, lost = schedule.next_batch(8), schedule.next_batch(8)
    schedule.start_run(first, None)
    again = pulled(schedule)
    assert np.isin(lost, again).all() and not np.isin(first, again).any()
    assert schedule.total == len(again) == 92


def test_what_is_under_way_is_given_up_once_the_view_rests_where_none_of_it_is(schedule, clock):
    here, beside, far = tiles(0, 0, 10, 10), tiles(0, 3, 10, 10), tiles(40, 40, 10, 10)
    schedule.set_view(here)
    schedule.start_run(np.empty(0, np.int64), None)
    finished, lost = schedule.next_batch(8), schedule.next_batch(8)
    schedule.mark_done(finished)
    settle(schedule, clock, beside)
    assert not schedule.is_view_elsewhere()  # some of it is in view
    schedule.set_view(far)
    assert not schedule.is_view_elsewhere()  # moves still
    clock.now += REST_S
    assert schedule.is_view_elsewhere()
    schedule.requeue_unfinished()
    same(pulled(schedule), seen(far))
    assert schedule.total == len(finished) + 100
    settle(schedule, clock, here)
    again = pulled(schedule)
    assert np.isin(lost, again).all()
    same(again, np.setdiff1d(seen(here), finished))


def test_the_total_grows_and_shrinks_with_the_view(schedule, clock):
    schedule.set_view(tiles(0, 0, 10, 10))
    schedule.start_run(np.empty(0, np.int64), None)
    assert schedule.total == 100
    schedule.next_batch(10)
    assert schedule.total == 100
    settle(schedule, clock, tiles(0, 0, 10, 20))
    assert schedule.next_pass() is not None and schedule.total == 200


def test_threads_that_pull_while_the_view_moves_share_each_tile_once(clock):
    schedule = TileSchedule(GRID, EVERYTHING, clock=clock)
    schedule.set_view(tiles(0, 0, 60, 30))
    schedule.start_run(np.empty(0, np.int64), None)
    found, over = [], threading.Event()

    def work():
        while True:
            ended = over.is_set()
            if schedule.next_pass() is None and ended:
                return
            found.extend(schedule.batches(16))

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for col in range(1, 31):
        schedule.set_view(tiles(0, col, 60, 30))
        clock.now += REST_S
    over.set()
    for worker in workers:
        worker.join(timeout=30)
    handed_out = np.concatenate(found)
    assert len(handed_out) == len(np.unique(handed_out))
    assert np.isin(seen(tiles(0, 30, 60, 30)), handed_out).all()


def test_looking_does_not_wait_for_a_worker_that_holds_the_lock(schedule):
    with schedule._lock:
        looking = threading.Thread(target=schedule.set_view, args=(tiles(0, 0, 4, 4),), daemon=True)
        looking.start()
        looking.join(timeout=5)
        assert not looking.is_alive()


def test_it_needs_neither_qt_nor_torch():
    code = (
        "import sys, napari_chrep.background.tile_schedule as s\n"
        "bad = {'qtpy', 'napari', 'torch', 'PyQt6'} & set(sys.modules)\n"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
