"""Pictures of places: read in a worker, kept, and dropped when nobody wants them any more."""

from __future__ import annotations

import numpy as np
import pytest

from chrep_model.slides.slide import open_slide
from chrep_model.slides.tiles import TileReader, TileSpec
from napari_chrep.neighbours.pictures import Pictures, Place
from napari_chrep.neighbours.training_images import SectionImage

SPEC = TileSpec(1.0, 64)


@pytest.fixture
def image(write_tissue):
    return SectionImage(write_tissue(), 0.7)


@pytest.fixture
def pictures(qtbot):
    made = Pictures()
    made.seen, made.lost = {}, {}
    made.arrived.connect(lambda place, picture: made.seen.update({place: picture}))
    made.failed.connect(lambda place, why: made.lost.update({place: why}))
    yield made
    made.stop()
    qtbot.wait(50)


def test_they_are_what_the_model_reads(pictures, image, qtbot):
    places = [Place(image, (200.0, 300.0)), Place(image, (411.5, 95.0))]
    pictures.request(places, SPEC)
    qtbot.waitUntil(lambda: not pictures.busy, timeout=10_000)
    with open_slide(image.path) as slide:
        expected = TileReader(slide, SPEC).read([(x / 0.7, y / 0.7) for x, y in (p.xy_um for p in places)])
    assert set(pictures.seen) == set(places)
    for place, tile in zip(places, expected, strict=True):
        np.testing.assert_array_equal(pictures.seen[place], tile)


def test_a_picture_is_read_once(pictures, image, qtbot):
    place = Place(image, (200.0, 300.0))
    pictures.request([place], SPEC)
    qtbot.waitUntil(lambda: not pictures.busy, timeout=10_000)
    first = pictures.seen.pop(place)
    image.path.unlink()
    pictures.request([place], SPEC)
    assert not pictures.busy
    assert pictures.seen[place] is first


def test_one_that_cannot_be_read_does_not_stop_the_others(pictures, image, tmp_path, qtbot):
    gone, there = Place(SectionImage(tmp_path / "gone.jpg", 0.7), (50.0, 50.0)), Place(image, (50.0, 50.0))
    coarse = Place(SectionImage(image.path, 7.0), (50.0, 50.0))
    pictures.request([gone, coarse, there], SPEC)
    qtbot.waitUntil(lambda: not pictures.busy, timeout=10_000)
    assert list(pictures.seen) == [there]
    assert "gone.jpg" in pictures.lost[gone]
    assert "too coarse" in pictures.lost[coarse]


def test_what_nobody_wants_any_more_is_not_told(pictures, image, qtbot):
    former = [Place(image, (float(x), 100.0)) for x in range(50, 450, 5)]
    wanted = Place(image, (333.0, 333.0))
    pictures.request(former, SPEC)
    pictures.request([wanted], SPEC)
    qtbot.waitUntil(lambda: not pictures.busy, timeout=10_000)
    qtbot.wait(100)
    assert list(pictures.seen) == [wanted]
