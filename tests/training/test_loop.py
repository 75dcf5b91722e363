"""Epochs: they lower the loss, repeat exactly under one seed, stop early, and say what is no number."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from chrep_model.errors import TrainingError
from chrep_model.progress import Progress
from chrep_model.training.loop import CLIP_NORM, Task, random_batches, run_epochs, train_objective
from chrep_model.training.run import Run

RNG = np.random.default_rng(0)
X = torch.from_numpy(RNG.standard_normal((60, 5)).astype(np.float32))
Y = X @ torch.tensor([[1.0], [-2.0], [0.5], [0.0], [3.0]])


def train(seed=0, *, lr=0.05, weight_decay=0.0, epochs=40, loss=None, size=16, held_out=None, **how):
    torch.manual_seed(0)
    model = nn.Linear(5, 1)
    batches, steps = random_batches(len(X), size)
    of = loss(model) if loss else lambda rows: ((model(X[rows]) - Y[rows]) ** 2).mean()
    task = Task(model, of, batches, steps, held_out=held_out(model) if held_out else None)
    run_epochs(task, epochs=epochs, lr=lr, weight_decay=weight_decay, seed=seed, **how)
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


def walked(groups=None, lr=0.1):
    """Positions of two parameters that go down a constant slope: with Adam every step is the rate."""
    module = nn.ParameterList([nn.Parameter(torch.zeros(1)) for _ in range(2)])
    way = []

    def loss(rows):
        way.append([float(p.detach()) for p in module])
        return sum(p.sum() for p in module)

    batches, steps = random_batches(1, 1)
    task = Task(module, loss, batches, steps, groups=groups(module) if groups else None)
    run_epochs(task, epochs=100, lr=lr, weight_decay=0.0, seed=0)
    return -np.diff(np.array(way), axis=0)


def test_warm_up_then_cosine_to_zero():
    steps = walked()[:, 0]
    assert steps.argmax() in (4, 5)  # 5 % of 100
    np.testing.assert_allclose(steps[0], 0.1 / 5, rtol=0.05)
    np.testing.assert_allclose(steps[49], 0.05, rtol=0.05)  # half-way: cosine at one half
    assert steps[-1] < 0.001
    assert (np.diff(steps[6:]) < 0).all()


def test_groups_have_rates_of_their_own_under_the_same_schedule():
    steps = walked(lambda module: [{"params": [module[0]], "lr": 0.01}, {"params": [module[1]]}])
    np.testing.assert_allclose(steps[:, 1], walked()[:, 1], rtol=1e-6)
    np.testing.assert_allclose(steps[:50, 0] * 10, steps[:50, 1], rtol=1e-3)


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


def test_every_epoch_is_told():
    told = []
    train(epochs=3, run=Run(Progress(epoch=told.append)).within("part"), held_out=lambda model: lambda: 0.25)
    assert [(e.part, e.number, e.of, e.held_out) for e in told] == [("part", n, 3, 0.25) for n in (1, 2, 3)]
    assert told[0].loss > told[1].loss > told[2].loss


def scores(*values):
    """Held-out scores epoch by epoch, and the weights at each of them."""
    weights, left = [], iter(values)

    def held_out(model):
        def score():
            assert not model.training
            weights.append(model.weight.detach().clone())
            return next(left)

        return score

    return weights, held_out


@pytest.mark.parametrize(
    ("values", "patience", "epochs", "best"),
    [
        ([0.1, 0.3, 0.2, 0.25, 0.9], 2, 4, 1),  # the fifth is never seen
        ([0.1, 0.3, 0.2, 0.25, 0.9], 3, 5, 4),
        ([0.3, 0.3, 0.3], 2, 3, 0),  # the first of equals
        ([0.3, math.nan, math.nan, 0.5], 2, 3, 0),
        ([0.3, 0.4, 0.5], 1, 3, 2),
    ],
)
def test_early_stop_ends_at_the_best_weights(values, patience, epochs, best):
    weights, held_out = scores(*values)
    model = train(epochs=len(values), patience=patience, held_out=held_out)
    assert len(weights) == epochs
    assert torch.equal(model.weight, weights[best])


def test_without_patience_or_score_all_epochs_are_run_and_the_last_weights_stay():
    weights, held_out = scores(0.3, 0.1, 0.1, 0.1)
    assert torch.equal(train(epochs=4, held_out=held_out).weight, weights[-1])
    weights, held_out = scores(None, None, None, None)
    assert torch.equal(train(epochs=4, patience=1, held_out=held_out).weight, weights[-1])
    assert len(weights) == 4


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number(value):
    calls = []

    def loss(model):
        def of(rows):
            calls.append(1)
            return model.weight.sum() * (value if len(calls) > 5 else 1.0)

        return of

    with pytest.raises(
        TrainingError, match=r"of head stopped at epoch 2, batch 2: the loss of rows \d"
    ) as at:
        train(loss=loss, run=Run(part="head"))
    assert "learning rate" in at.value.remedy


def test_a_gradient_that_is_no_number():
    """The root has a loss of zero and no slope there."""

    def loss(model):
        return lambda rows: (0 * model.weight).sqrt().sum() + model.bias.sum()

    with pytest.raises(
        TrainingError, match=r"epoch 1, batch 1: the gradient of weight is not finite for rows"
    ):
        train(loss=loss)


HOW = {"epochs": 4, "lr": 0.01, "weight_decay": 0.0, "seed": 0, "sections_per_batch": 2}


def test_an_objective_is_scored_on_sections_that_it_is_not_trained_on(table, make_line):
    told, objective = [], make_line()
    run = Run(Progress(epoch=told.append))
    train_objective(objective, table.features, table, **HOW, held_out=[1], run=run)
    assert objective.seen == [98] * 4  # two of three sections
    with torch.no_grad():
        rows = table.section == 1
        predicted = objective.line(torch.from_numpy(table.features[rows])).numpy()
    by_hand = [np.corrcoef(p, t)[0, 1] for p, t in zip(predicted.T, table.targets[rows].T, strict=True)]
    assert told[-1].held_out == pytest.approx(np.mean(by_hand), abs=1e-4)
    assert told[-1].held_out > told[0].held_out


def test_a_held_out_section_makes_no_difference(table, make_line):
    """Neither its features nor its targets reach the weights."""
    rows = np.flatnonzero(table.section == 1)
    x = table.features.copy()
    x[rows] = 7.0
    one, other = make_line(), make_line()
    train_objective(one, table.features, table, **HOW, held_out=[1])
    train_objective(other, x, table, **HOW, held_out=[1])
    assert torch.equal(one.line.weight, other.line.weight)


@pytest.mark.parametrize("kind", ["inputs", "targets"])
def test_a_spot_that_is_no_number_is_named(make_table, make_line, kind):
    table = make_table()
    x = table.features
    (x if kind == "inputs" else table.targets)[[50, 97], 3] = np.nan
    with pytest.raises(TrainingError) as caught:
        train_objective(make_line(), x, table, **HOW, held_out=[0], run=Run(part="without S9/member 1"))
    said = str(caught.value)
    assert "training of without S9/member 1 stopped at epoch" in said
    assert f"the {kind} of section S1 (rows 50, 97) are not finite" in said
    assert "exclude the section" in said


def test_many_bad_spots_are_counted(make_table, make_line):
    table = make_table()
    x = np.full_like(table.features, np.inf)
    with pytest.raises(TrainingError, match=r"section S\d \(rows (\d+, ){4}\d+ and 44 more\) and section"):
        train_objective(make_line(), x, table, **HOW)
