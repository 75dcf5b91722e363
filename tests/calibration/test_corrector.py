"""The correction: starts at the Estimate, is held to it by rho, and is trained as METHODS say."""

import numpy as np
import pytest
import torch

from chrep_model.calibration.corrector import Corrector, CorrectorSettings, fit_corrector
from chrep_model.statistics import unit_rows

SETTINGS = CorrectorSettings(hidden=32, dropout=0.0, epochs=150, batch=256, lr=2e-2, weight_decay=0.0)


@pytest.fixture(scope="module")
def task():
    """Spots whose estimate misses what their embedding says: z, estimate, targets, section."""
    rng = np.random.default_rng(0)
    z = unit_rows(rng.standard_normal((256, 8)).astype(np.float32))
    missed = (2.0 * z @ rng.standard_normal((8, 4))).astype(np.float32)
    estimate = rng.standard_normal((256, 4)).astype(np.float32)
    return z, estimate, estimate + missed, np.repeat([0, 1], 128)


def fit(task, seed=0, mae=0.0, pcc=0.0, **changes):
    return fit_corrector(*task, SETTINGS.model_copy(update=changes), mae=mae, pcc=pcc, seed=seed)


def residual(corrector, z):
    with torch.inference_mode():
        return corrector(torch.from_numpy(z)).numpy()


def test_it_starts_at_the_estimate():
    z = torch.randn(5, 8)
    assert not Corrector(8, 3, 16, 0.5)(z).any()


def test_it_learns_what_the_estimate_misses(task):
    z, estimate, targets, _ = task
    found = residual(fit(task, rho=0.0), z)
    assert np.mean((estimate + found - targets) ** 2) < 0.05 * np.mean((estimate - targets) ** 2)


def test_a_heavy_penalty_leaves_the_estimate_alone(task):
    z, estimate, targets, _ = task
    missed = np.abs(targets - estimate).mean()
    sizes = [np.abs(residual(fit(task, rho=rho), z)).mean() / missed for rho in (0.1, 1.0, 10.0, 1e6)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 1e-3


@pytest.mark.parametrize("rho", [0.3, 1.0, 3.0])
def test_under_squared_error_alone_the_residual_is_divided_by_1_plus_rho(task, rho):
    z, estimate, targets, _ = task
    found, missed = residual(fit(task, rho=rho), z), targets - estimate
    share = (found * missed).sum() / (missed**2).sum()
    assert share == pytest.approx(1 / (1 + rho), abs=0.02)


def test_the_share_does_not_depend_on_the_number_of_genes(task):
    z, estimate, targets, section = task
    few = residual(fit((z, estimate[:, :1], targets[:, :1], section)), z)
    many = residual(fit((z, np.tile(estimate, 6), np.tile(targets, 6), section)), z)
    for found, missed in [(few, (targets - estimate)[:, :1]), (many, np.tile(targets - estimate, 6))]:
        assert (found * missed).sum() / (missed**2).sum() == pytest.approx(0.5, abs=0.02)


def test_the_seed_decides(task):
    one, same, other = (
        residual(fit(task, seed=s, epochs=3, batch=64, dropout=0.2), task[0]) for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-4


def test_it_is_left_in_eval_mode(task):
    corrector = fit(task, epochs=1, dropout=0.5)
    assert not corrector.training
    np.testing.assert_array_equal(residual(corrector, task[0]), residual(corrector, task[0]))


@pytest.mark.parametrize("changes", [{"rho": -1}, {"epochs": 0}, {"dropout": 1.0}, {"unknown": 1}])
def test_settings_out_of_range(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        CorrectorSettings.model_validate(changes)
