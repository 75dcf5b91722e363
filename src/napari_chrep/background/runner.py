"""Run work in background threads, and deliver its results and errors on the Qt thread."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from napari.qt.threading import create_worker
from napari.utils.notifications import show_error

from chrep_model.errors import Cancelled, ChrepError
from chrep_model.progress import Progress

Slot = Callable[[Any], None]


class Task:
    """Handle of work that runs in a thread, to cancel it and to read its progress.

    napari itself cancels a task when its window is closed, or when the user cancels it in napari's list.

    Attributes
    ----------
    progress : Progress
        Object through which the work reports its progress and learns that it should stop.
    so_far : (int, int)
        Done and total as last reported by the work; (0, 0) before. Written in its thread, read on the Qt
        thread.
    """

    def __init__(self) -> None:
        self.so_far = (0, 0)
        self.progress = Progress(advance=self._advance, cancelled=self.cancelled)
        self.worker: Any = None
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Ask the work to stop."""
        self._cancelled.set()

    def cancelled(self) -> bool:
        """Return whether the work should stop."""
        return self._cancelled.is_set() or self.cancelled_by_napari

    @property
    def cancelled_by_napari(self) -> bool:
        """Whether napari asked the work to stop."""
        return self.worker is not None and bool(self.worker.abort_requested)

    def _advance(self, done: int, total: int, _what: str) -> None:
        self.so_far = (done, total)


@dataclass(frozen=True)
class _Listener:
    """Functions to call with the results, the error and the end of a task."""

    on_result: Slot
    on_error: Callable[[Exception], None]
    on_end: Callable[[], None]


@dataclass(frozen=True)
class _Failure:
    """Error that ended a task."""

    error: Exception


class TaskRunner:
    """Runner of tasks in threads for an owner; when the owner is deleted, its tasks are cancelled.

    Parameters
    ----------
    _viewer : napari.Viewer, optional
        Not used; accepted so that `kept_for` can make a runner for a viewer.
    """

    def __init__(self, _viewer: Any = None) -> None:
        self._listeners: dict[Task, _Listener] = {}
        self._tasks: set[Task] = set()  # without the listeners, which would keep the owner alive
        weakref.finalize(self, _cancel_all, self._tasks)

    @property
    def busy(self) -> bool:
        """Whether a task is running that was not dropped."""
        return bool(self._listeners)

    def run(
        self,
        work: Callable[[Task], Any],
        *,
        on_result: Slot = lambda _result: None,
        on_error: Callable[[Exception], None] | None = None,
        on_end: Callable[[], None] = lambda: None,
        title: str = "",
        beside: bool = False,
    ) -> Task:
        """Start a task in a thread; the functions `on_...` are called on the Qt thread.

        Parameters
        ----------
        work : callable
            ``work(task)``, called in the thread: a function, or a generator. It may raise ChrepError.
        on_result : callable
            Called with the value that the work returns, or with each value that it yields.
        on_error : callable, optional
            Called with the error that ends the work, unless that is Cancelled; by default the error is shown.
            An unexpected error (no ChrepError) is shown by napari in any case, with its traceback.
        on_end : callable
            Called when the work has ended, with or without an error.
        title : str
            Title of a progress bar in napari's window; empty for no bar.
        beside : bool
            Whether earlier tasks continue; by default they are dropped.
        """
        if not beside:
            self.drop()
        task = Task()
        self._tasks.add(task)
        self._listeners[task] = _Listener(on_result, on_error or show, on_end)

        def steps() -> Iterator[Any]:
            yield from _steps(work, task)

        # The name by which napari lists the task when its window is closed.
        steps.__qualname__ = getattr(getattr(work, "func", work), "__qualname__", title)
        progress = {"desc": title} if title else None
        task.worker = worker = create_worker(steps, _progress=progress, _start_thread=False)
        runner = weakref.ref(self)
        worker.yielded.connect(partial(_on_yielded, runner, task))
        worker.finished.connect(partial(_on_finished, runner, task))
        worker.start()
        return task

    def cancel(self) -> None:
        """Cancel all tasks; results until they stop, and their end, are still delivered."""
        _cancel_all(self._tasks)

    def drop(self) -> None:
        """Cancel all tasks, and ignore their results from now on."""
        self._listeners.clear()
        self.cancel()

    def _listener(self, task: Task) -> _Listener | None:
        return self._listeners.get(task)

    def _end(self, task: Task) -> None:
        self._tasks.discard(task)
        listener = self._listeners.pop(task, None)
        if listener is not None:
            listener.on_end()


def show(error: Exception) -> None:
    """Show a ChrepError to the user; napari itself shows unexpected errors."""
    if isinstance(error, ChrepError):
        show_error(str(error))


def show_short(error: Exception) -> None:
    """Show a ChrepError like `show`, but with the name of its file instead of the path."""
    if isinstance(error, ChrepError):
        show_error(error.short)


def in_words(error: Exception) -> str:
    """Return the text of an error for the user."""
    return str(error) if isinstance(error, ChrepError) else f"{type(error).__name__}: {error}"


def _steps(work: Callable[[Task], Any], task: Task) -> Iterator[Any]:
    """Do the work in its thread, and yield its results, or the error that ends it."""
    try:
        made = work(task)
        if isinstance(made, Iterator):
            yield from made
        else:
            yield made
    except Cancelled:
        return
    except Exception as error:  # the worker itself would end silently with a RuntimeError
        yield _Failure(error)


def _on_yielded(runner: Callable[[], TaskRunner | None], task: Task, result: Any) -> None:
    """Pass a result to the task's listener; results of dropped tasks are ignored."""
    kept = runner()
    listener = None if kept is None else kept._listener(task)
    if not isinstance(result, _Failure):
        if listener is not None:
            listener.on_result(result)
        return
    if listener is not None:
        listener.on_error(result.error)
    if not isinstance(result.error, ChrepError):
        raise result.error


def _on_finished(runner: Callable[[], TaskRunner | None], task: Task) -> None:
    kept = runner()
    if kept is not None:
        kept._end(task)


def _cancel_all(tasks: set[Task]) -> None:
    for task in tasks:
        task.cancel()
