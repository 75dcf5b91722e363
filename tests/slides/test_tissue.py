import numpy as np
import pytest
from scipy.spatial import cKDTree

from chrep_model.slides.slide import open_slide
from chrep_model.slides.tiles import TileGrid, TileSpec
from chrep_model.slides.tissue import TissueMask, find_tissue, tissue_mask

RNG = np.random.default_rng(0)
SECTIONS = [f"her2st/C{i}" for i in (2, 5)] + ["her2st_lowres/A1", "mob_stahl2016/MOB_Rep11"]
SECTIONS += [f"mob_stutility/MOB{i}" for i in (1, 2, 3)]
GLASS, NUCLEUS, STROMA = (244, 240, 244), (90, 60, 140), (225, 160, 200)


def _glass(rows=200, cols=200, colour=GLASS, noise=1.0):
    return np.clip(np.array(colour) + RNG.normal(0, noise, (rows, cols, 3)), 0, 255).astype(np.uint8)


def _add_section(image, rows, cols):
    """Paint stroma with scattered nuclei."""
    part = image[rows, cols]
    part[:] = STROMA
    part[RNG.random(part.shape[:2]) < 0.3] = NUCLEUS


def test_section_is_found_and_glass_is_not():
    image = _glass()
    _add_section(image, slice(60, 140), slice(50, 150))
    mask = find_tissue(image, 16.0)
    truth = np.zeros((200, 200), bool)
    truth[60:140, 50:150] = True
    assert (mask & truth).sum() / (mask | truth).sum() > 0.93


@pytest.mark.parametrize("colour", [GLASS, (236, 205, 228), (255, 255, 255), (0, 0, 0), (128, 128, 128)])
def test_empty_pictures_have_no_tissue(colour):
    assert not find_tissue(_glass(colour=colour, noise=0.5), 16.0).any()


def test_pink_wash_and_grey_frames_are_no_tissue():
    image = _glass().astype(float)
    wash = 40 * np.exp(-(((np.mgrid[:200, :200] - 100) / 40.0) ** 2).sum(0))
    image[..., 1] -= wash
    image[:25, 20:90] = 120  # a printed frame, sharp-edged
    image = image.clip(0, 255).astype(np.uint8)
    assert not find_tissue(image, 16.0).any()


@pytest.mark.parametrize("level", [0, 6, 15, 25, 40])
@pytest.mark.parametrize("noise", [0.5, 6.0, 12.0])
def test_a_black_canvas_is_no_tissue_however_noisy(level, noise):
    """Cut-outs and registered pictures lie on black, which JPEG and rescaling make uneven."""
    section = _glass(120, 120)
    _add_section(section, slice(30, 90), slice(30, 90))
    canvas = _glass(240, 240, colour=(level, level, level + 4), noise=noise)
    canvas[60:180, 60:180] = section
    mask = find_tissue(canvas, 16.0)
    assert not mask[:58].any() and not mask[182:].any() and not mask[:, :58].any() and not mask[:, 182:].any()
    alone = find_tissue(section, 16.0)
    np.testing.assert_array_equal(mask[70:170, 70:170], alone[10:110, 10:110])


def test_a_picture_full_of_tissue_is_all_tissue():
    image = _glass()
    _add_section(image, slice(None), slice(None))
    assert find_tissue(image, 16.0).mean() > 0.99


def test_smooth_but_stained_is_tissue_and_dust_is_not():
    image = _glass()
    image[80:120, 80:120] = (200, 90, 150)  # colloid
    image[30:34, 30:34] = (40, 40, 45)
    image[150:153, 150:153] = NUCLEUS
    mask = find_tissue(image, 16.0)
    assert mask[85:115, 85:115].all()
    assert not mask[:60].any()
    assert not mask[140:].any()


