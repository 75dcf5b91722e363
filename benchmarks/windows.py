"""A window that lives while a benchmark waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from qtpy.QtTest import QTest

from napari_chrep.background.prediction_engine import PredictionEngine

T = TypeVar("T")

_test: Any = QTest  # whose types say that its functions belong to an instance


def live(ms: int) -> None:
    """Let the window live for so long."""
    _test.qWait(ms)


def until(done: Callable[[], bool]) -> float:
    """Let the window live until it is done; give the seconds."""
    started = time.perf_counter()
    while not done():
        live(1)
    return time.perf_counter() - started


def settle(engine: PredictionEngine, ms: int = 100) -> None:
    """Let the window live for so long, and until nothing is under way."""
    live(ms)
    until(lambda: engine.state == "idle")


def there(thing: T | None) -> T:
    """Give what has to be there by now."""
    assert thing is not None  # noqa: S101  (a benchmark that went wrong)
    return thing
