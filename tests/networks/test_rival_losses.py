"""The losses of BLEEP, HECLIP and HAGE-like: worked by hand, and against slow float64 references."""

import numpy as np
import pytest
import torch

from chrep_model.networks.losses import (
    image_centric_loss,
    soft_alignment_loss,
    supervised_contrastive_loss,
)

RNG = np.random.default_rng(0)


def t(x):
    return torch.tensor(np.asarray(x, dtype=np.float32))


def softmax(row):
    e = np.exp(row - row.max())
    return e / e.sum()


def slow_soft_alignment(m, q, tau):
    """Sums over pairs as BLEEP writes them: Z = q m^T / tau, W by rows, CE(Z, W) and CE(Z^T, W^T)."""
    n = len(m)
    Z = np.array([[q[i] @ m[j] / tau for j in range(n)] for i in range(n)])
    W = np.array([softmax((m @ m[i] + q @ q[i]) / (2 * tau)) for i in range(n)])
    total = 0.0
    for i in range(n):
        rows, columns = np.log(softmax(Z[i])), np.log(softmax(Z[:, i]))
        total -= sum(W[i, j] * rows[j] + W[j, i] * columns[j] for j in range(n)) / 2
    return total / n


def slow_image_centric(v, s, tau):
    n = len(v)
    W = np.array([softmax(v @ v[i] / tau) for i in range(n)])
    return -sum(W[j, i] * np.log(softmax(s @ v[i] / tau))[j] for i in range(n) for j in range(n)) / n


def slow_supervised(r, label, tau):
    means = []
    for i in range(len(r)):
        alike = [p for p in range(len(r)) if p != i and label[p] == label[i]]
        if alike:
            total = sum(np.exp(r[i] @ r[a] / tau) for a in range(len(r)) if a != i)
            means.append(-np.mean([np.log(np.exp(r[i] @ r[p] / tau) / total) for p in alike]))
    return np.mean(means)


@pytest.mark.parametrize("tau", [0.5, 1.0, 16.0])
def test_against_slow_references(tau):
    m, q = RNG.standard_normal((2, 9, 5))
    for fast, slow in ((soft_alignment_loss, slow_soft_alignment), (image_centric_loss, slow_image_centric)):
        assert float(fast(t(m), t(q), tau)) == pytest.approx(slow(m, q, tau), rel=1e-5)
    unit = m / np.linalg.norm(m, axis=1, keepdims=True)
    label = np.array([0, 1, 2, 0, 1, 0, 3, 4, 1])
    found = float(supervised_contrastive_loss(t(unit), torch.tensor(label), tau))
    assert found == pytest.approx(slow_supervised(unit, label, tau), rel=1e-5)


def test_two_spots_by_hand():
    """Unit axes: all Z, and the two W, are softmax((1, 0)) = (s, 1 - s)."""
    axes = t([[1.0, 0.0], [0.0, 1.0]])
    s = np.e / (np.e + 1)
    expected = -(s * np.log(s) + (1 - s) * np.log(1 - s))
    assert float(soft_alignment_loss(axes, axes, 1.0)) == pytest.approx(expected, rel=1e-6)
    assert float(image_centric_loss(axes, axes, 1.0)) == pytest.approx(expected, rel=1e-6)


def test_heclips_targets_hear_the_images_alone():
    m, q = t(RNG.standard_normal((2, 8, 4)))
    # Without expression codes Z is flat: every row's cross entropy is log 8 times what W gives that column.
    zero = image_centric_loss(m, 0 * q, 1.0)
    assert float(zero) == pytest.approx(np.log(8) * float(torch.softmax(m @ m.T, 1).sum()) / 8, rel=1e-5)


def test_far_apart_they_are_infonce():
    """Long codes: the soft targets become the spot itself, and HECLIP is one direction of InfoNCE."""
    m, q = 30 * t(np.eye(6)), t(RNG.standard_normal((6, 6)))
    expected = torch.nn.functional.cross_entropy(m @ q.T, torch.arange(6))
    torch.testing.assert_close(image_centric_loss(m, q, 1.0), expected)


def test_supervised_contrast_by_hand():
    """Three spots, the first two alike: log(e^a / (e^a + e^b)) of each; the third has no partner."""
    r = t([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    first = -np.log(np.exp(0.6) / (np.exp(0.6) + np.exp(0.0)))
    second = -np.log(np.exp(0.6) / (np.exp(0.6) + np.exp(0.8)))
    found = supervised_contrastive_loss(r, torch.tensor([0, 0, 1]), 1.0)
    assert float(found) == pytest.approx((first + second) / 2, rel=1e-6)


def test_nobody_alike_says_nothing_and_has_a_gradient():
    r = t(np.eye(3)).requires_grad_()
    value = supervised_contrastive_loss(r, torch.tensor([0, 1, 2]), 0.1)
    value.backward()
    assert float(value.detach()) == 0.0
    assert float(r.grad.abs().sum()) == 0.0


@pytest.mark.parametrize("loss", [soft_alignment_loss, image_centric_loss])
def test_targets_take_part_in_the_gradient(loss):
    """Compared with a numerical derivative, which sees both ways in."""
    m, q = torch.from_numpy(RNG.standard_normal((2, 5, 3))).float()
    m.requires_grad_()
    loss(m, q, 1.0).backward()
    step = torch.zeros_like(m)
    step[2, 1] = 1e-2
    with torch.no_grad():
        slope = (loss(m + step, q, 1.0) - loss(m - step, q, 1.0)) / 2e-2
    assert float(m.grad[2, 1]) == pytest.approx(float(slope), abs=2e-3)
