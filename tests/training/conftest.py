"""Small tables of spots in which features do say something of expression, and a network for them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from chrep_model.training.objective import Objective, SpotBatch
from chrep_model.training.samples import SpotTable


class Line(Objective):
    """Features to targets by a straight line, with dropout for the sake of its random numbers."""

    def __init__(self, inputs: int, genes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.hide, self.line = nn.Dropout(dropout), nn.Linear(inputs, genes)
        self.seen: list[int] = []

    def before_epoch(self, x: Tensor, targets: Tensor) -> None:
        self.seen.append(len(x))

    def loss(self, x: Tensor, batch: SpotBatch) -> Tensor:
        assert len(x) == len(batch.rows)
        return (self.line(self.hide(x)) - batch.targets).pow(2).mean()

    def predict(self, x: Tensor) -> Tensor:
        return self.line(x)


@pytest.fixture(scope="session")
def make_line() -> Callable[..., Line]:
    """Make a network, always the same: ``make_line(inputs=6, genes=4, dropout=0.0)``."""

    def make(inputs: int = 6, genes: int = 4, dropout: float = 0.0) -> Line:
        torch.manual_seed(0)
        return Line(inputs, genes, dropout)

    return make


def small_table() -> SpotTable:
    """Three sections, 49 spots each, 6 features and 4 genes."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((147, 6)).astype(np.float32)
    noise = 0.5 * rng.standard_normal((147, 4))
    row, col = np.divmod(np.arange(49), 7)
    return SpotTable(
        features=features,
        targets=(features @ rng.standard_normal((6, 4)) + noise).astype(np.float32),
        section=np.repeat([0, 1, 2], 49),
        patient=np.repeat([0, 0, 1], 49),
        position=np.tile(np.stack([col, row], axis=1) * 100.0, (3, 1)),
        section_names=("S0", "S1", "S2"),
        depth=np.full(147, 1000.0, np.float32),
    )


@pytest.fixture(scope="session")
def make_table() -> Callable[[], SpotTable]:
    """Make a table, always the same, to be changed."""
    return small_table


@pytest.fixture(scope="session")
def table() -> SpotTable:
    return small_table()


@pytest.fixture(scope="session")
def script() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a program that may import this file: ``script(text, arg, ...)``; it has to end well."""

    def run(text: str, *args: object) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", text, *map(str, args)]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return done

    return run
