"""Predict many slides on a cluster of dask.distributed; the unit of work is one slide.

Only paths and settings are sent. Each worker process loads the model once; slides, bundle, output and
embeddings are on a file system that all workers share. The worker that predicts a slide also writes its
record, so that no result is lost if the submitting process ends.

A slide of many tiles is divided into parts. Each part is a task that computes a share of the slide's stored
embeddings. The task that predicts the slide runs after them, and computes missing embeddings itself.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chrep_model import __version__
from chrep_model.batch import slides as many
from chrep_model.batch.slides import BatchSettings, Describe, SlideOutcome
from chrep_model.device import share_one_arena
from chrep_model.errors import ChrepError, PredictionError, SettingsError
from chrep_model.processes import spawning
from chrep_model.slides.slide import open_slide

if TYPE_CHECKING:
    from distributed import Client, Future

    from chrep_model.prediction.predictor import Predictor

PART_TILES = 8192
"""Largest number of tissue tiles in a part of a slide: minutes of work on a CPU."""

ANSWER_SECONDS = 30
"""Longest time in seconds to wait for a scheduler's answer."""

_NEEDED = (
    "All workers need the same version of napari-chrep, and a file system on which they see slides, bundle, "
    "output and cache under the same paths."
)


def predict_slides(
    address: str,
    job: BatchSettings,
    targets: Mapping[Path, Path],
    describe: Describe,
    *,
    again: bool = False,
    part_tiles: int = PART_TILES,
) -> Iterator[tuple[Path, SlideOutcome]]:
    """Predict slides on a running cluster; closing the iterator cancels unfinished work.

    Parameters
    ----------
    address : str
        Address of the scheduler, such as ``tcp://host:8786``.
    job : BatchSettings
        Settings for all slides.
    targets : mapping of Path to Path
        Paths of the slides and of their predictions.
    describe : callable
        Describes an error in one line; must be a function of a module, because workers call it.
    again : bool
        Also predict slides that are predicted already.
    part_tiles : int
        Largest number of tissue tiles in a part of a slide.

    Yields
    ------
    slide, outcome
        Finished slides, in any order.

    Raises
    ------
    SettingsError
        distributed is not installed, or no scheduler answers at `address`.
    PredictionError
        A worker cannot read the files or load the model, or the scheduler has ended.
    """
    with _connected(address) as client:
        _check_workers(client, job, targets)
        yield from _Run(client, job, targets, describe, again, part_tiles).outcomes()


@contextmanager
def one_worker_each(gpus: Sequence[str]) -> Iterator[str]:
    """Run a local cluster with one process per GPU, and yield its scheduler's address.

    Parameters
    ----------
    gpus : sequence of str
        Names as returned by `device.gpus`; each process sees only its own GPU.
    """
    import dask
    from distributed import Nanny, Scheduler, SpecCluster

    here: dict[str, Any] = {"host": "127.0.0.1", "port": 0, "dashboard_address": ":0"}
    quiet = {"silence_logs": logging.CRITICAL}
    options = {**here, **quiet, "nthreads": 1, "memory_limit": None}
    workers = {
        gpu: {"cls": Nanny, "options": {**options, "env": {"CUDA_VISIBLE_DEVICES": gpu}}} for gpu in gpus
    }
    scheduler = {"cls": Scheduler, "options": {**here, "dashboard": False}}
    warn = os.environ.get("PYTHONWARNINGS", "ignore")  # hide libraries' warnings for programmers by default
    with (
        spawning(),
        dask.config.set({"distributed.nanny.pre-spawn-environ.PYTHONWARNINGS": warn}),
        SpecCluster(workers=workers, scheduler=scheduler, **quiet) as started,
    ):
        yield started.scheduler_address


