"""Which points lie in what was drawn."""

from __future__ import annotations

import numpy as np
import pytest

from chrep_model.errors import SettingsError
from chrep_model.geometry import Rect
from chrep_model.slides.region import Region


def polygon(*corners):
    return np.array(corners, float)


#: A U: two towers with a gap between x = 4 and x = 6, above y = 8.
U = polygon((0, 0), (4, 0), (4, 8), (6, 8), (6, 0), (10, 0), (10, 10), (0, 10))


def test_a_concave_outline():
    points = [(2, 2), (5, 4), (8, 2), (5, 9), (11, 5), (-1, 5), (5, -1)]
    assert Region([U]).contains(points).tolist() == [True, False, True, True, False, False, False]
    assert Region([U[::-1]]).contains(points).tolist() == Region([U]).contains(points).tolist()


def test_it_agrees_with_another_library():
    from matplotlib.path import Path

    rng = np.random.default_rng(0)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 40))
    star = 50 + np.stack([np.cos(angles), np.sin(angles)], 1) * rng.uniform(10, 50, (40, 1))
    points = rng.uniform(0, 100, (2000, 2))
    np.testing.assert_array_equal(Region([star]).contains(points), Path(star).contains_points(points))


def test_several_outlines_add_up():
    square = polygon((20, 0), (30, 0), (30, 10), (20, 10))
    overlapping = polygon((25, 5), (35, 5), (35, 15), (25, 15))
    region = Region([square, overlapping])
    assert region.contains([(21, 1), (27, 7), (34, 14), (34, 1)]).tolist() == [True, True, True, False]
    assert region.bounds == Rect(20, 0, 15, 15)


def test_what_is_no_region_is_refused():
    with pytest.raises(SettingsError, match="no outline"):
        Region([])
    with pytest.raises(SettingsError, match="three corners"):
        Region([polygon((0, 0), (1, 1))])
    with pytest.raises(SettingsError, match="crosses itself"):
        Region([U, polygon((0, 0), (10, 10), (10, 0), (0, 10))])


def test_a_closed_outline_and_repeated_corners_do_no_harm():
    closed = polygon((0, 0), (0, 0), (10, 0), (10, 10), (0, 10), (0, 0))
    assert Region([closed]).contains([(5, 5), (15, 5)]).tolist() == [True, False]
