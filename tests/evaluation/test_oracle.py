"""What depth alone says, under both normalisations."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from chrep_model.cohorts.cohort import open_cohort
from chrep_model.cohorts.gene_panel import GenePanel
from chrep_model.evaluation.oracle import LibrarySizeOracle, counts_of, oracle_correlations
from chrep_model.statistics import gene_correlations

from .conftest import make_section


def test_counts_come_in_the_panels_order_and_unlisted_genes_count_0():
    section, _ = make_section()
    counts = counts_of(section, ("G03", "NONE", "G00"))
    np.testing.assert_array_equal(counts[:, 0], section.counts[:, 3].toarray().ravel())
    np.testing.assert_array_equal(counts[:, 2], section.counts[:, 0].toarray().ravel())
    assert not counts[:, 1].any()


def test_the_line_is_numpys(cohort):
    train, test = cohort.sections[1:], cohort.sections[0]
    panel = GenePanel.fit(train, 5)
    oracle = LibrarySizeOracle.fit(train, panel)
    size = np.concatenate([np.log10(1 + counts_of(s, panel.genes).sum(1)) for s in train])
    values = np.concatenate([panel.expression(s) for s in train])
    own = np.log10(1 + counts_of(test, panel.genes).sum(1))
    for g in range(5):
        expected = np.polyval(np.polyfit(size, values[:, g], 1), own)
        np.testing.assert_allclose(oracle.predict(test)[:, g], expected, atol=1e-4)


def test_only_training_sections_decide_the_line_and_the_test_spots_totals_the_rest(cohort):
    train, test = cohort.sections[1:], cohort.sections[0]
    panel = GenePanel.fit(train, 5)
    oracle = LibrarySizeOracle.fit(train, panel)
    column = [test.genes.index(g) for g in panel.genes]
    shuffled = test.counts.toarray()
    shuffled[:, column] = shuffled[:, column[::-1]]  # other genes, same totals
    other = replace(test, counts=sparse.csr_matrix(shuffled))
    np.testing.assert_array_equal(oracle.predict(test), oracle.predict(other))


def test_per_gene_normalisation_leaves_depth_in_every_gene():
    """Spots that differ in depth alone: nothing per spot, everything per gene."""
    section, _ = make_section(side=10)
    share = np.array([0.4, 0.3, 0.2, 0.1])
    depth = np.linspace(1000, 9000, 100)
    counts = np.random.default_rng(0).poisson(depth[:, None] * share)
    genes = ("G00", "G01", "G02", "G03")
    section = replace(section, counts=sparse.csr_matrix(counts.astype(np.float32)), genes=genes)
    assert np.abs(oracle_correlations(section, genes, "per-spot")).max() < 0.4
    assert oracle_correlations(section, genes, "per-gene").min() > 0.9


def test_per_spot_values_are_the_panels():
    section, _ = make_section()
    genes = section.genes[:6]
    panel = GenePanel.fit([section], genes)
    size = np.log10(1 + counts_of(section, genes).sum(1))
    expected = gene_correlations(panel.expression(section), np.tile(size[:, None], (1, 6)))
    np.testing.assert_allclose(oracle_correlations(section, genes, "per-spot"), expected, atol=1e-5)


@pytest.mark.real
def test_on_real_sections_the_wrong_axis_flatters(shared_data):
    cohort = open_cohort(shared_data / "her2st")
    genes = GenePanel.fit(cohort.sections, 785).genes
    mean = {
        kind: np.nanmean([oracle_correlations(s, genes, kind) for s in cohort])
        for kind in ("per-spot", "per-gene")
    }
    assert mean["per-gene"] > mean["per-spot"] + 0.05
