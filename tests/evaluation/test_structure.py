"""Spots on their array, and SSIM of maps."""

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from chrep_model.cohorts.cohort import open_cohort
from chrep_model.evaluation.structure import Raster, array_positions

RNG = np.random.default_rng(0)


def square(rows, cols):
    r, c = np.divmod(np.arange(rows * cols), cols)
    return np.stack([c, r], axis=1).astype(float)


def hexagonal(rows, cols):
    r, c = np.divmod(np.arange(rows * cols), cols)
    return np.stack([c + 0.5 * (r % 2), r * np.sqrt(3) / 2], axis=1)


def turned(xy, degrees):
    t = np.radians(degrees)
    return xy @ np.array([[np.cos(t), np.sin(t)], [-np.sin(t), np.cos(t)]])


@pytest.mark.parametrize("degrees", [0, 4, -10])
@pytest.mark.parametrize("stretch", [1.0, 1.06])
def test_a_square_array_is_read_off_jittered_positions(degrees, stretch):
    xy = turned(square(30, 20) * [stretch, 1] * 270 + RNG.normal(0, 15, (600, 2)), degrees) + 5000
    keep = RNG.random(600) < 0.8
    expected = np.stack(np.divmod(np.arange(600), 20), axis=1)[keep]
    found = array_positions(xy[keep])
    np.testing.assert_array_equal(found - found.min(0), expected - expected.min(0))


@pytest.mark.parametrize("degrees", [0, 7])
def test_a_hexagonal_array_gives_every_spot_its_own_cell(degrees):
    """Rows are rows; columns are whole, and in order."""
    xy = turned(hexagonal(12, 9) * 100, degrees)
    row, column = array_positions(xy).T
    np.testing.assert_array_equal(row, np.arange(108) // 9)
    for r in range(12):
        np.testing.assert_array_equal(np.diff(column[row == r]), 1)
    starts = np.array([column[row == r].min() for r in range(12)])
    assert np.ptp(starts) <= 1  # the shift of half a spot, no more


@pytest.mark.parametrize("xy", [np.zeros((1, 2)), square(1, 2), square(1, 9), square(9, 1), square(2, 2)])
def test_small_sections(xy):
    found = array_positions(xy * 50)
    assert found.shape == xy.shape
    assert found.min() == 0
    assert len(np.unique(found, axis=0)) == len(xy)


def test_similarity_of_a_full_array_is_scikit_images():
    truth, predicted = RNG.random((2, 120, 3))
    predicted = 0.5 * truth + 0.5 * predicted
    found = Raster.of(square(12, 10)).similarity(truth, predicted)
    for g in range(3):
        low, span = truth[:, g].min(), np.ptp(truth[:, g])
        maps = [((v[:, g] - low) / span).reshape(12, 10) for v in (truth, predicted)]
        _, local = structural_similarity(*maps, win_size=7, data_range=1.0, full=True)
        assert found[g] == pytest.approx(local.mean())


def test_identical_maps_are_1_with_holes_too():
    xy = square(9, 8)[RNG.random(72) < 0.7]
    truth = RNG.random((len(xy), 4))
    truth[:, 3] = 2.0
    found = Raster.of(xy).similarity(truth, truth)
    np.testing.assert_allclose(found, [1, 1, 1, np.nan])


def test_similarity_falls_with_noise_and_offset_and_a_constant_has_hardly_any():
    xy = square(12, 12)
    truth = np.sin(xy[:, :1] / 2) + 0.1 * RNG.standard_normal((144, 1))
    raster = Raster.of(xy)
    noise = RNG.standard_normal((144, 1))
    ladder = [truth + a * noise for a in (0, 0.2, 0.5, 1)] + [np.zeros_like(truth)]
    values = [raster.similarity(truth, p)[0] for p in ladder]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.1
    assert raster.similarity(truth, truth + 1)[0] < 0.9


def test_similarity_does_not_depend_on_the_unit():
    xy = square(8, 8)
    truth, predicted = RNG.random((2, 64, 2))
    raster = Raster.of(xy)
    np.testing.assert_allclose(
        raster.similarity(truth, predicted), raster.similarity(5 * truth + 3, 5 * predicted + 3)
    )


def test_holes_are_no_agreement():
    """A hole shows each map's own neighbour: nothing is shared by the maps that was not predicted."""
    xy = np.delete(square(9, 9), 40, axis=0)
    raster = Raster.of(xy)
    assert raster.shape == (9, 9)
    source = raster.source.reshape(9, 9)
    assert np.abs(xy[source[4, 4]] - [4, 4]).sum() == 1  # a direct neighbour
    truth = RNG.random((80, 1))
    assert raster.similarity(truth, 1 - truth)[0] < 0


def test_a_strip_has_no_map():
    truth = RNG.random((20, 2))
    assert np.isnan(Raster.of(square(2, 10)).similarity(truth, truth)).all()


@pytest.mark.real
def test_real_arrays_as_their_spots_are_named(shared_data):
    """Names are COLUMNxROW of the array, at least almost always."""
    for section in open_cohort(shared_data / "her2st"):
        named = np.array([name.split("_")[-1].split("x") for name in section.spot_ids], float)
        column, row = np.rint(named).astype(int).T
        shift = array_positions(section.xy) - np.stack([row, column], axis=1)
        assert (shift == np.median(shift, axis=0)).all(1).mean() > 0.99
