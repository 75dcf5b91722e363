"""Run work in threads: its results and errors come to the Qt thread, as long as somebody waits for them."""

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
    """One piece of work in a thread, which looks here whether it should stop.

    napari cancels a task itself when its window closes, and when the user says so in its list of tasks.

    Attributes
    ----------
    progress : Progress
        What the work is given: it asks here whether to stop, and reports how far it is.
    so_far : (int, int)
        Done and total, as the work reported them last; (0, 0) before. Written in the thread of the work, and
        read on the Qt thread.
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
        """Tell whether the work should stop."""
        return self._cancelled.is_set() or self.cancelled_by_napari

    @property
    def cancelled_by_napari(self) -> bool:
        """Whether it was napari that asked the work to stop."""
        return self.worker is not None and bool(self.worker.abort_requested)

    def _advance(self, done: int, total: int, _what: str) -> None:
        self.so_far = (done, total)


@dataclass(frozen=True)
class _Listener:
    """Who is told of a task."""

    on_result: Slot
    on_error: Callable[[Exception], None]
    on_end: Callable[[], None]


@dataclass(frozen=True)
class _Failure:
    """The error that a task ended with."""

    error: Exception


class TaskRunner:
    """Runs tasks for the object that keeps it; when that object is gone, they are cancelled and not heard.

    Parameters
    ----------
    _viewer : napari.Viewer, optional
        Not used; so that a runner can be kept for a viewer, see `kept_for`.
    """

    def __init__(self, _viewer: Any = None) -> None:
        self._listeners: dict[Task, _Listener] = {}
        self._tasks: set[Task] = set()  # without the listeners, which would keep the runner's owner
        weakref.finalize(self, _cancel_all, self._tasks)

    @property
    def busy(self) -> bool:
        """Whether a task is running that is not dropped."""
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
        """Start a task in a thread of its own. All listeners are called on the Qt thread.

        Parameters
        ----------
        work : callable
            ``work(task)``, called in the thread: a function, or a generator. It may raise ChrepError.
        on_result : callable
            Gets what the work returns, or one after the other what it yields.
        on_error : callable, optional
            Gets the error that the work ends with, other than Cancelled; by default it is shown. napari
            shows a fault of ours (no ChrepError) with its traceback in any case.
        on_end : callable
            Called when the work is over, for whatever reason.
        title : str
            Of a progress bar in napari's window; none where it is empty.
        beside : bool
            Let earlier tasks go on; else they are dropped.
        """
        if not beside:
            self.drop()
        task = Task()
        self._tasks.add(task)
        self._listeners[task] = _Listener(on_result, on_error or show, on_end)
        progress = {"desc": title} if title else None
        task.worker = worker = create_worker(_steps, work, task, _progress=progress, _start_thread=False)
        runner = weakref.ref(self)
        worker.yielded.connect(partial(_on_yielded, runner, task))
        worker.finished.connect(partial(_on_finished, runner, task))
        worker.start()
        return task

    def cancel(self) -> None:
        """Ask all tasks to stop; what they give until then is still heard, and their end."""
        _cancel_all(self._tasks)

    def drop(self) -> None:
        """Ask all tasks to stop; nothing more is heard of them."""
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
    """Show an error to the user, unless it is a fault of ours, which napari shows."""
    if isinstance(error, ChrepError):
        show_error(str(error))


def show_short(error: Exception) -> None:
    """Show an error as `show`, with the name of its file alone."""
    if isinstance(error, ChrepError):
        show_error(error.short)


def in_words(error: Exception) -> str:
    """Return what to tell the user of an error."""
    return str(error) if isinstance(error, ChrepError) else f"{type(error).__name__}: {error}"


def _steps(work: Callable[[Task], Any], task: Task) -> Iterator[Any]:
    """Do the work in its thread; yield its results, or the error that it ends with."""
    try:
        made = work(task)
        if isinstance(made, Iterator):
            yield from made
        else:
            yield made
    except Cancelled:
        return
    except Exception as error:  # not left to the worker, which takes a RuntimeError for its own end
        yield _Failure(error)


def _on_yielded(runner: Callable[[], TaskRunner | None], task: Task, result: Any) -> None:
    """Hand a result to who waits for it; those of dropped tasks come to nobody, however late they arrive."""
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
