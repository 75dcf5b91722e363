"""Normalisation folded into convolutions: the same numbers, and nothing folded that others read too."""

from __future__ import annotations

import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from chrep_model.encoders.folding import folded
from chrep_model.encoders.torchvision_compat import ensure_torchvision


def trained(model: nn.Module) -> nn.Module:
    """Give normalisations the numbers of a training, which a new network has not seen."""
    torch.manual_seed(1)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_(0, 0.3)
            norm.running_var.uniform_(0.5, 2)
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, 0, 0.3)
    return model.eval()


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@torch.inference_mode()
def assert_same(model: nn.Module, other: nn.Module, shape: tuple[int, ...]) -> None:
    x = torch.rand(shape, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(other(x), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "name",
    [
        "test_efficientnet",
        pytest.param("resnet10t", marks=pytest.mark.slow),
        pytest.param("mobilenetv3_small_050", marks=pytest.mark.slow),
    ],
)
def test_timm_networks_give_the_same_without_normalisations(name):
    ensure_torchvision()
    import timm

    torch.manual_seed(0)
    model = trained(timm.create_model(name, num_classes=0))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    quick = folded(model)
    assert norms(model) > 10
    assert norms(quick) == 0
    assert_same(model, quick, (2, 3, 96, 96))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


class Shared(nn.Module):
    """A convolution whose output is read with and without normalisation, and one that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.read_twice, self.used_twice = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
        self.first, self.second, self.third = (nn.BatchNorm2d(4) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.read_twice(x)
        y = y + self.first(y)
        return self.third(self.used_twice(self.second(self.used_twice(y))))


def test_what_others_read_too_is_not_folded():
    model = trained(Shared())
    assert folded(model) is model


class Winding(nn.Module):
    """Goes where its input says, which no graph can tell beforehand."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x) if x.mean() > 0 else x


@pytest.mark.parametrize("model", [Winding(), nn.Conv2d(3, 4, 1)])
def test_what_cannot_be_followed_or_has_nothing_to_fold_stays(model):
    assert folded(model.eval()) is model


def test_a_plain_pair_is_folded():
    model = trained(nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU()))
    quick = folded(model)
    assert norms(quick) == 0
    assert_same(model, quick, (1, 3, 8, 8))


class Slow(nn.Module):
    """Waits in the middle of its forward method for what others do."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.reached, self.go = threading.Event(), threading.Event()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.body[0](x)
        self.reached.set()
        assert self.go.wait(20)
        return self.body[1](y)

    def __deepcopy__(self, memo: dict[int, object]) -> Slow:
        out = Slow()
        out.body = copy.deepcopy(self.body, memo)
        return out.eval()


def test_networks_run_and_are_folded_in_other_threads_meanwhile():
    slow = trained(Slow())
    other = trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()))
    x, call = torch.rand(1, 3, 8, 8), nn.Module.__call__
    with torch.inference_mode(), ThreadPoolExecutor(2) as threads:
        expected = other(x)
        folding = threads.submit(folded, slow)
        assert slow.reached.wait(20)
        assert torch.equal(other(x), expected)
        too = threads.submit(folded, other)
        slow.go.set()
        assert norms(folding.result()) == 0
        assert norms(too.result()) == 0
    assert_same(other, too.result(), (1, 3, 8, 8))
    slow.go.set()
    folding.result().go.set()
    assert_same(slow, folding.result(), (1, 3, 8, 8))
    assert nn.Module.__call__ is call
