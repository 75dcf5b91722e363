"""A Space Ranger folder dropped on the window: its picture with the measured spots over it, or the reason."""

from __future__ import annotations

import numpy as np
import pytest
from napari.utils.notifications import notification_manager

from chrep_model.cohorts.section import read_section
from chrep_model.errors import CohortError
from napari_chrep.canvas.measured_spots import SECTION_KEY
from napari_chrep.canvas.spots_layer import SpotsLayer
from napari_chrep.io.reader import get_reader, read_source
from napari_chrep.state.viewers import kept_for

TIMEOUT_MS = 60_000


def test_an_outs_folder_becomes_its_picture_and_its_spots(desk, qtbot, make_outs):
    made = make_outs()
    truth = kept_for(desk.viewer, SpotsLayer)
    desk.drop(made.outs)
    qtbot.waitUntil(lambda: len(desk.viewer.layers) == 2, timeout=TIMEOUT_MS)
    slide, spots = desk.viewer.layers
    section = read_section(None, made.outs)
    assert slide.name == "A" and slide.rgb and slide.scale[-1] == section.mpp
    assert spots.name == "A total counts" and tuple(spots.scale) == tuple(slide.scale)
    np.testing.assert_allclose(spots.data[:, ::-1] + 0.5, section.xy)
    np.testing.assert_allclose(spots.size, section.spot_diameter_px)
    totals = made.counts.loc[list(section.spot_ids)].sum(axis=1).to_numpy()
    assert spots.features["total counts"].tolist() == totals.tolist()
    # Brighter for more counts, and so it stays once the spots are those of the slide that is looked at.
    desk.session.set_slide_layer(slide)
    qtbot.waitUntil(lambda: truth.measured is not None and not truth.busy, timeout=TIMEOUT_MS)
    qtbot.wait(250)
    assert truth.layer is spots and spots.name == "A total counts"
    green = spots.face_color[:, 1]
    assert (spots.face_color[:, 3] == 1).all() and np.corrcoef(green, np.log10(1 + totals))[0, 1] > 0.95


def test_a_folder_without_its_picture_is_refused_in_words(desk, qtbot, make_outs):
    made = make_outs(picture=False)
    notification_manager.records.clear()  # of the tests before
    desk.drop(made.outs.parent)
    qtbot.waitUntil(lambda: len(notification_manager.records) > 0, timeout=TIMEOUT_MS)
    said = notification_manager.records[-1].message
    assert "full-resolution picture is not here" in said and "--image" in said
    assert len(desk.viewer.layers) == 0


def test_without_a_viewer_layers_are_given_or_the_reason(make_outs):
    made = make_outs()
    assert get_reader(made.outs) is read_source and get_reader(made.outs.parent) is read_source
    (_, image, _), (_, points, kind) = read_source(made.outs)
    assert image["name"] == "A" and kind == "points"
    assert points["metadata"][SECTION_KEY].counts_path == made.outs
    made.picture.unlink()
    with pytest.raises(CohortError, match="full-resolution picture is not here"):
        read_source(made.outs)
