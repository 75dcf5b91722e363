"""Stain colours found again in mixtures of known ones; standard colours where there is nothing to find."""

import numpy as np
import pytest

from chrep_model.slides.stain import RUIFROK, fit_stains, optical_density

STANDARD = RUIFROK / np.linalg.norm(RUIFROK, axis=1, keepdims=True)


def mixture(colours, seed=0, strength=(1.0, 1.0), tiles=4, px=128):
    """Tiles of two dyes in random amounts: nuclei mostly haematoxylin, the rest mostly eosin."""
    rng = np.random.default_rng(seed)
    nucleus = rng.random((tiles, px, px)) < 0.35
    h = np.where(nucleus, rng.gamma(8, 0.09, nucleus.shape), rng.gamma(1.2, 0.02, nucleus.shape))
    e = np.where(nucleus, rng.gamma(1.2, 0.02, nucleus.shape), rng.gamma(8, 0.05, nucleus.shape))
    density = (strength[0] * h)[..., None] * colours[0] + (strength[1] * e)[..., None] * colours[1]
    light = 256 * 10**-density - 1 + rng.normal(0, 1, density.shape)
    return np.clip(np.rint(light), 0, 255).astype(np.uint8)


def colours_of(fit):
    """Haematoxylin and eosin, rows of unit length, from the unmixing matrix."""
    return np.linalg.inv(fit.unmix.astype(np.float64))[:2]


def degrees(a, b):
    return np.degrees(np.arccos(np.clip((a * b).sum(1), -1, 1)))


def test_optical_density():
    density = optical_density(np.array([255, 0, 127, 24], np.uint8))
    np.testing.assert_allclose(density, np.log10([1, 256, 2, 10.24]), atol=1e-6)


@pytest.mark.parametrize("turn", [(0, 0), (0.06, -0.05), (-0.05, 0.06)], ids=["standard", "bluer", "redder"])
def test_known_colours_are_found_again(turn):
    colours = STANDARD + np.array([[turn[0], 0, -turn[0]], [0.05 + turn[1], -0.1, turn[1] + 0.08]])
    colours /= np.linalg.norm(colours, axis=1, keepdims=True)
    fit = fit_stains(mixture(colours))
    assert fit.source == "macenko"
    assert (degrees(colours_of(fit), colours) < 6).all()
    # and closer than the standard ones would have been, where these are other colours
    if turn != (0, 0):
        assert degrees(colours_of(fit), colours).sum() < degrees(STANDARD, colours).sum()


def test_unmixing_gives_back_the_amounts():
    fit = fit_stains(mixture(STANDARD))
    rng = np.random.default_rng(1)
    amounts = rng.uniform(0.1, 0.8, (500, 2))
    pixels = np.clip(np.rint(256 * 10 ** -(amounts @ STANDARD) - 1), 0, 255).astype(np.uint8)
    found = optical_density(pixels) @ fit.unmix
    for stain in range(2):
        assert np.corrcoef(found[:, stain], amounts[:, stain])[0, 1] > 0.98
    assert np.abs(found[:, 2]).mean() < 0.05  # nothing is left over


def test_strength_follows_the_staining():
    dark, pale = fit_stains(mixture(STANDARD)), fit_stains(mixture(STANDARD, strength=(0.6, 0.6)))
    np.testing.assert_allclose(pale.strength / dark.strength, 0.6, atol=0.06)
    np.testing.assert_allclose(dark.strength, [1.4, 0.75], atol=0.25)  # 99th percentiles of the gammas


def test_the_same_tiles_give_the_same_fit():
    tiles = mixture(STANDARD)
    first, again = fit_stains(tiles), fit_stains(tiles.copy())
    np.testing.assert_array_equal(first.unmix, again.unmix)
    np.testing.assert_array_equal(first.strength, again.strength)


@pytest.mark.parametrize("kind", ["glass", "black", "noise", "grey", "one dye", "few pixels"])
def test_without_two_dyes_the_fit_stays_usable(kind):
    rng = np.random.default_rng(0)
    shape = (2, 64, 64, 3)
    one_dye = 256 * 10 ** -(rng.uniform(0, 1, shape[:3])[..., None] * STANDARD[1]) - 1
    tiles = {
        "glass": np.full(shape, 250),
        "black": np.zeros(shape),
        "noise": rng.integers(0, 256, shape),
        "grey": np.repeat(rng.integers(0, 256, shape[:3])[..., None], 3, axis=3),
        "one dye": one_dye,
        "few pixels": mixture(STANDARD, px=4, tiles=1),
    }[kind].astype(np.uint8)
    fit = fit_stains(tiles)
    assert np.isfinite(fit.unmix).all()
    assert np.linalg.cond(fit.unmix) < 50  # the colours are two, not one
    assert (fit.strength > 0).all()
    if kind in ("glass", "black", "few pixels"):
        assert fit.source == "ruifrok"
        assert (degrees(colours_of(fit), STANDARD) < 0.1).all()
