"""Checkpoints of networks in training, from which an interrupted training is resumed.

A checkpoint is one safetensors file per network: weights, optimiser and random states as tensors, the
position in the schedule and past epochs as JSON in its header. Loading one runs no code. It holds a hash of
everything that decides the fit (`identity`), and is ignored if it belongs to another fit.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from chrep_model import __version__
from chrep_model.errors import TrainingError
from chrep_model.files import write_atomically
from chrep_model.training.distributed import Ranks
from chrep_model.training.run import Run
from chrep_model.training.streamed import Streamed

EVERY_S = 20.0
"""Least seconds between two checkpoints; an epoch of a small network is faster than writing one."""

_FACTS = "chrep"
"""Key of the JSON in the file's metadata."""


@dataclass
class State:
    """State of a training: network, optimiser, random generator and past epochs.

    Attributes
    ----------
    module, optimiser
        Network and its optimiser, trained in place.
    rng : Generator
        Random generator of the batches.
    step : int
        Number of batches so far, which gives the position in the schedule.
    history : list of (float, float or None)
        Mean loss and PCC on the held-out sections of every epoch so far.
    best : dict
        Weights of the best epoch on the held-out sections, by name; empty if they are not stored.
    """

    module: nn.Module
    optimiser: torch.optim.Optimizer
    rng: np.random.Generator
    step: int = 0
    history: list[tuple[float, float | None]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)

    @property
    def since_best(self) -> int:
        """Number of epochs since the first with the highest PCC on the held-out sections."""
        scores = [-math.inf if score is None or math.isnan(score) else score for _, score in self.history]
        best = max(scores, default=-math.inf)
        return 0 if best == -math.inf else len(scores) - 1 - scores.index(best)

    def keep_best(self) -> None:
        """Store the weights if the last epoch is the best one so far."""
        if self.since_best == 0:
            self.best = {k: v.detach().clone() for k, v in self.module.state_dict().items()}

    def take_best(self) -> None:
        """Restore the weights of the best epoch, if they were stored."""
        if self.best:
            self.module.load_state_dict(self.best)
            self.best = {}

    def tensors(self, complete: bool) -> dict[str, Tensor]:
        """Return all tensors to store; for a completed training only those of the trained network."""
        out = {f"module.{k}": v for k, v in self.module.state_dict().items()}
        out |= {f"random.{k}": v for k, v in _random_states().items()}
        if not complete:
            out |= {f"best.{k}": v for k, v in self.best.items()}
            for i, values in self.optimiser.state_dict()["state"].items():
                out |= {f"optimiser.{i}.{k}": v for k, v in values.items()}
        return {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in out.items()}

    def facts(self) -> dict[str, Any]:
        """Return all other values to store, for JSON."""
        return {"step": self.step, "history": self.history, "rng": self.rng.bit_generator.state}

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Restore the state from the results of `tensors` and `facts`."""
        self.module.load_state_dict(_part(tensors, "module"))
        self.best = _part(tensors, "best")
        self.step = int(facts["step"])
        self.history = [(loss, score) for loss, score in facts["history"]]
        self.rng.bit_generator.state = facts["rng"]
        whole = self.optimiser.state_dict()
        whole["state"] = _optimiser_state(_part(tensors, "optimiser"), self.optimiser)
        self.optimiser.load_state_dict(whole)
        _set_random_states(_part(tensors, "random"))


class Checkpoint:
    """Checkpoint file of one network.

    Parameters
    ----------
    run : Run
        Names the folder and the network; without a folder nothing is stored.
    identity : callable
        Returns the hash of everything that decides the fit, see `identity`.
    ranks : Ranks
        Processes that train together; the first one reads and writes.
    """

    def __init__(self, run: Run, identity: Callable[[], str], ranks: Ranks) -> None:
        self.run, self.ranks = run, ranks
        self.path = None if run.checkpoints is None else run.checkpoints / file_name(run.part)
        self.identity = identity() if self.path is not None else ""
        self._written = time.monotonic()

    def restore(self, state: State) -> bool:
        """Restore `state` from the file; return whether the training is complete."""
        content = self.ranks.broadcast(self._matching_content() if self.ranks.first else b"")
        if not content:
            return False
        facts = _facts(content)
        state.restore(load(content), facts)
        return bool(facts["complete"])

    def _matching_content(self) -> bytes:
        """Return the content of the file if it belongs to this fit, else nothing."""
        if self.path is None or not self.path.exists():
            return b""
        try:
            content = self.path.read_bytes()
            load(content)
            if _facts(content)["identity"] == self.identity:
                return content
            reason = "it was made with other data, settings or versions"
        except (OSError, SafetensorError, ValueError, KeyError, TypeError):
            reason = "it cannot be read"
        self.run.progress.warn(f"{self.path}: this half-finished network is not gone on with: {reason}")
        return b""

    def save(self, state: State, *, complete: bool = False) -> None:
        """Write the file if the training is complete, or if the last one is older than `EVERY_S` seconds.

        If it cannot be written, such as on a full disk, training continues with a warning.
        """
        due = complete or time.monotonic() - self._written >= EVERY_S
        if self.path is None or not self.ranks.first or not due:
            return
        facts = {**state.facts(), "identity": self.identity, "complete": complete}
        try:
            with write_atomically(self.path, TrainingError, "the training cannot be kept here") as part:
                part.parent.mkdir(parents=True, exist_ok=True)
                part.write_bytes(save(state.tensors(complete), {_FACTS: json.dumps(facts)}))
        except TrainingError as error:
            self.run.progress.warn(f"{error.path}: {error.what}")
        self._written = time.monotonic()


def identity(module: nn.Module, plan: Sequence[float | int | None], data: Sequence[Any]) -> str:
    """Hash everything that decides a fit: initial weights, architecture, plan, data and versions.

    Parameters
    ----------
    module : Module
        Network before training, including the settings in its ``repr``.
    plan : sequence of numbers
        Epochs, learning rates and seed.
    data : sequence of ndarray, Streamed or str
        Training data, and settings that the other arguments do not show.
    """
    # A function's repr contains its address, which differs between processes.
    shown = re.sub(r" at 0x[0-9a-f]+", "", repr(module))
    digest = hashlib.sha256(json.dumps([__version__, torch.__version__, shown, list(plan)]).encode())
    for name, value in module.state_dict().items():
        digest.update(name.encode() + value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    for part in data:
        if isinstance(part, str):
            digest.update(part.encode() + b"\0")
        else:
            for piece in part.pieces() if isinstance(part, Streamed) else [part]:
                digest.update(f"{piece.dtype} {piece.shape}".encode() + np.ascontiguousarray(piece).tobytes())
    return digest.hexdigest()


def file_name(part: str) -> str:
    """Return the file name of a network's checkpoint: readable, and unique for every part."""
    readable = re.sub(r"[^\w-]+", "-", part)[:80]
    return f"{readable}.{hashlib.sha256(part.encode()).hexdigest()[:8]}.safetensors"


def _facts(content: bytes) -> dict[str, Any]:
    """Read the JSON from a safetensors file's metadata: eight bytes of length, then the header."""
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    facts: dict[str, Any] = json.loads(header["__metadata__"][_FACTS])
    return facts


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(f"{prefix}."): v for k, v in tensors.items() if k.startswith(f"{prefix}.")}


def _optimiser_state(flat: dict[str, Tensor], optimiser: torch.optim.Optimizer) -> dict[int, dict[str, Any]]:
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    out: dict[int, dict[str, Any]] = {}
    for key, value in flat.items():
        number, _, name = key.partition(".")
        like = parameters[int(number)]
        if value.shape == like.shape:  # in the parameter's memory layout, for bitwise equal results
            value = torch.empty_like(like, dtype=value.dtype, requires_grad=False).copy_(value)
        out.setdefault(int(number), {})[name] = value
    return out


def _random_states() -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _set_random_states(states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
