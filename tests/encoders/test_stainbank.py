"""The built-in encoder on painted tissue: what it counts is there, and nothing else moves it."""

import numpy as np
import pytest
import torch

from chrep_model.encoders.stainbank import Stainbank, names
from chrep_model.slides.stain import RUIFROK

NAMES = names()
STAINS = RUIFROK / np.linalg.norm(RUIFROK, axis=1, keepdims=True)
UM = 150.0
UNMIX = np.linalg.inv(np.vstack([STAINS, np.cross(*STAINS) / np.linalg.norm(np.cross(*STAINS))]))


def bank(mpp):
    return Stainbank(mpp, torch.from_numpy(UNMIX), torch.tensor([1.2, 0.6]))


def numbers(tile, mpp):
    """Numbers of one tile by name."""
    row = bank(mpp)(torch.from_numpy(tile[None])).numpy()[0]
    return dict(zip(NAMES, row, strict=True))


def paint(nuclei, mpp, radius=3.0, seed=0, smooth=4):
    """A tile of eosin with round nuclei, drawn in µm: the same picture at any µm per px."""
    rng = np.random.default_rng(seed)
    centres = np.empty((0, 2))
    while len(centres) < nuclei:
        new = rng.uniform(1.5 * radius, UM - 1.5 * radius, 2)
        if (np.hypot(*(centres - new).T) > 3 * radius).all():
            centres = np.vstack([centres, new])
    px = round(UM / mpp)
    at = (np.arange(px * smooth) + 0.5) * UM / (px * smooth)
    haematoxylin = np.zeros((px * smooth, px * smooth))
    for y, x in centres:
        far = np.hypot(at[:, None] - y, at[None] - x) - radius
        haematoxylin = np.maximum(haematoxylin, 0.9 / (1 + np.exp(far / 0.4)))
    light = 10 ** -(haematoxylin[..., None] * STAINS[0] + 0.25 * STAINS[1])
    light = light.reshape(px, smooth, px, smooth, 3).mean((1, 3))
    return np.rint(255 * light).astype(np.uint8)


@pytest.fixture(scope="module")
def varied():
    """Seven different tiles of 224 px: nuclei few and many, noise, a slope, stripes."""
    rng = np.random.default_rng(1)
    tiles = [paint(n, UM / 224, seed=n, smooth=1) for n in (3, 20, 60)]
    tiles.append(rng.integers(90, 250, (224, 224, 3), dtype=np.uint8))
    slope = np.linspace(120, 250, 224)[:, None, None] * np.array([1.0, 0.8, 0.95])
    tiles.append(np.broadcast_to(slope, (224, 224, 3)).astype(np.uint8))
    stripes = 180 + 60 * np.sin(np.arange(224) / 5)[None, :, None] * np.array([1.0, 1.0, 0.5])
    tiles.append(np.broadcast_to(stripes, (224, 224, 3)).astype(np.uint8))
    tiles.append(np.roll(tiles[2], 60, axis=0))
    return np.stack(tiles)


def test_every_number_has_one_name(varied):
    assert len(set(NAMES)) == len(NAMES)
    assert bank(UM / 224)(torch.from_numpy(varied)).shape == (7, len(NAMES))


@pytest.mark.parametrize("px", [24, 61, 224])
@pytest.mark.parametrize("kind", ["white", "black", "noise", "one colour"])
def test_numbers_are_finite_on_any_tile(kind, px):
    rng = np.random.default_rng(0)
    tile = {
        "white": np.full((px, px, 3), 255),
        "black": np.zeros((px, px, 3)),
        "noise": rng.integers(0, 256, (px, px, 3)),
        "one colour": np.broadcast_to([200, 120, 180], (px, px, 3)),
    }[kind].astype(np.uint8)
    row = numbers(tile, UM / px)
    assert np.isfinite(list(row.values())).all()
    assert max(map(abs, row.values())) < 100


def test_glass_is_empty(varied):
    glass = numbers(np.full((224, 224, 3), 255, np.uint8), UM / 224)
    assert glass["haematoxylin mean"] == pytest.approx(0, abs=1e-6)
    assert glass["bare share"] == glass["hole share"] == 1
    assert glass["nuclei per mm2 (log)"] == glass["dark share"] == glass["haematoxylin sd"] == 0


