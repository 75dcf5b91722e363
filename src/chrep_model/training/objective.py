"""Interface of a network with its training loss, for frozen features and for fine-tuning alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel
from torch import Tensor, nn


@dataclass(frozen=True)
class SpotBatch:
    """Input of a loss for a batch of training spots, without the features.

    Attributes
    ----------
    rows : ndarray
        (b,) int64 rows of the training table.
    targets : Tensor
        (b, genes) float32, standardised expression.
    section : Tensor
        (b,) int64, section of each spot.
    position : Tensor
        (b, 2) float32 in [0, 1], scaled per section.
    adjacency : Tensor
        (b, b) float32, A_topo among the batch's spots (see `networks.graph.topology`).
    measured : Tensor or None
        (b, genes) bool, which `targets` were measured; None if all were. See `SpotTable`.
    """

    rows: NDArray[np.int64]
    targets: Tensor
    section: Tensor
    position: Tensor
    adjacency: Tensor
    measured: Tensor | None = None

    def to(self, device: torch.device) -> SpotBatch:
        """Return a copy with its tensors on `device`."""
        tensors = (self.targets, self.section, self.position, self.adjacency)
        targets, section, position, adjacency = (t.to(device) for t in tensors)
        measured = None if self.measured is None else self.measured.to(device)
        return SpotBatch(self.rows, targets, section, position, adjacency, measured)


class Objective(nn.Module, ABC):
    """Trainable parameters on features (b, d), with a loss."""

    @abstractmethod
    def loss(self, x: Tensor, batch: SpotBatch) -> Tensor:
        """Return the scalar loss of features `x` (b, d) float32, given the measurements of their spots."""

    def before_epoch(self, x: Tensor, targets: Tensor) -> None:
        """Receive all training spots before each epoch: features (n, d) and targets (n, genes)."""

    def predict(self, x: Tensor) -> Tensor | None:
        """Return standardised expression (n, genes) of features (n, d), to score a held-out section.

        Returns None if the network alone does not predict expression; held-out sections are then not scored.
        """
        return None

    def extra_repr(self) -> str:
        """Return the settings as text, so that checkpoints of other settings are not resumed."""
        plain = (bool, int, float, str, tuple, BaseModel)
        own = {k: v for k, v in vars(self).items() if not k.startswith("_") and k != "training"}
        return ", ".join(f"{k}={v!r}" for k, v in own.items() if isinstance(v, plain))
