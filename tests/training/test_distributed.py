"""Several processes: shares, gathering with a gradient, averaging; and a fit without torchrun is alone."""

from __future__ import annotations

import os

import pytest
import torch
from torch import nn

from chrep_model.training.distributed import ALONE, Ranks, process_group


@pytest.mark.parametrize(("n", "size"), [(10, 2), (10, 3), (3, 4), (0, 2), (7, 1)])
def test_shares_are_everything_once_and_in_order(n, size):
    shares = [list(range(n))[Ranks(rank, size).share(n)] for rank in range(size)]
    assert [item for share in shares for item in share] == list(range(n))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_alone_nothing_is_changed():
    x = torch.rand(3, 2, requires_grad=True)
    assert ALONE.gather(x, 3) is x
    assert ALONE.broadcast(b"ab") == b"ab"
    assert ALONE.first
    ALONE.wait()
    ALONE.average([nn.Parameter(torch.zeros(1))])


@pytest.mark.parametrize(
    "environment", [{}, {"WORLD_SIZE": "1", "RANK": "0", "MASTER_ADDR": "x"}, {"RANK": "1"}]
)
def test_without_other_processes_one_is_alone(monkeypatch, environment):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with process_group() as ranks:
        assert ranks == ALONE


# A network before the gathering and one behind it, on seven rows: three for one process, four for the other.
TWO = """
import os, socket
import torch
import torch.distributed as dist
from chrep_model.training.distributed import process_group

with socket.socket() as free:
    free.bind(("localhost", 0))
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}

def work():
    torch.manual_seed(0)
    before, behind, x = torch.nn.Linear(4, 3), torch.nn.Linear(3, 2), torch.rand(7, 4)
    with process_group() as ranks:
        h = ranks.gather(before(x[ranks.share(7)]), 7)
        logits = behind(h) @ behind(h).T
        torch.nn.functional.cross_entropy(logits, torch.arange(7)).backward()
        parameters = [*before.parameters(), *behind.parameters()]
        ranks.average(parameters)
        said = ranks.broadcast(b"first" if ranks.first else b"other")
        nothing = ranks.broadcast(b"")
        with process_group() as within:
            assert within == ranks
        assert dist.is_initialized()
        ranks.wait()
    assert not dist.is_initialized()
    z = behind(before(x))
    whole = torch.autograd.grad(torch.nn.functional.cross_entropy(z @ z.T, torch.arange(7)), parameters)
    assert said == b"first" and nothing == b""
    assert h.shape == (7, 3) and torch.allclose(h, before(x), atol=1e-6)
    for parameter, gradient in zip(parameters, whole, strict=True):
        assert torch.allclose(parameter.grad, gradient, atol=1e-6), (parameter.grad, gradient)

for rank in range(2):
    if os.fork() == 0:
        os.environ["RANK"] = str(rank)
        work()
        os._exit(0)
assert [os.wait()[1] for _ in range(2)] == [0, 0]
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the program forks")
def test_two_processes_have_the_gradient_of_the_whole_batch(script):
    script(TWO)
