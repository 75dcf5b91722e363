"""Epochs: optimiser, warm-up and cosine, gradient clipping, early stop, resume, one seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from chrep_model.networks.losses import pearson_by_section
from chrep_model.training.checkpoint import Checkpoint, State, identity
from chrep_model.training.distributed import ALONE, Ranks
from chrep_model.training.faults import (
    NotFinite,
    Whose,
    clip_finite,
    require_finite,
    require_finite_loss,
    rows_in_words,
    spots_in_words,
)
from chrep_model.training.objective import Objective
from chrep_model.training.run import SILENT_RUN, Run
from chrep_model.training.samples import NeighbourBatches, SpotBatches, SpotTable
from chrep_model.training.streamed import Streamed, kept

WARM_UP = 0.05
CLIP_NORM = 1.0

Batches = Callable[[np.random.Generator], Iterator[NDArray[np.int64]]]
"""One epoch's row numbers, batch by batch."""


@dataclass(frozen=True)
class Task:
    """A network, and what an epoch of its training consists of.

    Attributes
    ----------
    module : Module
        Trained in place.
    loss : callable
        Rows of the training table to a scalar; raises `NotFinite` where they hold what is no number.
    batches : callable
        Random generator to the batches of an epoch.
    steps : int
        Batches per epoch.
    data : sequence of ndarray or str
        What decides the result beside the module, so that a checkpoint is known to be of the same fit.
    whose : callable
        Says rows in words.
    before_epoch : callable, optional
        Called before each epoch.
    held_out : callable, optional
        PCC on the held-out sections, asked for after each epoch with the module in eval mode.
    groups : list of dict, optional
        Parameters with learning rates and weight decays of their own, as for torch's optimisers; all
        parameters under the common ones unless given.
    """

    module: nn.Module
    loss: Callable[[NDArray[np.int64]], Tensor]
    batches: Batches
    steps: int
    data: Sequence[Any] = ()
    whose: Whose = rows_in_words
    before_epoch: Callable[[], None] | None = None
    held_out: Callable[[], float | None] | None = None
    groups: list[dict[str, Any]] | None = None


def run_epochs(
    task: Task,
    *,
    epochs: int,
    lr: float,
    weight_decay: float,
    seed: int,
    patience: int | None = None,
    run: Run = SILENT_RUN,
    ranks: Ranks = ALONE,
) -> None:
    """Train `task.module` in place with AdamW; leaves it in eval mode.

    A training that was killed goes on from its checkpoint and ends at the same bits on the same machine; a
    complete one is loaded. Its epochs are told again, for a whole curve.

    Parameters
    ----------
    task : Task
        What is trained.
    epochs : int
        Length; the schedule is 5 % warm-up and a cosine down to zero.
    lr, weight_decay : float
        Of AdamW.
    seed : int
        Of the batches; that of torch is the caller's affair.
    patience : int, optional
        Epochs without a new best PCC on the held-out sections after which training stops; it then ends at
        the best epoch's weights. Without it all epochs are run, and the last weights stay.
    run : Run
        Told every epoch, keeps checkpoints, and may say that it is enough where there is patience.
    ranks : Ranks
        Processes that train together.

    Raises
    ------
    TrainingError
        Inputs, targets, the loss or a gradient are no longer numbers; says which and whose.
    """
    plan = (epochs, task.steps, lr, weight_decay, seed, patience)
    optimiser = torch.optim.AdamW(task.groups or task.module.parameters(), lr=lr, weight_decay=weight_decay)
    for group in optimiser.param_groups:
        group["initial_lr"] = group["lr"]
    state = State(task.module, optimiser, np.random.default_rng(seed))
    checkpoint = Checkpoint(run, lambda: identity(task.module, plan, task.data), ranks)
    complete = checkpoint.restore(state)
    for number, epoch in enumerate(state.history, start=1):
        run.epoch(number, epochs, *epoch)
    while not complete:
        loss = _epoch(task, state, epochs, run, ranks)
        task.module.eval()
        state.history.append((loss, None if task.held_out is None else task.held_out()))
        if patience is not None:
            state.keep_best()
        tired = patience is not None and (state.since_best >= patience or run.progress.enough())
        complete = len(state.history) == epochs or tired
        if complete:
            state.take_best()
        checkpoint.save(state, complete=complete)
        run.epoch(len(state.history), epochs, *state.history[-1])
    task.module.eval()


