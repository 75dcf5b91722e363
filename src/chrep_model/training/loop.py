"""Epochs: optimiser, warm-up and cosine, gradient clipping, one seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from chrep_model.errors import PredictionError
from chrep_model.training.objective import Objective
from chrep_model.training.run import SILENT, Epoch, Run
from chrep_model.training.samples import NeighbourBatches, SpotTable

WARM_UP = 0.05
CLIP_NORM = 1.0

Batches = Callable[[np.random.Generator], Iterator[NDArray[np.int64]]]
"""One epoch's row numbers, batch by batch."""


def run_epochs(
    module: nn.Module,
    loss: Callable[[NDArray[np.int64]], Tensor],
    batches: Batches,
    *,
    epochs: int,
    steps_per_epoch: int,
    lr: float,
    weight_decay: float,
    seed: int,
    run: Run = SILENT,
    before_epoch: Callable[[], None] | None = None,
) -> None:
    """Train `module` in place with AdamW; leaves it in eval mode.

    Parameters
    ----------
    module : Module
        What is trained.
    loss : callable
        Rows of the training table to a scalar.
    batches : callable
        Random generator to the batches of an epoch.
    epochs, steps_per_epoch : int
        Length; the schedule is 5 % warm-up and a cosine down to zero.
    lr, weight_decay : float
        Of AdamW.
    seed : int
        Of the batches.
    run : Run
        Gets every epoch's mean loss.
    before_epoch : callable, optional
        Called before each epoch.

    Raises
    ------
    PredictionError
        The loss is no longer a number.
    """
    rng = np.random.default_rng(seed)
    optimiser = torch.optim.AdamW(module.parameters(), lr=lr, weight_decay=weight_decay)
    total = max(1, epochs * steps_per_epoch)
    warm = max(1.0, WARM_UP * total)

    def rate(step: int) -> float:
        return min(1.0, (step + 1) / warm) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / total)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
    with _one_thread():
        module.train()
        for epoch in range(epochs):
            if before_epoch is not None:
                before_epoch()
            losses = []
            for rows in batches(rng):
                value = loss(rows)
                if not bool(torch.isfinite(value)):
                    raise PredictionError(
                        f"training diverged in epoch {epoch + 1}: the loss is {float(value.detach())}",
                        remedy="Lower the learning rate, or look for damaged tiles.",
                    )
                optimiser.zero_grad()
                value.backward()
                nn.utils.clip_grad_norm_(module.parameters(), CLIP_NORM)
                optimiser.step()
                schedule.step()
                losses.append(float(value.detach()))
            run.on_epoch(Epoch(run.part, epoch + 1, epochs, float(np.mean(losses))))
    module.eval()


def train_objective(
    objective: Objective,
    x: NDArray[np.float32],
    table: SpotTable,
    *,
    epochs: int,
    lr: float,
    weight_decay: float,
    seed: int,
    sections_per_batch: int = 4,
    spots_per_section: int = 64,
    run: Run = SILENT,
) -> None:
    """Train a method's network in place on frozen features.

    Parameters
    ----------
    objective : Objective
        Network and loss.
    x : ndarray
        (n, d) float32, what it reads of the table's spots.
    table : SpotTable
        Training spots.
    sections_per_batch, spots_per_section : int
        See `NeighbourBatches`.
    """
    batches = NeighbourBatches(table, sections_per_batch, spots_per_section)
    features = torch.from_numpy(x)
    run_epochs(
        objective,
        lambda rows: objective.loss(features[rows], batches.batch(rows)),
        batches.epoch,
        epochs=epochs, steps_per_epoch=batches.per_epoch, lr=lr, weight_decay=weight_decay, seed=seed,
        run=run, before_epoch=lambda: objective.before_epoch(features, batches.targets),
    )  # fmt: skip


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep torch to one CPU thread: for networks as small as these, threads cost more than they bring."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def random_batches(n: int, size: int) -> tuple[Batches, int]:
    """All rows once an epoch in random order; gives the batches and how many there are."""

    def epoch(rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
        order = rng.permutation(n)
        for start in range(0, n, size):
            yield order[start : start + size]

    return epoch, math.ceil(n / size)
