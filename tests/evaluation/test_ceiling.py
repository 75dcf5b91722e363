"""The noise ceiling on counts whose true rates are known."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from chrep_model.cohorts.gene_panel import GenePanel
from chrep_model.evaluation.ceiling import ceiling, reliability, variance_explained
from chrep_model.statistics import gene_correlations

from .conftest import make_section

RNG = np.random.default_rng(0)


def section_of(counts):
    section, _ = make_section(side=20)
    genes = tuple(f"G{i:02}" for i in range(counts.shape[1]))
    return replace(section, counts=sparse.csr_matrix(counts.astype(np.float32)), genes=genes)


def panel_of(section):
    return GenePanel.fit([section], section.genes)


def rates(depth):
    """Expected counts (400 spots, 10 genes): the last gene holds most of a spot's molecules."""
    true = np.exp(0.6 * RNG.standard_normal((400, 9)))
    true = np.concatenate([true, np.full((400, 1), 20.0)], axis=1)
    return depth * true / true.sum(1, keepdims=True)


@pytest.mark.parametrize(("depth", "exact"), [(100, 0.15), (300, 0.1), (3000, 0.02)])
def test_it_is_the_correlation_that_the_true_rates_reach(depth, exact):
    expected = rates(depth)
    section = section_of(RNG.poisson(expected))
    panel = panel_of(section)
    truth = panel.expression(section)
    best = gene_correlations(truth, np.log10(1 + 1e4 * expected / expected.sum(1, keepdims=True)))
    found = ceiling(reliability(section, panel))
    assert found[:9].mean() == pytest.approx(best[:9].mean(), abs=exact)
    if depth == 3000:
        np.testing.assert_allclose(found[:9], best[:9], atol=exact)


def test_deeper_counts_have_a_higher_ceiling():
    shallow, deep = (section_of(RNG.poisson(rates(depth))) for depth in (100, 10000))
    low, high = (ceiling(reliability(s, panel_of(s)))[:9] for s in (shallow, deep))
    assert (low < high).all()
    assert high.min() > 0.95


def test_noise_has_no_ceiling_and_a_constant_gene_none_at_all():
    counts = np.concatenate([RNG.poisson(3, (400, 8)), np.zeros((400, 1))], axis=1)
    section = section_of(counts)
    found = reliability(section, panel_of(section))
    assert np.isnan(found[8])
    # what the spots' own totals share out is no signal of a gene either: nothing is reliable
    assert found[:8].max() < 0.3


def test_the_seed_decides_and_other_genes_do_not():
    section, _ = make_section()
    panel = GenePanel.fit([section], section.genes[:7])
    first = reliability(section, panel)
    np.testing.assert_array_equal(first, reliability(section, panel))
    assert (first != reliability(section, panel, seed=1)).any()
    part = replace(section, counts=section.counts[:, :7], genes=section.genes[:7])
    np.testing.assert_array_equal(first, reliability(part, panel))


def test_a_gene_that_the_section_does_not_list():
    section, _ = make_section()
    panel = GenePanel.fit([section], section.genes[:7])
    part = replace(section, counts=section.counts[:, 1:], genes=section.genes[1:])
    assert np.isnan(reliability(part, panel)[0])


def test_variance_explained_by_hand():
    truth = np.array([[0.0, 0], [2, 4]])  # variances 1 and 4
    reliable = np.array([1.0, 0.5])  # explainable: 1 + 2
    assert variance_explained(truth, truth, reliable) == pytest.approx(5 / 3)
    half = np.array([[10.0, 1], [11, 3]])  # left: 0.25 and 1; the offset does not matter
    assert variance_explained(truth, half, reliable) == pytest.approx((0.75 + 3) / 3)
    constant = np.zeros_like(truth)
    assert variance_explained(truth, constant, reliable) == 0
    assert variance_explained(truth, -truth, reliable) < 0


def test_a_gene_without_reliability_is_left_out():
    truth = np.array([[0.0, 5], [2, 5]])
    predicted = np.array([[0.0, 0], [2, 9]])
    assert variance_explained(truth, predicted, np.array([1.0, np.nan])) == pytest.approx(1)
    assert np.isnan(variance_explained(truth, predicted, np.array([0.0, np.nan])))
