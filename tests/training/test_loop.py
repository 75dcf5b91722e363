"""Epochs: they lower the loss, repeat exactly under one seed, and say when they diverge."""

import numpy as np
import pytest
import torch
from torch import nn

from chrep_model.errors import PredictionError
from chrep_model.training.loop import CLIP_NORM, random_batches, run_epochs

RNG = np.random.default_rng(0)
X = torch.from_numpy(RNG.standard_normal((60, 5)).astype(np.float32))
Y = X @ torch.tensor([[1.0], [-2.0], [0.5], [0.0], [3.0]])


def train(seed=0, *, lr=0.05, weight_decay=0.0, epochs=40, loss=None, size=16):
    torch.manual_seed(0)
    model = nn.Linear(5, 1)
    batches, steps = random_batches(len(X), size)
    run_epochs(
        model, loss(model) if loss else lambda rows: ((model(X[rows]) - Y[rows]) ** 2).mean(), batches,
        epochs=epochs, steps_per_epoch=steps, lr=lr, weight_decay=weight_decay, seed=seed,
    )  # fmt: skip
    return model


def test_random_batches_are_every_row_once():
    batches, count = random_batches(23, 5)
    epoch = list(batches(np.random.default_rng(0)))
    assert len(epoch) == count == 5
    assert [len(rows) for rows in epoch] == [5, 5, 5, 5, 3]
    assert sorted(np.concatenate(epoch)) == list(range(23))
    again = list(batches(np.random.default_rng(1)))
    assert any((a != b).any() for a, b in zip(epoch, again, strict=True))


def test_it_finds_the_line_and_leaves_eval_mode():
    model = train()
    np.testing.assert_allclose(model.weight.detach().numpy(), [[1, -2, 0.5, 0, 3]], atol=0.05)
    assert not model.training


def test_one_seed_gives_the_same_bits_and_another_does_not():
    one, same, other = (train(seed).weight for seed in (3, 3, 4))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_weight_decay_shrinks():
    assert train(weight_decay=5.0).weight.norm() < 0.8 * train().weight.norm()


def test_warm_up_then_cosine_to_zero():
    """With Adam and a constant slope every step is the learning rate: the way shows the schedule."""
    position = nn.Parameter(torch.zeros(1))
    module = nn.ParameterList([position])
    way = []

    def loss(rows):
        way.append(float(position.detach()))
        return position.sum()

    batches, _ = random_batches(1, 1)
    run_epochs(module, loss, batches, epochs=100, steps_per_epoch=1, lr=0.1, weight_decay=0.0, seed=0)
    steps = -np.diff(way)
    assert steps.argmax() in (4, 5)  # 5 % of 100
    np.testing.assert_allclose(steps[0], 0.1 / 5, rtol=0.05)
    np.testing.assert_allclose(steps[49], 0.05, rtol=0.05)  # half-way: cosine at one half
    assert steps[-1] < 0.001
    assert (np.diff(steps[6:]) < 0).all()


def test_slopes_are_clipped(monkeypatch):
    seen = []
    step = torch.optim.AdamW.step

    def watched(self, *args, **kwargs):
        slopes = [p.grad.flatten() for group in self.param_groups for p in group["params"]]
        seen.append(float(torch.cat(slopes).norm()))
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    train(epochs=2, loss=lambda model: lambda rows: 1e4 * ((model(X[rows]) - Y[rows]) ** 2).mean())
    np.testing.assert_allclose(seen, CLIP_NORM, rtol=1e-3)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_with_the_epoch(value):
    calls = []

    def loss(model):
        def of(rows):
            calls.append(1)
            return model.weight.sum() * (value if len(calls) > 4 else 1.0)

        return of

    with pytest.raises(PredictionError, match="epoch 2") as caught:
        train(loss=loss)
    assert caught.value.remedy
