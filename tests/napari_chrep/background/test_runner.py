"""Tasks in threads: what is heard of them, on which thread, and when nothing more is."""

from __future__ import annotations

import gc
import threading
import time

import pytest
from napari.utils.notifications import notification_manager

from chrep_model.errors import Cancelled, ChrepError
from napari_chrep.background.runner import Task, TaskRunner

TIMEOUT_MS = 10_000


class Owner:
    """Keeps a runner and writes down what it hears; its tasks wait for one another by events."""

    def __init__(self, qtbot):
        self.runner, self.qtbot = TaskRunner(), qtbot
        self.results, self.errors, self.ends, self.threads = [], [], [], set()

    def run(self, work, **options):
        return self.runner.run(
            work, on_result=self.hear, on_error=self.errors.append, on_end=self.hear_end, **options
        )

    def hear(self, result):
        self.threads.add(threading.current_thread())
        self.results.append(result)

    def hear_end(self):
        self.ends.append(self.runner.busy)

    def wait(self):
        self.qtbot.waitUntil(lambda: not self.runner.busy, timeout=TIMEOUT_MS)


@pytest.fixture
def owner(qtbot):
    made = Owner(qtbot)
    yield made
    made.runner.drop()
    qtbot.waitUntil(lambda: not made.runner._tasks, timeout=TIMEOUT_MS)


def until_cancelled(task):
    """Yield numbers until the task is cancelled, and one more."""
    number = 0
    while not task.cancelled():
        yield number
        number += 1
        time.sleep(0.005)
    yield "last"


def test_the_result_of_a_function_comes_to_the_qt_thread(owner):
    where = []
    owner.run(lambda _task: where.append(threading.current_thread()) or 7)
    assert owner.runner.busy
    owner.wait()
    assert owner.results == [7] and owner.ends == [False] and not owner.errors
    assert owner.threads == {threading.main_thread()} and where[0] not in owner.threads


def test_all_that_a_generator_yields_comes_in_order(owner):
    owner.run(lambda _task: iter(range(20)))
    owner.wait()
    assert owner.results == list(range(20)) and owner.ends == [False]


def test_a_cancelled_task_is_heard_to_its_end(owner):
    task = owner.run(until_cancelled)
    owner.qtbot.waitUntil(lambda: len(owner.results) > 2, timeout=TIMEOUT_MS)
    owner.runner.cancel()
    owner.wait()
    assert task.cancelled() and not task.cancelled_by_napari
    assert owner.results[-1] == "last" and owner.ends == [False] and not owner.errors


def test_a_newer_task_overtakes_and_the_former_is_not_heard(owner):
    former = owner.run(until_cancelled)
    owner.qtbot.waitUntil(lambda: len(owner.results) > 0, timeout=TIMEOUT_MS)
    owner.results.clear()
    owner.run(lambda _task: "new")
    owner.wait()
    owner.qtbot.waitUntil(lambda: former not in owner.runner._tasks, timeout=TIMEOUT_MS)
    assert former.cancelled() and owner.results == ["new"] and owner.ends == [False]


def test_results_that_wait_for_the_qt_thread_are_dropped_too(owner):
    over = threading.Event()

    def work(_task):
        yield from (1, 2)
        over.set()

    owner.run(work)
    assert over.wait(5)  # no event is handled meanwhile
    owner.runner.drop()
    owner.qtbot.wait(50)
    assert not owner.results and not owner.ends and not owner.runner.busy


def test_tasks_beside_each_other_are_all_heard(owner):
    go = threading.Event()
    owner.run(lambda _task: go.wait(5) and "first")
    owner.run(lambda _task: go.set() or "second", beside=True)
    owner.wait()
    assert sorted(owner.results) == ["first", "second"] and len(owner.ends) == 2


def test_an_error_is_told_and_cancelling_is_none(owner):
    def broken(_task):
        yield "so far"
        raise ChrepError("the file is damaged")

    def stopped(_task):
        raise Cancelled("stopped")

    owner.run(broken)
    owner.wait()
    owner.run(stopped)
    owner.wait()
    assert owner.results == ["so far"] and len(owner.ends) == 2
    assert [str(error) for error in owner.errors] == ["the file is damaged"]


def test_an_error_that_nobody_asked_for_is_shown(owner):
    def broken(_task):
        raise ChrepError("the file is damaged", path="/there/slide.tif")

    with notification_manager:
        notification_manager.records.clear()
        owner.runner.run(broken)
        owner.wait()
        messages = [record.message for record in notification_manager.records]
    assert messages == ["/there/slide.tif: the file is damaged"]


@pytest.mark.parametrize("fault", [TypeError, RuntimeError])
def test_a_fault_is_told_and_raised_on_the_qt_thread(owner, fault):
    def broken(_task):
        raise fault("ours")

    with owner.qtbot.capture_exceptions() as raised:
        owner.run(broken)
        owner.wait()
    assert [type(error) for error in owner.errors] == [fault] == [kind for kind, *_ in raised]
    assert owner.ends == [False]


def test_what_napari_stops_says_so(owner):
    task = owner.run(until_cancelled)
    owner.qtbot.waitUntil(lambda: len(owner.results) > 0, timeout=TIMEOUT_MS)
    task.worker.quit()  # as napari does when its window closes
    owner.wait()
    assert task.cancelled() and task.cancelled_by_napari and owner.ends == [False]


def test_the_tasks_of_an_owner_that_is_gone_are_cancelled_and_not_heard(qtbot):
    owner, seen = Owner(qtbot), []
    results, ends = owner.results, owner.ends

    def work(task):
        seen.append(task)
        yield from until_cancelled(task)

    owner.run(work)
    qtbot.waitUntil(lambda: len(results) > 0, timeout=TIMEOUT_MS)
    del owner
    gc.collect()
    heard = len(results)
    assert seen[0].cancelled()
    qtbot.wait(100)
    assert len(results) == heard and not ends


def test_progress_is_read_while_the_work_goes_on(owner):
    go = threading.Event()

    def work(task: Task):
        task.progress.advance(3, 10, "tiles")
        go.wait(5)

    task = owner.run(work)
    owner.qtbot.waitUntil(lambda: task.so_far == (3, 10), timeout=TIMEOUT_MS)
    go.set()
    owner.wait()


def test_napari_lists_a_task_by_the_name_of_its_work(owner, make_napari_viewer):
    viewer, go = make_napari_viewer(), threading.Event()

    def measure_spots(_task):
        go.wait(5)

    owner.run(measure_spots)
    (listed,) = viewer.window._task_status_manager.get_status()
    go.set()
    owner.wait()
    assert "measure_spots" in listed