def test_numbers_do_not_depend_on_the_batch(varied):
    tiles = torch.from_numpy(np.concatenate([varied, varied[::-1], varied, varied[::-1], varied])[:32])
    module = bank(UM / 224)
    whole = module(tiles).numpy()
    alone = np.concatenate([module(tiles[i : i + 1]).numpy() for i in range(7)])
    sevens = np.concatenate([module(tiles[i : i + 7]).numpy() for i in range(0, 32, 7)])
    np.testing.assert_allclose(alone, whole[:7], atol=1e-5)
    np.testing.assert_allclose(sevens, whole, atol=1e-5)


@pytest.mark.parametrize(
    "turn",
    [lambda x: x.rot90(1, (1, 2)), lambda x: x.rot90(2, (1, 2)), lambda x: x.flip(1), lambda x: x.flip(2)],
    ids=["90", "180", "up-down", "left-right"],
)
def test_turning_the_tile_changes_next_to_nothing(varied, turn):
    tiles = torch.from_numpy(varied)
    module = bank(UM / 224)
    upright, turned = module(tiles).numpy(), module(turn(tiles).contiguous()).numpy()
    # Quantiles look at every fourth pixel, and those are others in a turned tile; nothing else may move.
    sampled = np.array([" q" in name for name in NAMES])
    np.testing.assert_allclose(turned[:, ~sampled], upright[:, ~sampled], atol=2e-4)
    np.testing.assert_allclose(turned[:, sampled], upright[:, sampled], atol=0.05)


def test_it_counts_the_nuclei_that_were_painted():
    counts = (0, 5, 10, 20, 40, 80)
    mm2 = (UM / 1000) ** 2
    found = [np.expm1(numbers(paint(n, UM / 224), UM / 224)["nuclei per mm2 (log)"]) * mm2 for n in counts]
    np.testing.assert_allclose(found, counts, rtol=0.12, atol=0.1)
    assert (np.diff(found) > 0).all()


def test_crowded_nuclei_are_counted_one_by_one():
    mm2 = (UM / 1000) ** 2
    row = numbers(paint(180, UM / 224, radius=1.8), UM / 224)  # some 6 µm apart
    assert np.expm1(row["nuclei per mm2 (log)"]) * mm2 == pytest.approx(180, rel=0.1)


@pytest.mark.parametrize(("radius", "nuclei"), [(2.0, 40), (4.0, 40), (8.0, 12)])
def test_it_tells_small_nuclei_from_large_ones(radius, nuclei):
    row = numbers(paint(nuclei, UM / 224, radius), UM / 224)
    shares = {r: row[f"nuclei of {r} µm radius, share"] for r in (2.0, 4.0, 7.9)}
    assert shares[min(shares, key=lambda r: abs(r - radius))] > 0.9
    assert sum(shares.values()) == pytest.approx(1, abs=1e-5)


def test_what_it_says_is_in_um_and_not_in_pixels():
    """The same picture at two resolutions: closer than another picture by far."""
    coarse, fine, other = paint(40, 0.5), paint(40, 0.25, smooth=2), paint(20, 0.5, radius=5.0, seed=9)
    at_coarse, at_fine, elsewhere = numbers(coarse, 0.5), numbers(fine, 0.25), numbers(other, 0.5)
    # The finest patterns and chromatin show what a coarser scan cannot; all else is the tissue's.
    scale_free = [n for n in NAMES if "pattern fine" not in n and not n.endswith(" 0.7 µm")]
    moved = np.array([abs(at_coarse[n] - at_fine[n]) for n in scale_free])
    apart = np.array([abs(at_coarse[n] - elsewhere[n]) for n in scale_free])
    assert np.median(moved) < 0.01
    assert (moved < 0.5 * apart + 0.02).mean() > 0.9
    for name in ("haematoxylin mean", "eosin mean", "dark share", "nuclei per mm2 (log)", "haematoxylin sd"):
        assert at_coarse[name] == pytest.approx(at_fine[name], abs=0.05), name


def test_stronger_staining_is_divided_out():
    tile = paint(20, UM / 224)
    pale = np.rint(255 * (tile / 255.0) ** 0.6).astype(np.uint8)  # all densities 0.6 times as strong
    module = Stainbank(UM / 224, torch.from_numpy(UNMIX), 0.6 * torch.tensor([1.2, 0.6]))
    weak = dict(zip(NAMES, module(torch.from_numpy(pale[None])).numpy()[0], strict=True))
    strong = numbers(tile, UM / 224)
    for name in ("haematoxylin mean", "eosin mean", "haematoxylin q95", "nuclear haematoxylin mean"):
        assert weak[name] == pytest.approx(strong[name], abs=0.03), name