def test_fraction_is_the_covered_area():
    mask = TissueMask(RNG.random((40, 30)) < 0.5, 10.0)
    fine = np.kron(mask.mask, np.ones((10, 10)))
    for x, y, size in [
        (100, 200, 60),
        (157, 203, 34),
        (5, 5, 20),
        (299, 399, 50),
        (150, 200, 1000),
        (-90, 50, 20),
    ]:
        left, top = x - size / 2, y - size / 2
        inside = fine[
            max(0, int(top)) : max(0, int(top + size)), max(0, int(left)) : max(0, int(left + size))
        ]
        expected = inside.sum() / size**2
        np.testing.assert_allclose(mask.fraction([[x, y]], size), [expected], atol=1e-5)
    # Fractions of pixels count as such.
    one = TissueMask(np.array([[True, False]]), 10.0)
    np.testing.assert_allclose(one.fraction([[10, 5], [8.5, 5]], 4.0), [0.5, 0.875])
    assert mask.fraction(np.zeros((0, 2)), 5.0).shape == (0,)


def test_grid_keeps_the_tiles_on_tissue():
    mask = np.zeros((100, 100), bool)
    mask[:50, :50] = True
    grid = TileGrid((1000, 1000), 0.5, TileSpec(0.5, 100))
    tissue = grid.tissue(TissueMask(mask, 10.0))
    np.testing.assert_array_equal(tissue, [r * 10 + c for r in range(5) for c in range(5)])
    assert tissue.dtype == np.int64


@pytest.mark.real
@pytest.mark.parametrize("known_scale", [True, False])
@pytest.mark.parametrize("section", SECTIONS)
def test_measured_spots_are_on_tissue_and_glass_is_not(shared_data, section, known_scale):
    import anndata

    spots = anndata.read_h5ad(shared_data / f"{section}.h5ad")
    xy, mpp = np.asarray(spots.obsm["spatial"], float), float(spots.uns["um_per_px"])
    with open_slide(shared_data / f"{section}.jpg", mpp=mpp if known_scale else None) as slide:
        found = tissue_mask(slide)
    rows, cols = found.mask.shape
    col, row = np.clip((xy / found.downsample).astype(int), 0, [cols - 1, rows - 1]).T
    assert found.mask[row, col].mean() >= 0.97
    assert (found.fraction(xy, 100 / mpp) >= 0.25).mean() >= 0.97
    # Two spots away from every spot there is next to nothing but glass.
    grid = np.stack(np.meshgrid(np.arange(cols) + 0.5, np.arange(rows) + 0.5), -1).reshape(-1, 2)
    far = cKDTree(xy).query(grid * found.downsample)[0] > 2 * float(spots.uns["spot_pitch_px"])
    assert found.mask.ravel()[far].mean() < 0.005


@pytest.mark.real
def test_real_svs_has_tissue_and_glass(shared_data):
    with open_slide(shared_data / "slides" / "CMU-1-Small-Region.svs") as slide:
        found = tissue_mask(slide)
    assert slide.require_mpp() * found.downsample == pytest.approx(16, rel=0.02)
    assert 0.3 < found.mask.mean() < 0.6
    assert found.mask[-10:, 20:45].mean() > 0.9  # the dermis
    assert not found.mask[:60, -5:].any()


@pytest.mark.slow
def test_large_pictures_take_a_few_bytes_for_each_pixel(growth_mb):
    """Numbers in double precision of every pixel and colour would take 24, and there are several."""
    setup = """
from chrep_model.slides.tissue import TissueMask, find_tissue
rng = np.random.default_rng(0)
image = np.full((4000, 4000, 3), (244, 240, 244), np.uint8)
image[500:3500, 500:3500] = rng.choice(np.array([(90, 60, 140), (225, 160, 200)], np.uint8), (3000, 3000))
find_tissue(image[:600, :600], 16.0)
"""
    measured = "TissueMask(find_tissue(image, 16.0), 1.0).fraction(np.zeros((9, 2)), 5.0)"
    assert growth_mb(setup, measured) < 20 * 16
