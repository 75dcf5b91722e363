"""One fit on several processes, as ``torchrun`` starts them.

Every process draws the same batches by the one seed and computes the same loss on the whole batch: the
contrastive and the topology loss compare every spot with every other. What is worth dividing is the encoder
before it. Each process embeds its share of a batch (`Ranks.share`), the shares are put together
(`Ranks.gather`), and the gradients of all processes are averaged (`Ranks.average`); up to rounding the result
is that of a single process. On frozen features there is nothing to divide, and all processes do the same.
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
"""How long the others wait while the first process does alone what cannot be divided."""


@dataclass(frozen=True)
class Ranks:
    """The processes that train a network together, seen by one of them.

    Attributes
    ----------
    rank : int
        Which one this is, from 0.
    size : int
        How many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes files and tells the user."""
        return self.rank == 0

    def share(self, n: int, rank: int | None = None) -> slice:
        """Which of `n` items are a process's own (this one's unless `rank` is given); in order, all taken."""
        rank = self.rank if rank is None else rank
        return slice(n * rank // self.size, n * (rank + 1) // self.size)

    def gather(self, share: Tensor, n: int) -> Tensor:
        """Put the shares of `n` rows together on every process; gradients flow back to the own share.

        Parameters
        ----------
        share : Tensor
            (rows of this process, d) float.
        n : int
            Rows of all.

        Returns
        -------
        Tensor
            (n, d), the same everywhere. The own share's gradient is scaled by the number of processes, so
            that `average` gives the gradient of the whole batch, for what lies before and behind alike.
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
        """Give what the first process has to all."""
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
        """Wait for the others."""
        if self.size > 1:
            dist.all_reduce(torch.zeros(1))  # on the CPU: a barrier by NCCL would keep the GPU busy


ALONE = Ranks()


@contextmanager
def process_group() -> Iterator[Ranks]:
    """Join the processes that ``torchrun`` started; `ALONE` where there are no others.

    NCCL for tensors on a GPU, each process its own, and gloo for those on the CPU. A group that exists is
    used and left as it is.
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
        """Own rows (b, d) to all rows (n, d)."""
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
        """The own rows' gradient; every process holds that of all rows, because all compute the same loss."""
        own = ctx.ranks.share(ctx.n)
        return gradients[0][own] * ctx.ranks.size, None, None
