"""Execution of an evaluation's jobs in parallel processes with one thread each.

The results do not depend on the number of processes, because each job runs on one thread, and the tables are
assembled in the order of the plan.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from multiprocessing import parent_process
from multiprocessing.synchronize import Event
from typing import NoReturn

from chrep_model.errors import Cancelled, ChrepError, JobError
from chrep_model.evaluation.fits import FitTask, JobStore, Plan, do_job
from chrep_model.methods.registry import find
from chrep_model.processes import spawning
from chrep_model.progress import SILENT, Progress

_POLL_S = 0.2
_GO_ON = "What is done is kept: the same command goes on from there."

_FITS = "fits"
"""Label of the progress; constant, so that a progress bar can estimate the remaining time."""


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def do_jobs(
    plan: Plan,
    jobs: Sequence[FitTask],
    store: JobStore,
    *,
    processes: int,
    progress: Progress = SILENT,
) -> None:
    """Fit and score all jobs that have no stored result yet, and store each result.

    Parameters
    ----------
    plan : Plan
        Data and settings of all jobs.
    jobs : sequence of FitTask
        All jobs; those whose result is in `store` are skipped.
    store : JobStore
        Store to which the result of each job is written.
    processes : int
        Number of processes; with 1, jobs run in this process.
    progress : Progress
        Receives the number of finished jobs; asked for cancellation all the time.

    Raises
    ------
    Cancelled
        `progress.cancelled` returned True.
    ChrepError
        Error of the first job that failed, with the job's name; `JobError` for internal errors.
    """
    keys = {job: plan.key(job) for job in jobs}
    pending = {job: key for job, key in keys.items() if not store.has(job, key)}
    done, processes = len(jobs) - len(pending), min(processes, len(pending))
    if processes > 1:
        work = _side_by_side(plan, pending, store, processes, progress)
    else:
        work = _in_turn(plan, pending, store, progress)
    progress.advance(done, len(jobs), _FITS)
    with closing(work):
        for _ in work:
            done += 1
            progress.advance(done, len(jobs), _FITS)


def _in_turn(
    plan: Plan, jobs: Mapping[FitTask, str], store: JobStore, progress: Progress
) -> Generator[FitTask]:
    quiet = Progress(cancelled=progress.cancelled)  # the bar counts jobs, not what each of them does
    for job, key in jobs.items():
        progress.raise_if_cancelled()
        try:
            _do(plan, job, key, store, quiet)
        except Exception as error:
            _blame(job, error)
        yield job


def _side_by_side(
    plan: Plan,
    jobs: Mapping[FitTask, str],
    store: JobStore,
    processes: int,
    progress: Progress,
) -> Generator[FitTask]:
    with spawning() as context:
        stop = context.Event()
        methods = [find(job.method) for job in jobs]
        executor = ProcessPoolExecutor(
            processes, context, initializer=_Worker.start, initargs=(plan, store, stop, methods)
        )
        try:
            running: dict[Future[None], FitTask] = {
                executor.submit(_Worker.work, *entry): entry[0] for entry in jobs.items()
            }
            while running:
                finished, _ = wait(running, timeout=_POLL_S, return_when=FIRST_COMPLETED)
                progress.raise_if_cancelled()
                for future in finished:
                    job = running.pop(future)
                    if (error := future.exception()) is not None:
                        _blame(job, error)
                    yield job
        finally:
            stop.set()  # running jobs end at their next message or epoch
            executor.shutdown(wait=True, cancel_futures=True)


class _Worker:
    """Plan, result store and stop signal of one worker process."""

    plan: Plan
    store: JobStore
    progress: Progress

    @classmethod
    def start(cls, plan: Plan, store: JobStore, stop: Event, _methods: Sequence[object]) -> None:
        """Set up the process, which ends when its parent process ends.

        The classes of methods are not used: receiving them imports their modules, also those outside this
        package, which registers the methods in this process.
        """
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C arrives through `stop`
        if not sys.warnoptions:
            warnings.simplefilter("ignore")  # warnings would disturb the progress bar
        cls.plan, cls.store, cls.progress = plan, store, Progress(cancelled=stop.is_set)
        threading.Thread(target=_leave_with_parent, daemon=True).start()

    @classmethod
    def work(cls, job: FitTask, key: str) -> None:
        """Run one job."""
        _do(cls.plan, job, key, cls.store, cls.progress)


def _leave_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _do(plan: Plan, job: FitTask, key: str, store: JobStore, progress: Progress) -> None:
    with single_threaded():
        store.keep(job, key, do_job(plan, job, progress))


def _blame(job: FitTask, error: BaseException) -> NoReturn:
    """Raise a job's error again with the job's name in the message."""
    if isinstance(error, Cancelled):
        raise error
    if isinstance(error, ChrepError):
        raise type(error)(f"{job}: {error.what}", path=error.path, remedy=error.remedy) from error
    if isinstance(error, BrokenProcessPool):
        raise JobError(
            f"{job}: its process, or one beside it, ended without a word",
            remedy=f"The memory may be full: use fewer --jobs. {_GO_ON}",
        ) from error
    if not isinstance(error, Exception):
        raise error
    reason = " ".join(str(error).split()) or "no message"
    raise JobError(
        f"{job}: unexpected {type(error).__name__}: {reason}",
        remedy=f"This is a fault of chrep; --debug shows where. {_GO_ON}",
    ) from error


@contextmanager
def single_threaded() -> Iterator[None]:
    """Limit all libraries to one thread, so that results do not depend on the number of cores."""
    # Imported first, because a limit only applies to libraries that are loaded.
    import joblib
    import scipy.linalg  # noqa: F401
    import sklearn.ensemble  # noqa: F401
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    with threadpool_limits(1), joblib.parallel_config(backend="sequential"):
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)
