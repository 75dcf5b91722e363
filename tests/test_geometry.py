import pickle

import numpy as np
import pytest

from chrep_model import errors, geometry
from chrep_model.geometry import Rect

RNG = np.random.default_rng(0)


def test_rect_edges_and_centre():
    rect = Rect(10, 20, 30, 40)
    assert (rect.right, rect.bottom) == (40, 60)
    assert rect.centre == (25, 40)
    assert Rect.around(*rect.centre, rect.width, rect.height) == rect


def test_rect_intersection_is_symmetric_and_none_on_touch():
    a, b = Rect(0, 0, 10, 10), Rect(5, 8, 10, 10)
    assert a.intersection(b) == b.intersection(a) == Rect(5, 8, 5, 2)
    assert a.intersection(Rect(10, 0, 5, 5)) is None
    assert a.intersection(Rect(50, 50, 5, 5)) is None
    assert a.intersection(a) == a


def test_rect_expanded_keeps_the_centre_and_never_turns_inside_out():
    rect = Rect(10, 20, 30, 40)
    assert rect.expanded(5) == Rect(5, 15, 40, 50)
    assert rect.expanded(-100) == Rect(25, 40, 0, 0)


def test_axes_swap_and_come_back():
    xy = RNG.normal(size=(50, 2))
    rc = geometry.xy_to_rowcol(xy)
    np.testing.assert_array_equal(rc[:, 0], xy[:, 1])
    np.testing.assert_array_equal(geometry.rowcol_to_xy(rc), xy)


@pytest.mark.parametrize("downsample", [1.0, 1.5, 4.00012, 16.0005, 64])
def test_levels_come_back(downsample):
    xy = RNG.uniform(0, 1e5, size=(50, 2))
    there = geometry.base_to_level(xy, downsample)
    np.testing.assert_allclose(there * downsample, xy, rtol=1e-12)


def test_corners_stay_on_corners():
    # The far corner of the coarse image is the far corner of the slide: no half-pixel shift between levels.
    np.testing.assert_allclose(geometry.base_to_level([[0, 0], [1000, 400]], 4.0), [[0, 0], [250, 100]])


def test_um_and_px_come_back():
    assert geometry.um_to_px(100, 0.5) == 200
    assert geometry.px_to_um(geometry.um_to_px(123.4, 0.263), 0.263) == pytest.approx(123.4)


@pytest.mark.parametrize("bad", [[1, 2], [[1, 2, 3]], 5.0, np.zeros((0, 3))])
def test_coordinates_of_another_shape_are_refused(bad):
    with pytest.raises(ValueError, match="shape"):
        geometry.xy_to_rowcol(bad)


def test_overlay_pixel_lies_on_its_tile():
    step, tile, mpp, origin = 150.5, 301.0, 0.4990, (12.0, 7.0)
    scale, translate = geometry.overlay_transform(step, tile, mpp, origin)
    for row, col in [(0, 0), (3, 5), (40, 1)]:
        world = np.array(translate) + np.array(scale) * (row, col)
        # The slide itself is shown with scale mpp and no translation, its pixel i centred on i * mpp.
        centre_px = np.array([origin[1] + row * step + tile / 2, origin[0] + col * step + tile / 2])
        np.testing.assert_allclose(world, (centre_px - 0.5) * mpp)


def test_overlay_of_single_pixel_tiles_is_the_slide():
    assert geometry.overlay_transform(1, 1, 0.25) == ((0.25, 0.25), (0.0, 0.0))


def test_error_says_where_what_and_what_to_do(tmp_path):
    error = errors.SlideError("cannot be read.", path=tmp_path / "a.svs", remedy="Copy it again.")
    assert str(error) == f"{tmp_path / 'a.svs'}: cannot be read. Copy it again."
    assert str(errors.GeneError("unknown gene")) == "unknown gene"


def test_error_survives_another_process():
    error = errors.ScaleError("no scale", path="a.png", remedy="Give --mpp.")
    back = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert type(back) is errors.ScaleError
    assert (str(back), back.path, back.remedy) == (str(error), "a.png", "Give --mpp.")


def test_error_is_one_line_without_terminal_codes():
    text = str(errors.SlideError("bad\nnews \x1b[31m", path="a\nb.svs"))
    assert text.isprintable()
