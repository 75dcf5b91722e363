"""The losses: worked by hand where that is short, and against slow float64 references."""

import numpy as np
import pytest
import torch

from chrep_model.networks.losses import alignment_loss, pearson_by_section, regression_loss, topology_loss

RNG = np.random.default_rng(0)


def t(x, **kind):
    return torch.tensor(np.asarray(x), **(kind or {"dtype": torch.float32}))


def slow_pearson(p, y, section):
    """Mean over sections of the mean over genes that vary there."""
    means = []
    for s in np.unique(section):
        rows = section == s
        if rows.sum() < 3:
            continue
        genes = [g for g in range(y.shape[1]) if y[rows, g].std() > 1e-6]
        means.append(np.mean([np.corrcoef(p[rows, g], y[rows, g])[0, 1] for g in genes]))
    return np.mean(means)


def slow_topology(feature, adjacency, section):
    n = len(feature)
    centred = np.array([f - feature[section == s].mean(0) for f, s in zip(feature, section, strict=True)])
    S, A = np.zeros((n, n)), np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            if i != j and section[i] == section[j]:
                cosine = centred[i] @ centred[j] / np.linalg.norm(centred[i]) / np.linalg.norm(centred[j])
                S[i, j], A[i, j] = max(cosine, 0.0), adjacency[i, j]
    return np.sum((S / np.linalg.norm(S) - A / np.linalg.norm(A)) ** 2)


def slow_alignment(m, q, tau):
    logits = m @ q.T / tau
    rows = -np.mean([logits[i, i] - np.log(np.exp(logits[i]).sum()) for i in range(len(m))])
    cols = -np.mean([logits[i, i] - np.log(np.exp(logits[:, i]).sum()) for i in range(len(m))])
    return (rows + cols) / 2


def test_regression_loss_by_hand():
    truth, predicted = t([[0.0], [1], [2]]), t([[1.0], [1], [4]])
    # errors 1, 0, 2; centred p = (-1, -1, 2), t = (-1, 0, 1): r = 3 / sqrt(6 * 2)
    mse, mae, pcc = 5 / 3, 1.0, 3 / 12**0.5
    one = t([0, 0, 0], dtype=torch.int64)
    assert float(regression_loss(predicted, truth, one, mae=0, pcc=0)) == pytest.approx(mse)
    assert float(regression_loss(predicted, truth, one, mae=0.5, pcc=0)) == pytest.approx(mse + 0.5 * mae)
    full = float(regression_loss(predicted, truth, one, mae=0.5, pcc=2.0))
    assert full == pytest.approx(mse + 0.5 * mae + 2 * (1 - pcc), abs=1e-5)


def test_pearson_against_a_slow_reference():
    p, y = RNG.standard_normal((30, 6)), RNG.standard_normal((30, 6))
    section = np.repeat([0, 1, 2], [14, 11, 5])
    y[:14, 2] = 1.5  # a gene that does not vary in one section
    found = pearson_by_section(t(p), t(y), t(section, dtype=torch.int64))
    assert float(found) == pytest.approx(slow_pearson(p, y, section), abs=1e-5)


def test_guessing_the_offset_of_a_section_is_not_rewarded():
    section = np.repeat([0, 1], 50)
    truth = RNG.standard_normal((100, 8)) + 10 * section[:, None]
    offsets = RNG.standard_normal((100, 8)) + 10 * section[:, None]
    pooled = np.mean([np.corrcoef(offsets[:, g], truth[:, g])[0, 1] for g in range(8)])
    by_section = float(pearson_by_section(t(offsets), t(truth), t(section, dtype=torch.int64)))
    assert pooled > 0.9  # what a correlation over all rows would have paid
    assert abs(by_section) < 0.2


def test_pearson_where_nothing_varies_or_too_few_spots():
    section = t([0, 0, 0, 1, 1], dtype=torch.int64)
    y = t(np.zeros((5, 2)))
    assert float(pearson_by_section(t(RNG.standard_normal((5, 2))), y, section)) == 0
    two = t([0, 0], dtype=torch.int64)
    assert float(pearson_by_section(t([[0.0], [1]]), t([[0.0], [1]]), two)) == 0


def test_a_constant_prediction_has_no_correlation_and_a_finite_slope():
    predicted = t(np.ones((6, 3))).requires_grad_()
    truth, section = t(RNG.standard_normal((6, 3))), t([0] * 6, dtype=torch.int64)
    loss = regression_loss(predicted, truth, section, mae=0.5, pcc=1.0)
    loss.backward()
    assert torch.isfinite(predicted.grad).all()
    assert float(pearson_by_section(predicted.detach(), truth, section)) == pytest.approx(0, abs=1e-3)


def test_losses_are_computed_in_float32_whatever_comes_in():
    p, y = RNG.standard_normal((40, 5)) + 30, RNG.standard_normal((40, 5)) + 30
    section = t([0] * 40, dtype=torch.int64)
    half = pearson_by_section(t(p, dtype=torch.bfloat16), t(y, dtype=torch.bfloat16), section)
    rounded = [t(a, dtype=torch.bfloat16).double().numpy() for a in (p, y)]
    assert half.dtype == torch.float32
    assert float(half) == pytest.approx(slow_pearson(*rounded, section.numpy()), abs=1e-4)


