"""Training loop: AdamW with warm-up and cosine schedule, gradient clipping, early stopping and resuming."""

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
"""Function that yields the row numbers of one epoch's batches, given a random generator."""


@dataclass(frozen=True)
class Task:
    """A network to train, with its loss, batches and data.

    Attributes
    ----------
    module : Module
        Network, trained in place.
    loss : callable
        Returns the scalar loss for rows of the training table; raises `NotFinite` if their values are not
        finite.
    batches : callable
        Yields the batches of an epoch, given a random generator.
    steps : int
        Number of batches per epoch.
    data : sequence of ndarray or str
        Everything besides the module that decides the result, to identify checkpoints of the same fit.
    whose : callable
        Describes rows in messages.
    before_epoch : callable, optional
        Called before each epoch.
    held_out : callable, optional
        Returns the PCC on the held-out sections; called after each epoch with the module in eval mode.
    groups : list of dict, optional
        Parameter groups with their own learning rates and weight decays, as for torch's optimisers; by
        default all parameters have the common ones.
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
    """Train `task.module` in place with AdamW, and leave it in eval mode.

    An interrupted training is resumed from its checkpoint, with the same result to the bit on the same
    machine; a completed one is loaded. Past epochs are reported again, for complete curves.

    Parameters
    ----------
    task : Task
        Network, loss and data.
    epochs : int
        Number of epochs; the schedule is 5 % warm-up and a cosine down to zero.
    lr, weight_decay : float
        Learning rate and weight decay of AdamW.
    seed : int
        Random seed of the batches; the caller sets that of torch.
    patience : int, optional
        Training stops after this number of epochs without a new best PCC on the held-out sections, and the
        best epoch's weights are restored. If not given, all epochs are run and the last weights are kept.
    run : Run
        Receives every epoch, stores checkpoints, and may stop a training that has `patience`.
    ranks : Ranks
        Processes that train together.

    Raises
    ------
    TrainingError
        Inputs, targets, the loss or a gradient are not finite; the message says which, and of which spots.
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
    """Train on all batches once; return the mean loss."""
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
    """Set every parameter group's learning rate for the next step, by the warm-up and cosine schedule."""
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
        (n, d) float32 input features of the table's spots. A `Streamed` is read batch by batch, and
        `objective.before_epoch`, which needs all spots, is then not called.
    table : SpotTable
        Training spots.
    epochs, lr, weight_decay, seed, patience, run, ranks
        See `run_epochs`.
    sections_per_batch, spots_per_section : int
        See `NeighbourBatches`.
    batch_size : int, optional
        Number of spots per batch, drawn at random from all sections instead of patches of neighbours.
    held_out : sequence of int
        Numbers of sections in the table that are not trained on, for the curve and for `patience`.
    watched : (ndarray, SpotTable), optional
        Input features and table of other held-out spots, used only for the curve.
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
    """Return the mean gene-wise PCC within sections of predictions from `x` (n, d); None without any."""
    predicted = objective.predict(x)
    return None if predicted is None else float(pearson_by_section(predicted, targets, section))


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit torch to one CPU thread, because small networks on frozen features are slower with more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def random_batches(n: int, size: int) -> tuple[Batches, int]:
    """Split all rows into random batches, new for each epoch; return the batches and their number."""

    def epoch(rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
        order = rng.permutation(n)
        for start in range(0, n, size):
            yield order[start : start + size]

    return epoch, math.ceil(n / size)
