"""Training on several processes, as started by ``torchrun``.

Every process draws the same batches from the same seed, and computes the same loss on the whole batch,
because the contrastive and the topology loss compare all spots with each other. Only the encoder's work is
divided: each process embeds its share of a batch (`Ranks.share`), the shares are gathered (`Ranks.gather`),
and the gradients of all processes are averaged (`Ranks.average`). Up to rounding the result is that of a
single process. On frozen features nothing is divided.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

_PATIENCE = timedelta(days=7)
"""Longest time that processes wait for work that only the first one does."""


@dataclass(frozen=True)
class Ranks:
    """Rank of this process among those that train a network together, and communication between them.

    Attributes
    ----------
    rank : int
        Number of this process, from 0.
    size : int
        Number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and reports to the user."""
        return self.rank == 0

    def share(self, n: int, rank: int | None = None) -> slice:
        """Return a process's slice of `n` items (this one's by default); slices cover all items in order."""
        rank = self.rank if rank is None else rank
        return slice(n * rank // self.size, n * (rank + 1) // self.size)

    def gather(self, share: Tensor, n: int) -> Tensor:
        """Combine the shares of `n` rows on every process; gradients flow back to this process's share.

        Parameters
        ----------
        share : Tensor
            (rows of this process, d) float.
        n : int
            Total number of rows.

        Returns
        -------
        Tensor
            (n, d), the same on all processes. The gradient of this process's share is multiplied by the
            number of processes, so that `average` gives the gradient of the whole batch for all parameters.
        """
        if self.size == 1:
            return share
        out: Tensor = _Gather.apply(share, n, self)  # type: ignore[no-untyped-call]
        return out

    def average(self, parameters: Iterable[nn.Parameter]) -> None:
        """Average the gradients over the processes, in place."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        flat /= self.size
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def broadcast(self, content: bytes) -> bytes:
        """Send the first process's content to all processes."""
        if self.size == 1:
            return content
        length = torch.tensor([len(content)])
        dist.broadcast(length, 0)
        out = torch.zeros(int(length), dtype=torch.uint8)
        if self.first and content:
            out = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        dist.broadcast(out, 0)
        return out.numpy().tobytes()

    def wait(self) -> None:
        """Wait until all processes have reached this call."""
        if self.size > 1:
            dist.all_reduce(torch.zeros(1))  # on the CPU, because a barrier of NCCL would keep the GPU busy


ALONE = Ranks()


@contextmanager
def process_group() -> Iterator[Ranks]:
    """Join the processes started by ``torchrun``; yields `ALONE` if there are no others.

    Tensors are sent by NCCL between GPUs (one per process), and by gloo between CPUs. An existing process
    group is used and not closed.
    """
    if dist.is_available() and dist.is_initialized():
        yield Ranks(dist.get_rank(), dist.get_world_size())
        return
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= set(os.environ) or int(os.environ["WORLD_SIZE"]) < 2:
        yield ALONE
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=_PATIENCE)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


class _Gather(torch.autograd.Function):
    """All-gather of unequal shares with a gradient."""

    @staticmethod
    def forward(ctx: Any, share: Tensor, n: int, ranks: Ranks) -> Tensor:
        """Combine this process's rows (b, d) with those of the others to all rows (n, d)."""
        ctx.n, ctx.ranks = n, ranks
        shares = [ranks.share(n, rank) for rank in range(ranks.size)]
        lengths = [s.stop - s.start for s in shares]
        padded = share.new_zeros((max(lengths), *share.shape[1:]))
        padded[: len(share)] = share
        parts = [torch.empty_like(padded) for _ in shares]
        dist.all_gather(parts, padded)
        return torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Return the gradient of this process's rows; all processes have that of all rows (the same loss)."""
        own = ctx.ranks.share(ctx.n)
        return gradients[0][own] * ctx.ranks.size, None, None
