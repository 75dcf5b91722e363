"""Functions that let a window process its events while a benchmark waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from qtpy.QtTest import QTest

from napari_chrep.background.prediction_engine import PredictionEngine

T = TypeVar("T")

_test: Any = QTest  # its type stubs wrongly declare its functions as methods of instances


def process_events(ms: int) -> None:
    """Process the window's events for some milliseconds."""
    _test.qWait(ms)


def wait_until(done: Callable[[], bool]) -> float:
    """Process the window's events until a condition holds, and return the seconds."""
    started = time.perf_counter()
    while not done():
        process_events(1)
    return time.perf_counter() - started


def wait_until_idle(engine: PredictionEngine, ms: int = 100) -> None:
    """Process the window's events for some milliseconds, and then until the engine is idle."""
    process_events(ms)
    wait_until(lambda: engine.state == "idle")


def not_none(thing: T | None) -> T:
    """Return an object, and raise an error if it is None."""
    assert thing is not None  # noqa: S101  (None means that the benchmark failed)
    return thing