class _Run:
    """State of one call of `predict_slides`: the slides and parts that the cluster works on.

    Parameters
    ----------
    client : Client
        Client connected to the scheduler.
    job, targets, describe, again, part_tiles
        See `predict_slides`.
    """

    def __init__(
        self,
        client: Client,
        job: BatchSettings,
        targets: Mapping[Path, Path],
        describe: Describe,
        again: bool,
        part_tiles: int,
    ) -> None:
        self.client, self.job, self.targets, self.describe = client, job, targets, describe
        self.again, self.part_tiles = again, part_tiles
        self._slide: dict[Future[Any], Path] = {}
        self._parts: dict[Future[Any], Path] = {}
        self._suspects: list[Path] = []

    def outcomes(self) -> Iterator[tuple[Path, SlideOutcome]]:
        """Predict all slides, large files first; then retry those whose workers died.

        When a worker dies, the scheduler reports all of its tasks as failed. To find the slide that caused
        it, these slides are tried again after all others, at most one per worker at a time.
        """
        try:
            yield from self._predict(sorted(self.targets, key=_size, reverse=True))
            suspects, self._suspects = self._suspects, []
            workers = len(self.client.scheduler_info(n_workers=-1)["workers"])
            yield from self._predict(suspects, at_a_time=max(1, workers))
            for slide in self._suspects:
                yield slide, self._outcome_of_deadly_slide(slide)
        finally:
            self.client.cancel([*self._slide, *self._parts], force=True)

    def _predict(
        self, slides: Sequence[Path], at_a_time: int | None = None
    ) -> Iterator[tuple[Path, SlideOutcome]]:
        """Predict slides, all at once in parts, or `at_a_time` of them, each as a whole."""
        from distributed import as_completed

        part_tiles = self.part_tiles if at_a_time is None else None
        waiting = iter(slides)
        first = [self._submit(slide, part_tiles) for slide in islice(waiting, at_a_time)]
        running = as_completed(first, loop=self.client.loop)
        for future in running:
            if (slide := self._parts.pop(future, None)) is not None:
                if slide not in self._parts.values():  # failed parts are computed with the slide
                    running.add(self._submit(slide, None, priority=1))
                continue
            slide = self._slide.pop(future)
            result = self._result(future)
            if isinstance(result, int):
                running.update([self._submit_part(slide, part) for part in range(result)])
                continue
            if result is None:
                self._suspects.append(slide)
            else:
                yield slide, result
            running.update([self._submit(slide, part_tiles) for slide in islice(waiting, 1)])

    def _submit(self, slide: Path, part_tiles: int | None, priority: int = 0) -> Future[Any]:
        future = self.client.submit(
            predict_slide, self.job, slide.absolute(), self.targets[slide].absolute(), self.describe,
            self.again, part_tiles, pure=False, priority=priority,
        )  # fmt: skip
        self._slide[future] = slide
        return future

    def _submit_part(self, slide: Path, part: int) -> Future[Any]:
        future = self.client.submit(
            encode_part, self.job, slide.absolute(), part, self.part_tiles, pure=False, priority=1
        )
        self._parts[future] = slide
        return future

    def _result(self, future: Future[Any]) -> SlideOutcome | int | None:
        """Return the outcome of a slide, the number of parts to divide it into, or None if workers died."""
        from concurrent.futures import CancelledError

        from distributed import KilledWorker

        try:
            result: SlideOutcome | int = future.result()
        except KilledWorker:
            return None
        except CancelledError as error:
            raise PredictionError(
                "the cluster's scheduler is gone",
                remedy="Start it again and give the same command again: what is done stays.",
            ) from error
        except ChrepError:
            raise
        except Exception as error:
            raise PredictionError(
                f"a worker cannot run chrep ({type(error).__name__}: {error})",
                remedy=_NEEDED,
            ) from error
        return result

    def _outcome_of_deadly_slide(self, slide: Path) -> SlideOutcome:
        error = PredictionError(
            "the worker processes that predicted it died again and again",
            path=slide,
            remedy="Look into the workers' logs; most often their memory is full: give each more.",
        )
        return many.failed(self.job, slide.absolute(), self.targets[slide].absolute(), "", str(error))


def predict_slide(
    job: BatchSettings, path: Path, target: Path, describe: Describe, again: bool, part_tiles: int | None
) -> SlideOutcome | int:
    """Predict a slide on a worker, or return the number of parts of `part_tiles` tiles to divide it into."""
    predictor = _predictor(job)
    if not again and (there := many.found(job, predictor.bundle, path, target)) is not None:
        return there
    if part_tiles is not None and (parts := _count_parts(job, predictor, path, part_tiles)) > 1:
        return parts
    return many.attempt(job, predictor, path, target, describe)


