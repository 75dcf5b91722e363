"""HAGE-like: how it starts, what it clusters, and what it says of genes."""

import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import fcluster, ward

from chrep_model.methods import hage_like
from chrep_model.methods.hage_like import HageLike, HageLikeNetwork, HageLikeSettings
from chrep_model.training.objective import SpotBatch

FEW = HageLikeSettings(epochs=2, dim=8, tokens=2, batch=40)


@pytest.fixture
def network(table):
    torch.manual_seed(0)
    return HageLikeNetwork(table.features.shape[1], table.targets.shape[1], FEW)


def see(network, table):
    x, targets = torch.from_numpy(table.features), torch.from_numpy(table.targets)
    network.before_epoch(x, targets)
    rows = np.arange(40)
    alone = (torch.zeros(40, dtype=torch.int64), torch.zeros(40, 2), torch.eye(40))
    return x, targets, SpotBatch(rows, targets[rows], *alone)


def test_gene_embeddings_start_from_co_expression_once(network, table):
    see(network, table)
    e = network.attention.genes.detach().numpy().copy()
    correlation = np.corrcoef(table.targets.T)
    size, vectors = np.linalg.eigh(correlation)
    gram = (vectors[:, -8:] * size[-8:]) @ vectors[:, -8:].T
    scale = np.trace(gram) / np.trace(e @ e.T)
    np.testing.assert_allclose(scale * e @ e.T, gram, atol=1e-4)  # inner products are co-expression
    assert np.mean(e**2) == pytest.approx(1, rel=1e-5)
    with torch.no_grad():
        network.attention.genes.add_(1.0)
    see(network, table)
    np.testing.assert_allclose(network.attention.genes.detach().numpy(), e + 1, atol=1e-6)


def test_at_the_start_a_gene_without_tokens_is_at_its_mean(network, table):
    """w_g . E_g + b_g = 0: without anything read, the prediction is the mean of standardised expression."""
    see(network, table)
    a = network.attention
    own = ((a.weight * a.genes).sum(1) + a.bias).detach().numpy()
    np.testing.assert_allclose(own, 0, atol=1e-6)


def test_clusters_are_wards_on_expression_and_looks(network, table):
    x, targets, _ = see(network, table)
    with torch.no_grad():
        looks = network._read(x)[1].numpy()

    def block(a):
        a = a - a.mean(0)
        return a / np.linalg.norm(a, axis=1).mean()  # fewer than 50 columns: a rotation changes nothing

    tree = ward(np.hstack([block(targets.numpy()), block(looks)]))
    for k, found in zip(hage_like.CLUSTERS, network._clusters, strict=True):
        expected = fcluster(tree, k, "maxclust")
        same = (expected[:, None] == expected) == (found.numpy()[:, None] == found.numpy())
        assert same.mean() > 0.999


def test_the_loss_is_the_sum_of_its_parts(table):
    def value(**weights):
        torch.manual_seed(0)
        network = HageLikeNetwork(12, 15, FEW.model_copy(update=weights)).eval()
        x, _, batch = see(network, table)
        with torch.no_grad():
            predicted = network.predict(x[:40])
            mse = float(((predicted - batch.targets) ** 2).mean())
            return float(network.loss(x[:40], batch)), mse

    plain, mse = value(con=0.0, hier=0.0)
    assert plain == pytest.approx(mse, rel=1e-5)
    con, hier = value(con=1.0, hier=0.0)[0] - plain, value(con=0.0, hier=1.0)[0] - plain
    assert con > 0.1
    assert hier > 0.1
    assert value(con=0.5, hier=0.25)[0] == pytest.approx(plain + 0.5 * con + 0.25 * hier, rel=1e-5)


@pytest.mark.slow
def test_training_lowers_the_error(make_table):
    table, unseen = make_table(sections=4, spots=100), make_table(sections=1, spots=200, seed=7)
    fitted = HageLike(FEW.model_copy(update={"epochs": 40})).fit(table, seed=0)
    assert np.mean((fitted.predict(unseen.features) - unseen.targets) ** 2) < 0.8 * unseen.targets.var()