def _epoch(task: Task, state: State, epochs: int, run: Run, ranks: Ranks) -> float:
    """One pass over the batches; gives the mean loss."""
    task.module.train()
    if task.before_epoch is not None:
        task.before_epoch()
    losses = []
    for rows in task.batches(state.rng):
        try:
            _set_rates(state, epochs * task.steps)
            losses.append(_step(task, state.optimiser, rows, ranks))
        except NotFinite as fault:
            raise fault.during(run.part, len(state.history) + 1, len(losses) + 1) from fault
        state.step += 1
    return float(np.mean(losses))


def _step(task: Task, optimiser: torch.optim.Optimizer, rows: NDArray[np.int64], ranks: Ranks) -> float:
    value = task.loss(rows)
    require_finite_loss(value, rows, task.whose)
    optimiser.zero_grad()
    value.backward()
    ranks.average(task.module.parameters())
    clip_finite(task.module, CLIP_NORM, rows, task.whose)
    optimiser.step()
    return float(value.detach())


def _set_rates(state: State, total: int) -> None:
    """Warm-up and cosine: every group's rate for the coming step of `total`."""
    warm = max(1.0, WARM_UP * total)
    share = min(1.0, (state.step + 1) / warm) * 0.5 * (1 + math.cos(math.pi * min(1.0, state.step / total)))
    for group in state.optimiser.param_groups:
        group["lr"] = group["initial_lr"] * share


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
    batch_size: int | None = None,
    held_out: Sequence[int] = (),
    patience: int | None = None,
    watched: tuple[NDArray[np.float32], SpotTable] | None = None,
    run: Run = SILENT_RUN,
    ranks: Ranks = ALONE,
) -> None:
    """Train a method's network in place on frozen features.

    Parameters
    ----------
    objective : Objective
        Network and loss.
    x : ndarray
        (n, d) float32, what it reads of the table's spots. Of a `Streamed` every batch is read for itself,
        and `objective.before_epoch`, which looks at all spots, is not called.
    table : SpotTable
        Training spots.
    epochs, lr, weight_decay, seed, patience, run, ranks
        See `run_epochs`.
    sections_per_batch, spots_per_section : int
        See `NeighbourBatches`.
    batch_size : int, optional
        Spots of a batch at random from all sections, instead of patches of neighbours.
    held_out : sequence of int
        Numbers of training sections that are not trained on, for the curve and for `patience`.
    watched : (ndarray, SpotTable), optional
        What it reads of spots that are not in the table, and these: for the curve alone.
    """
    seen = ~np.isin(table.section, held_out)
    part, features = table.rows(seen), kept(x, seen)
    batches = (
        SpotBatches(part, batch_size) if batch_size
        else NeighbourBatches(part, sections_per_batch, spots_per_section)
    )  # fmt: skip

    def whose(rows: NDArray[np.int64]) -> str:
        return spots_in_words(np.flatnonzero(seen)[rows], table.section, table.section_names)

    def loss(rows: NDArray[np.int64]) -> Tensor:
        batch, inputs = batches.batch(rows), torch.from_numpy(features[rows])
        require_finite(rows, whose, inputs=inputs, targets=batch.targets)
        return objective.loss(inputs, batch)

    def before_epoch() -> None:
        objective.before_epoch(torch.from_numpy(features), batches.targets)

    scored = _scored_on(objective, x, table, ~seen) if len(held_out) else None
    if scored is None and watched is not None:
        scored = _scored_on(objective, *watched, np.ones(len(watched[1]), bool))
    task = Task(
        objective, loss, batches.epoch, batches.per_epoch,
        data=(x, *table.arrays(), f"{sections_per_batch} {spots_per_section} {batch_size}"),
        whose=whose, before_epoch=None if isinstance(features, Streamed) else before_epoch, held_out=scored,
    )  # fmt: skip
    with one_thread():
        run_epochs(
            task, epochs=epochs, lr=lr, weight_decay=weight_decay, seed=seed, patience=patience,
            run=run, ranks=ranks,
        )  # fmt: skip


def _scored_on(
    objective: Objective, x: NDArray[np.float32], table: SpotTable, rows: NDArray[np.bool_]
) -> Callable[[], float | None]:
    features, targets, section = (torch.from_numpy(a[rows]) for a in (x, table.targets, table.section))
    return lambda: held_out_pcc(objective, features, targets, section)


@torch.no_grad()
def held_out_pcc(objective: Objective, x: Tensor, targets: Tensor, section: Tensor) -> float | None:
    """Mean gene-wise PCC of what the objective predicts from `x` (n, d), within sections; None if nothing."""
    predicted = objective.predict(x)
    return None if predicted is None else float(pearson_by_section(predicted, targets, section))


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one CPU thread: for networks on frozen features, threads cost more than they bring."""
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