def test_alignment_by_hand_and_against_a_slow_reference():
    # orthogonal pairs that agree: each row is a softmax of (1/tau, 0)
    eye = t(np.eye(2))
    tau = 0.5
    by_hand = float(np.log(1 + np.exp(-1 / tau)))
    assert float(alignment_loss(eye, eye, t(tau))) == pytest.approx(by_hand, abs=1e-6)
    m, q = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in RNG.standard_normal((2, 9, 4)))
    assert float(alignment_loss(t(m), t(q), t(0.07))) == pytest.approx(slow_alignment(m, q, 0.07), rel=1e-5)


def test_alignment_is_symmetric_and_lowest_for_the_right_pairs():
    m, q = torch.nn.functional.normalize(t(RNG.standard_normal((2, 12, 16))), dim=2)
    tau = t(0.1)
    assert float(alignment_loss(m, q, tau)) == pytest.approx(float(alignment_loss(q, m, tau)), rel=1e-6)
    assert float(alignment_loss(m, m, tau)) < float(alignment_loss(m, m.roll(1, 0), tau)) - 1


def ring(n):
    """Adjacency of a ring of n spots."""
    step = np.roll(np.eye(n), 1, axis=1)
    return step + step.T


def test_topology_against_a_slow_reference():
    section = np.repeat([0, 1], [9, 6])
    adjacency = np.zeros((15, 15))
    adjacency[:9, :9], adjacency[9:, 9:] = ring(9) * 4 / 7, ring(6) * 2 / 7
    feature = RNG.standard_normal((15, 5))
    found = topology_loss(t(feature), t(adjacency), t(section, dtype=torch.int64))
    assert float(found) == pytest.approx(slow_topology(feature, adjacency, section), abs=1e-5)


def test_topology_is_zero_for_features_like_the_graph():
    # Two cliques, each with a feature of its own: similarity 1 within and 0 between, exactly the graph.
    group = np.repeat([0, 1], 4)
    graph = (group[:, None] == group[None, :]).astype(float)
    feature = t(np.eye(2)[group])
    one = t([0] * 8, dtype=torch.int64)
    assert float(topology_loss(feature, t(graph), one)) == pytest.approx(0, abs=1e-6)
    # the opposite: similar exactly where there is no edge
    assert float(topology_loss(feature, t(1 - graph), one)) == pytest.approx(2, abs=1e-5)


@pytest.mark.parametrize("n", [4, 16, 64])
def test_topology_lies_within_0_and_2_whatever_the_batch(n):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        edges = rng.random((n, n)) < 0.3
        graph = t((edges | edges.T).astype(float))
        feature = t(rng.standard_normal((n, 3)) * 10.0 ** rng.uniform(-3, 3))
        value = float(topology_loss(feature, graph, t(rng.integers(0, 2, n))))
        assert 0 <= value <= 2 + 1e-5


def test_topology_hears_nothing_across_sections():
    section = t(np.repeat([0, 1], 6), dtype=torch.int64)
    graph = np.zeros((12, 12))
    graph[:6, :6] = graph[6:, 6:] = ring(6)
    feature = RNG.standard_normal((12, 4))
    base = float(topology_loss(t(feature), t(graph), section))
    across = graph.copy()
    across[:6, 6:] = across[6:, :6] = 1.0
    assert float(topology_loss(t(feature), t(across), section)) == pytest.approx(base, abs=1e-6)
    moved = feature.copy()
    moved[6:] += 100.0  # an offset of one section; centring takes it out
    assert float(topology_loss(t(moved), t(graph), section)) == pytest.approx(base, abs=1e-3)
    assert float(topology_loss(t(feature), t(graph), section * 0)) != pytest.approx(base, abs=1e-3)


def test_topology_without_an_edge_is_zero_and_can_be_differentiated():
    feature = t(RNG.standard_normal((5, 3))).requires_grad_()
    loss = topology_loss(feature, torch.zeros(5, 5), t([0] * 5, dtype=torch.int64))
    loss.backward()
    assert float(loss.detach()) == 0
    assert not feature.grad.any()


def test_topology_of_equal_features_has_a_finite_slope():
    feature = torch.ones(6, 3, requires_grad=True)
    topology_loss(feature, t(ring(6)), t([0] * 6, dtype=torch.int64)).backward()
    assert torch.isfinite(feature.grad).all()


def test_learning_on_the_topology_loss_brings_neighbours_together():
    feature = torch.nn.Parameter(t(np.random.default_rng(3).standard_normal((10, 8))))
    graph, section = t(ring(10)), t([0] * 10, dtype=torch.int64)
    optimiser = torch.optim.Adam([feature], lr=0.05)
    first = float(topology_loss(feature, graph, section).detach())
    for _ in range(60):
        optimiser.zero_grad()
        loss = topology_loss(feature, graph, section)
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.5 * first
