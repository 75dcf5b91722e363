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
    module.eval()


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