def encode_part(job: BatchSettings, path: Path, part: int, part_tiles: int) -> None:
    """Compute and store the embeddings of one part of a slide, on a worker."""
    with open_slide(path, mpp=job.mpp, scene=job.scene) as slide:
        embeddings = _predictor(job).prepare(slide).embeddings
        embeddings.fill(embeddings.shards(part_tiles)[part])


def loads() -> int:
    """Return the number of models that this process has loaded for a cluster."""
    return _loads


_lock = threading.Lock()
_loaded: tuple[Any, Predictor] | None = None
_loads = 0


def _predictor(job: BatchSettings) -> Predictor:
    """Return this process's model, loaded once for all its threads; another job's model replaces it."""
    global _loaded, _loads
    key = (job.bundle_hash, job.device, job.batch_size, job.precision, job.cache)
    with _lock:
        if _loaded is None or _loaded[0] != key:
            _loaded = None  # free the old model first: two may not fit on the device
            _loaded = (key, _load(job))
            _loads += 1
        return _loaded[1]


def _load(job: BatchSettings) -> Predictor:
    import socket

    import dask

    from chrep_model.bundle import load_bundle

    # Otherwise libraries that use dask inside a task would send their work through the cluster's scheduler.
    dask.config.set(scheduler="threads")
    share_one_arena()
    try:
        bundle = load_bundle(job.bundle)
        if bundle.hash != job.bundle_hash:
            raise PredictionError("the bundle is another than the one asked for", path=job.bundle)
        return many.load(job, bundle)
    except ChrepError as error:
        raise PredictionError(
            f"the worker on {socket.gethostname()} cannot load the model ({error.what})",
            path=error.path,
            remedy=error.remedy or _NEEDED,
        ) from error


def _count_parts(job: BatchSettings, predictor: Predictor, path: Path, part_tiles: int) -> int:
    """Return the number of parts to divide a slide into; 1 if only some of its tiles are predicted."""
    from chrep_model.embeddings import SlideEmbeddings

    if job.rect is not None or job.stride != 1.0:
        return 1
    try:
        with open_slide(path, mpp=job.mpp, scene=job.scene) as slide:
            if SlideEmbeddings(slide, predictor.encoder, cache=None).grid.size <= part_tiles:
                return 1
            return len(predictor.prepare(slide).embeddings.shards(part_tiles))
    except Exception:  # reported when the slide is predicted
        return 1


def _size(slide: Path) -> int:
    """Return the size of a slide's file in bytes, as an estimate of its work."""
    try:
        return slide.stat().st_size
    except OSError:  # reported when the slide is predicted
        return 0


@contextmanager
def _connected(address: str) -> Iterator[Client]:
    try:
        from distributed import Client
    except ImportError as error:
        raise SettingsError(
            "--scheduler needs the package distributed, which is not installed",
            remedy='Run: pip install "napari-chrep[cluster]"',
        ) from error
    try:
        client = Client(address, timeout=ANSWER_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"no scheduler of dask.distributed answers at {address!r}",
            remedy="Start one with `dask scheduler`, and give the address that it prints.",
        ) from error
    try:
        yield client
    finally:
        client.close()


def _check_workers(client: Client, job: BatchSettings, targets: Mapping[Path, Path]) -> None:
    """Check that every worker can read the files and load the model, before all slides fail."""
    folders = {target.absolute().parent for target in targets.values()}
    needed = [job.bundle, *folders]
    for worker, obstacle in client.run(_reason_not_ready, needed, __version__, on_error="return").items():
        if isinstance(obstacle, Exception):
            obstacle = f"cannot run chrep {__version__} ({type(obstacle).__name__}: {obstacle})"
        if obstacle:
            raise PredictionError(f"the worker {worker} {obstacle}", remedy=_NEEDED)


def _reason_not_ready(needed: Sequence[Path], version: str) -> str:
    """Return why this process cannot predict the slides; empty if it can."""
    if version != __version__:
        return f"runs chrep {__version__} and not {version}"
    missing = [str(path) for path in needed if not path.exists()]
    return f"does not see {missing[0]}" if missing else ""
