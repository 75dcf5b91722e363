"""The image operators against scipy, numpy, and plain loops."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from chrep_model.encoders import filters

RNG = np.random.default_rng(0)


def planes(*shape):
    return torch.from_numpy(RNG.standard_normal(shape).astype(np.float32))


@pytest.mark.parametrize("sigma", [0.6, 1.05, 2.5])
def test_gaussian_is_scipys_and_treats_every_plane_alone(sigma):
    x = planes(3, 2, 40, 33)
    blurred = filters.gaussian(x, sigma).numpy()
    radius = max(1, int(np.ceil(3 * sigma)))
    for image, plane in np.ndindex(3, 2):
        # scipy's "mirror" is torch's "reflect": the border pixel is not repeated
        expected = ndimage.gaussian_filter(x[image, plane].numpy(), sigma, mode="mirror", radius=radius)
        np.testing.assert_allclose(blurred[image, plane], expected, atol=1e-5)


def test_planes_smaller_than_the_kernel_repeat_their_border():
    x = planes(1, 1, 5, 5)
    blurred = filters.gaussian(x, 3.0)[0, 0].numpy()
    expected = ndimage.gaussian_filter(x[0, 0].numpy(), 3.0, mode="nearest", radius=9)
    np.testing.assert_allclose(blurred, expected, atol=1e-5)


def test_derivatives_of_a_slope_a_bowl_and_a_constant():
    sigma, inner = 2.0, slice(8, -8)
    r, c = np.mgrid[:48, :48].astype(np.float32)
    stack = torch.from_numpy(np.stack([0.3 * c, 0.2 * r, 0.01 * (r**2 + c**2), np.full_like(r, 7.0)])[None])
    dy, dx, laplacian = (d.numpy()[0, :, inner, inner] for d in filters.gaussian_derivatives(stack, sigma))
    cut_short = 0.03  # the kernel ends at three sigma
    np.testing.assert_allclose(dx[0], sigma * 0.3, rtol=cut_short)
    np.testing.assert_allclose(dy[1], sigma * 0.2, rtol=cut_short)
    np.testing.assert_allclose(dy[0], 0, atol=1e-4)
    np.testing.assert_allclose(laplacian[:2], 0, atol=1e-3)
    np.testing.assert_allclose(laplacian[2], sigma**2 * 0.04, rtol=0.1)
    np.testing.assert_allclose(np.stack([dy, dx, laplacian])[:, 3], 0, atol=1e-4)


def test_a_disk_answers_most_at_the_scale_that_fits_it():
    r, c = np.mgrid[:65, :65] - 32
    disk = torch.from_numpy((np.hypot(r, c) <= 6).astype(np.float32))[None, None]
    answers = [-float(filters.gaussian_derivatives(disk, s)[2][0, 0, 32, 32]) for s in (2.0, 6 / 2**0.5, 8.0)]
    assert answers[1] > max(answers[0], answers[2]) > 0


def test_coherence_knows_stripes_from_noise_at_any_angle():
    r, c = np.mgrid[:64, :64]
    stripes = [np.sin(0.6 * (np.cos(a) * c + np.sin(a) * r)) for a in (0, 0.7, np.pi / 2)]
    x = torch.from_numpy(np.stack([*stripes, RNG.standard_normal((64, 64))]).astype(np.float32)[None])
    dy, dx, _ = filters.gaussian_derivatives(x, 1.0)
    local, overall = (v.numpy()[0] for v in filters.structure_coherence(dy, dx, 3.0))
    assert (local[:3] > 0.9).all()
    assert (overall[:3] > 0.8).all()
    assert local[3] < 0.6
    assert overall[3] < 0.2


def _slow_patterns(plane, radius):
    diagonal = max(1, round(radius / np.sqrt(2)))
    ring = [(0, radius), (diagonal, diagonal), (radius, 0), (diagonal, -diagonal)]
    ring += [(-a, -b) for a, b in ring]
    counts = np.zeros(10)
    rows, cols = plane.shape
    for r in range(radius, rows - radius):
        for c in range(radius, cols - radius):
            bits = [plane[r + dr, c + dc] >= plane[r, c] for dr, dc in ring]
            changes = sum(bits[i] != bits[i - 1] for i in range(8))
            counts[sum(bits) if changes <= 2 else 9] += 1
    return counts / counts.sum()


@pytest.mark.parametrize("radius", [1, 3])
def test_patterns_are_those_of_a_plain_loop(radius):
    x = planes(2, 1, 18, 21)
    found = filters.uniform_patterns(x, radius).numpy()
    for i in range(2):
        np.testing.assert_allclose(found[i], _slow_patterns(x[i, 0].numpy(), radius), atol=1e-6)


def test_patterns_do_not_change_when_the_plane_is_turned():
    x = planes(1, 1, 32, 32)
    for turned in (x.rot90(1, (2, 3)), x.flip(2), x.flip(3)):
        np.testing.assert_array_equal(filters.uniform_patterns(turned, 2), filters.uniform_patterns(x, 2))


def test_peaks_are_the_largest_of_their_window():
    x = planes(1, 1, 20, 20)
    plane = x[0, 0].numpy()
    expected = plane == ndimage.maximum_filter(plane, size=7, mode="constant", cval=-np.inf)
    np.testing.assert_array_equal(filters.peaks(x, 3)[0, 0].numpy(), expected)


def test_spread_and_quantiles():
    x = planes(2, 3, 31, 17)
    np.testing.assert_allclose(filters.spread(x), x.numpy().std((2, 3)), rtol=1e-5)
    shares = (0.05, 0.5, 0.95)
    expected = np.quantile(x.numpy().reshape(2, 3, -1), shares, axis=2, method="nearest")
    np.testing.assert_array_equal(filters.quantiles(x, shares), np.moveaxis(expected, 0, 2))


def test_quantiles_of_a_large_plane_are_taken_from_a_quarter_of_it():
    r, c = np.mgrid[:128, :128]
    x = torch.from_numpy((r + c).astype(np.float32))[None, None]
    exact = np.quantile(x.numpy(), [0.05, 0.5, 0.95])
    np.testing.assert_allclose(filters.quantiles(x, (0.05, 0.5, 0.95))[0, 0], exact, atol=2)


def test_of_equal_peaks_one_is_found_whatever_rounding_says():
    x = torch.zeros(1, 1, 12, 12)
    x[0, 0, 5, 5:7] = 1.0  # the middle of a mirrored picture
    for noise in (0.0, 1e-7, -1e-7):
        x[0, 0, 5, 5] = 1.0 + noise
        assert (filters.peaks(x, 2) & (x > 0.5)).nonzero().tolist() == [[0, 0, 5, 6]]


def test_patterns_of_flat_ground_do_not_hear_rounding():
    flat = torch.full((1, 1, 20, 20), 0.3)
    noisy = flat + 1e-7 * torch.randn(flat.shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(filters.uniform_patterns(noisy, 2), filters.uniform_patterns(flat, 2))
