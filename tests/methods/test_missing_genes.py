"""A section that did not measure a gene says nothing of it to any method."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from chrep_model.calibration.corrector import CorrectorSettings
from chrep_model.calibration.trust import Trust
from chrep_model.methods.bleep import BleepSettings
from chrep_model.methods.chrep import Chrep, ChrepSettings, recalibrate
from chrep_model.methods.chrep.phase1 import Phase1Settings
from chrep_model.methods.expression_components import Components
from chrep_model.methods.hage_like import HageLikeSettings
from chrep_model.methods.heclip import HeclipSettings
from chrep_model.methods.mclstexp import MclstexpSettings
from chrep_model.methods.method_settings import MethodSettings, make_method
from chrep_model.methods.registry import BUILT_IN, find
from chrep_model.methods.ridge import TableSolver, filled_in

pytestmark = pytest.mark.usefixtures("few_trees")

GENE, OFFSET = 4, 3.0
LONG = (
    "mclstexp",
    "heclip",
    "hage_like",
)  # which learn the gene slowly; of their like, BLEEP is asked always
_LONG = {"epochs": 40, "batch": 40, "width": 16}
SETTINGS = MethodSettings(
    bleep=BleepSettings(**_LONG), mclstexp=MclstexpSettings(**_LONG, lr=1e-3, k=50),
    heclip=HeclipSettings(**_LONG),
    hage_like=HageLikeSettings(epochs=80, batch=40, dim=8, tokens=2, lr=1e-2),
    chrep=ChrepSettings(
        phase1=Phase1Settings(members=1, epochs=60, inputs=12, dim=16, hidden=32, lr=1e-2, dropout=0),
        corrector=CorrectorSettings(epochs=10, hidden=8), k=20, trees=8,
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def full(make_table):
    """Four sections; one gene lies 3 sd above the mean everywhere."""
    table = make_table(sections=4, seed=3)
    targets = table.targets.copy()
    targets[:, GENE] += OFFSET
    return replace(table, targets=targets)


@pytest.fixture(scope="module")
def lacking(full):
    """The same, but sections 2 and 3 did not measure that gene."""
    measured = np.ones((4, full.targets.shape[1]), bool)
    measured[2:, GENE] = False
    return replace(
        full, targets=np.where(measured[full.section], full.targets, 0).astype(np.float32), measured=measured
    )


@pytest.fixture(scope="module")
def measuring(full):
    """Those that measured it, alone."""
    return full.rows(full.section < 2)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in BUILT_IN]
)
def test_a_gene_is_predicted_as_by_those_who_measured_it(name, lacking, measuring, unseen):
    """Taken for the mean where it is missing, the gene would come out at half of its height."""
    alone, gaps = (make_method(name, SETTINGS).fit(table, seed=0) for table in (measuring, lacking))
    response = gaps.respond(unseen.features)
    for variant in gaps.variants:
        expected = alone.predict(unseen.features, variant)[:, GENE]
        found = gaps.read(response, variant)[:, GENE]
        assert np.isfinite(found).all()
        assert found.mean() == pytest.approx(expected.mean(), abs=0.45)
        assert found.mean() > 0.75 * OFFSET
        np.testing.assert_allclose(gaps.read(response, variant, np.array([GENE]))[:, 0], found, atol=1e-5)
    if gaps.trust is not None:
        half = gaps.interval(response, gaps.variants[-1])
        assert np.isfinite(half).all()
        assert half.min() > 0
        known = np.isfinite(gaps.trust.correlations[:, GENE])
        assert not known[2:].any()
        np.testing.assert_array_equal(gaps.trust.counted[[GENE, 0]], [2, 4])
        again = Trust.from_arrays(gaps.trust.arrays())
        np.testing.assert_array_equal(again.predictable, gaps.trust.predictable)
    again = find(name).fitted_class.from_arrays(gaps.arrays(), gaps.gallery)
    np.testing.assert_array_equal(again.predict(unseen.features), gaps.read(response, gaps.variants[-1]))


@pytest.mark.parametrize("name", ["mean", "ridge", "trees"])
def test_what_stands_in_the_place_of_a_missing_value_has_no_say(name, lacking, unseen):
    odd = np.where(lacking.measured[lacking.section], lacking.targets, -9).astype(np.float32)
    one, other = (
        make_method(name).fit(table, seed=0).predict(unseen.features)
        for table in (lacking, replace(lacking, targets=odd))
    )
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["mean", "ridge"])
def test_other_genes_do_not_notice(name, full, lacking, unseen):
    """But for the penalty, which all genes choose."""
    a, b = (make_method(name).fit(table, seed=0).predict(unseen.features) for table in (full, lacking))
    np.testing.assert_allclose(np.delete(a, GENE, axis=1), np.delete(b, GENE, axis=1), atol=0.02)


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_gene_that_one_section_measured_and_one_that_none_did(name, all_small, full, unseen):
    """Nothing can be left out to test them on; and of the second there is nothing but the mean to say."""
    measured = np.ones((4, full.targets.shape[1]), bool)
    measured[1:, 2] = False
    measured[:, 7] = False
    targets = np.where(measured[full.section], full.targets, 0).astype(np.float32)
    fitted = make_method(name, all_small).fit(replace(full, targets=targets, measured=measured), seed=0)
    response = fitted.respond(unseen.features)
    predicted = fitted.read(response, fitted.variants[-1])
    assert np.isfinite(predicted).all()
    if name in ("mean", "knn", "ridge", "bleep", "mclstexp", "heclip"):
        assert not predicted[:, 7].any()
    else:
        assert np.abs(predicted[:, 7]).mean() < 0.5
    if fitted.trust is not None:
        np.testing.assert_array_equal(fitted.trust.counted[[0, 2, 7]], [4, 0, 0])
        assert np.isnan(fitted.trust.accuracy[[2, 7]]).all()
        assert not fitted.trust.predictable[[2, 7]].any()
        assert np.isfinite(fitted.interval(response, fitted.variants[-1])).all()


def test_new_spots_that_lack_a_gene_calibrate_the_others(full, lacking, small_settings, unseen):
    fitted = Chrep(small_settings).fit(full, seed=0)
    new = recalibrate(fitted, lacking, small_settings, seed=1)
    np.testing.assert_array_equal(new.gallery.measured, lacking.measured)
    assert new.predict(unseen.features)[:, GENE].mean() > 0.75 * OFFSET
    assert new.predict(unseen.features, "estimate")[:, GENE].mean() > 0.75 * OFFSET


def test_an_image_fills_in_what_components_need(full, lacking):
    filled = filled_in(lacking, 10.0)
    missing = ~lacking.measured[lacking.section]
    np.testing.assert_array_equal(filled[~missing], lacking.targets[~missing])
    w, b = TableSolver(full.rows(full.section < 2)).weights(10.0)
    expected = (full.features @ w + b)[missing]
    np.testing.assert_allclose(filled[missing], expected, atol=1e-5)
    assert filled_in(full, 10.0) is full.targets
    components = Components.predictable(replace(lacking, targets=filled), 10, 10.0)
    assert components.mean[GENE] == pytest.approx(OFFSET, abs=0.4)


def test_rows_that_are_complete_know_of_no_gap(lacking):
    assert lacking.rows(lacking.section < 2).measured is None
    part = lacking.rows(lacking.section > 0)
    np.testing.assert_array_equal(part.measured, lacking.measured)
    # measured by section 1 alone of those that are left
    assert part.learnable()[1:].all(axis=0).sum() == len(lacking.measured[0]) - 1
    assert not part.learnable()[1:, GENE].any()
    np.testing.assert_array_equal(np.sort(np.concatenate([g for _, g in part.groups()])), np.arange(15))
    for rows, genes in part.groups():
        of = np.unique(part.section[rows])
        np.testing.assert_array_equal(of, [1] if GENE in genes else [1, 2, 3])


def test_neighbours_that_lack_a_gene_do_not_share_in_its_mean(lacking):
    from chrep_model.calibration.gallery import mean_of, neighbour_spread
    from chrep_model.methods.base import gallery_of
    from chrep_model.statistics import unit_rows

    gallery = gallery_of(lacking, unit_rows(lacking.features))
    found = gallery.search(gallery.z[:5], 30)
    weights, known = found.weights(0.1), gallery.known()
    mean = mean_of(found.index, weights, gallery.expression, known)
    spread = neighbour_spread(found, 0.1, gallery.expression, known)
    for i in range(5):
        has = gallery.section[found.index[i]] < 2
        w = weights[i][has] / weights[i][has].sum()
        own = gallery.expression[found.index[i][has], GENE]
        assert mean[i, GENE] == pytest.approx(w @ own, rel=1e-4)
        assert spread[i, GENE] == pytest.approx(np.sqrt(w @ (own - w @ own) ** 2), rel=1e-3)
    assert gallery.known(np.array([0, 1])) is None
    nobody = np.flatnonzero(gallery.section > 1)[None, :8]
    equal = np.full((1, 8), 1 / 8, np.float32)
    assert mean_of(nobody, equal, gallery.expression, known)[0, GENE] == 0
