"""A gene that a section does not list was not measured there: it is missing, not zero."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from chrep_model.cohorts.gene_panel import GenePanel
from chrep_model.cohorts.log10_spot import coverage, expected_shares
from chrep_model.cohorts.section import Section
from chrep_model.errors import GeneError

GENES = tuple(f"G{i:02d}" for i in range(20))
DROPPED = ("G17", "G18")  # much of the counts
RATES = np.geomspace(2, 60, len(GENES))


def make(name: str, seed: int, spots: int = 300, genes=GENES, rates=RATES) -> Section:
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rates * rng.gamma(8, 1 / 8, (spots, len(genes))) * rng.lognormal(0, 0.3, (spots, 1)))
    return Section(
        name=name, patient=name, slide_path=Path(f"{name}.png"), counts_path=Path(f"{name}.h5ad"),
        counts=sparse.csr_matrix(counts, dtype=np.float32), genes=tuple(genes), xy=np.zeros((spots, 2)),
        spot_ids=tuple(f"{name}{i}" for i in range(spots)), mpp=0.5, spot_diameter_px=None,
    )  # fmt: skip


def without(section: Section, dropped=DROPPED) -> Section:
    kept = [i for i, name in enumerate(section.genes) if name not in dropped]
    return replace(
        section, counts=section.counts[:, kept], genes=tuple(section.genes[i] for i in kept), gene_ids=None
    )


@pytest.fixture(scope="module")
def sections():
    return make("A", 1), make("B", 2), make("C", 3)


@pytest.fixture(scope="module")
def panels(sections):
    """A panel of the sections as they are, and one where B lacks two genes."""
    a, b, c = sections
    return GenePanel.fit(sections, GENES), GenePanel.fit([a, without(b), c], GENES)


def test_a_gene_is_described_by_those_who_measured_it(sections, panels):
    a, _, c = sections
    whole, lacking = panels
    others = GenePanel.fit([a, c], GENES)
    columns = whole.indices(DROPPED)
    np.testing.assert_array_equal(lacking.mean[columns], others.mean[columns])
    np.testing.assert_array_equal(lacking.sd[columns], others.sd[columns])
    rest = np.setdiff1d(np.arange(len(GENES)), columns)
    np.testing.assert_allclose(lacking.mean[rest], whole.mean[rest], atol=0.01)
    np.testing.assert_allclose(lacking.sd[rest], whole.sd[rest], rtol=0.05)


def test_what_was_measured_keeps_its_value_and_the_rest_has_none(sections, panels):
    b = sections[1]
    for panel in panels:
        truth, values = panel.expression(b), panel.expression(without(b))
        columns = panel.indices(DROPPED)
        assert values.dtype == np.float32
        assert np.isnan(values[:, columns]).all()
        rest = np.setdiff1d(np.arange(len(GENES)), columns)
        error = values[:, rest] - truth[:, rest]
        assert np.abs(error.mean(axis=0)).max() < 0.01  # the others' shares do not rise
        held = b.counts[:, columns].sum() / b.counts.sum()
        assert abs(error.mean()) < 0.1 * np.log10(1 / (1 - held))  # by which they would
        np.testing.assert_allclose(panel.depth(without(b)).mean(), panel.depth(b).mean(), rtol=0.02)
        assert panel.missing(without(b)) == DROPPED
        np.testing.assert_array_equal(panel.measured(without(b)), ~np.isin(GENES, DROPPED))


def test_complete_sections_have_totals_of_their_own(sections, panels):
    """Bit for bit: shares have no say where nothing is missing."""
    whole, _ = panels
    other = replace(whole, share=np.arange(1.0, len(GENES) + 1))
    for section in sections:
        np.testing.assert_array_equal(other.expression(section), whole.expression(section))
        np.testing.assert_array_equal(whole.depth(section), section.counts.sum(axis=1).A1)
    assert other.hash == whole.hash
    assert coverage(whole.share, np.ones(len(GENES), bool)) == 1.0


def test_shares_by_hand():
    """No noise: each section has the shares .1 .2 .3 .4 in its own depth; the second lacks two genes."""
    share = np.array([0.1, 0.2, 0.3, 0.4])
    known = np.array([[1, 1, 1, 0], [0, 1, 0, 1], [1, 1, 1, 1], [1, 0, 1, 1]], bool)
    parts = [
        sparse.csr_matrix(np.outer([1, 2], share * depth * row))
        for depth, row in zip((10, 500, 70, 20), known, strict=True)
    ]
    for chosen in ([2], [0, 1], [0, 1, 2, 3], [1, 3]):
        found = expected_shares([parts[i] for i in chosen], known[chosen])
        seen = known[chosen].any(axis=0)
        np.testing.assert_allclose(found[seen], share[seen] / share[seen].sum(), atol=1e-9)
    np.testing.assert_array_equal(expected_shares([parts[0] * 0], known[:1]), np.full(4, 0.25))


def test_shares_travel_with_the_panel_and_an_older_one_has_its_own(panels):
    for panel in panels:
        again = GenePanel.from_frame(panel.to_frame())
        np.testing.assert_array_equal(again.share, panel.share)
        assert again.hash == panel.hash
        assert again.share.sum() == pytest.approx(1)
        older = GenePanel.from_frame(panel.to_frame().drop(columns="share"))
        assert older.hash == panel.hash
        np.testing.assert_allclose(older.share, panel.share, atol=0.02)
    frame = panels[0].to_frame()
    for bad in (-0.1, np.nan, "much"):
        with pytest.raises(GeneError, match="shares"):
            GenePanel.from_frame(pd.DataFrame(frame.assign(share=bad)))


def test_genes_are_chosen_among_those_that_half_of_the_sections_measured(sections):
    a, b, c = sections
    fourth = make("D", 4)
    chosen = GenePanel.fit([without(a), without(b), c, fourth], 20).genes
    assert set(DROPPED) <= set(chosen)
    chosen = GenePanel.fit([without(a), without(b), without(c), fourth], 20).genes
    assert set(chosen) == set(GENES) - set(DROPPED)


def test_a_gene_is_not_rare_because_a_section_lacks_it():
    """Detected in 15 % of the spots that measured it, hence in 7.5 % of all."""
    a, b = make("A", 1, spots=200), make("B", 2, spots=200)
    counts = a.counts.toarray()
    counts[:, 0] = 0
    counts[:30, 0] = 9
    a = replace(a, counts=sparse.csr_matrix(counts))
    assert "G00" in GenePanel.fit([a, without(b, ("G00",))], 20).genes


def test_a_gap_does_not_make_a_gene_variable(sections):
    """A constant gene that one section lacks would vary most of all, were it zero there."""
    constant = [
        replace(s, counts=sparse.csr_matrix(np.full((len(s), len(GENES)), 5, np.float32))) for s in sections
    ]
    counts = constant[0].counts.toarray()
    counts[::2, 3] = 6
    constant[0] = replace(constant[0], counts=sparse.csr_matrix(counts))
    assert GenePanel.fit([*constant[:2], without(constant[2], ("G07",))], 1).genes == ("G03",)


def test_gaps_are_said(sections):
    a, b, c = sections
    panel = GenePanel.fit(sections, GENES)
    assert panel.gaps(sections) == []
    lines = panel.gaps([a, without(b), without(c, ("G18",))])
    assert len(lines) == 3
    assert lines[0].startswith("section B did not measure 2 of the 20 genes (G17, G18)")
    assert lines[1].startswith("section C did not measure 1 of the 20 genes (G18)")
    assert lines[2].startswith("1 of the 20 genes were measured by fewer than half of the 3 sections (G18)")
    (*_, line) = panel.gaps([without(a), without(b)])
    assert "2 of the 20 genes were measured by none of the sections (G17, G18)" in line
    with pytest.raises(GeneError, match="section D lists only 4 of the panel's 20 genes"):
        panel.gaps([a, without(make("D", 4), GENES[4:])])
