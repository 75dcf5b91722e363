"""The bars under the buttons of the maps: what the colours on the canvas mean."""

from __future__ import annotations

import numpy as np
import pytest

from napari_chrep.genes.colour_bars import ColourBars


@pytest.fixture
def bars(desk, tiny_bundle, write_tissue):
    widget = desk.dock("Genes").maps.colour_bars
    assert widget.bars == [] and widget.isHidden()
    desk.load(tiny_bundle)
    desk.open(write_tissue())
    desk.engine.predict(None)
    desk.wait()
    desk.qtbot.waitUntil(lambda: len(widget.bars) == 1, timeout=5000)
    desk.qtbot.wait(300)  # the last refresh
    return widget


def value(text):
    return float(text.replace("−", "-"))


def test_a_bar_has_the_limits_and_the_unit_of_the_map_on_show(bars, desk):
    (bar,) = bars.bars
    layer = desk.heatmaps.layer("calibrated")
    low, high = layer.contrast_limits
    step = 10.0 ** -len(bar.low.partition(".")[2])
    assert (value(bar.low), value(bar.high)) == pytest.approx((low, high), abs=step / 2)
    assert bar.unit == "log10" and step < (high - low) / 9 and "calibrated" in bars.toolTip()
    former = desk.session.gene
    desk.session.show_gene(next(gene for gene in desk.session.bundle.genes if gene != former))
    assert bars.bars != [bar]


def test_it_follows_limits_and_colours_set_in_the_layer_controls(bars, desk):
    layer = desk.heatmaps.layer("calibrated")
    layer.contrast_limits = (-0.125, 0.25)
    assert (bars.bars[0].low, bars.bars[0].high) == ("−0.12", "0.25")
    layer.colormap = "magma"
    assert bars.bars[0].rgba[:4] == bytes((0, 0, 4, 255)) or bars.bars[0].rgba[:3] == bytes((0, 0, 3))
    desk.heatmaps.show_only("raw")
    layer.colormap = "viridis"  # of a map that is not on show any more
    assert [bar.label for bar in bars.bars] == ["raw"]


def test_maps_of_the_same_colours_share_a_bar_and_others_have_their_own(bars, desk):
    desk.heatmaps.show("raw")
    assert [bar.label for bar in bars.bars] == ["calibrated, raw"]
    one = bars.sizeHint().height()
    desk.heatmaps.show("difference")
    assert [bar.label for bar in bars.bars] == ["difference", "calibrated, raw"]
    assert bars.sizeHint().height() == 2 * one
    assert value(bars.bars[0].low) == -value(bars.bars[0].high)
    desk.heatmaps.show_only()
    assert bars.bars == [] and bars.isHidden()


def test_what_is_painted_runs_through_the_colours(bars):
    image = bars.grab().toImage()
    row = image.height() // 2
    pixels = np.array([image.pixelColor(x, row).getRgb()[:3] for x in range(image.width())])
    for colour in ((68, 1, 84), (253, 231, 37)):  # both ends of viridis
        assert np.abs(pixels - colour).max(axis=1).min() <= 12


def test_a_bar_of_a_window_that_was_closed_hears_nothing(bars, desk):
    other = ColourBars(desk.heatmaps)
    desk.qtbot.addWidget(other)
    assert other.bars == bars.bars
    other.deleteLater()
    desk.qtbot.wait(50)
    desk.heatmaps.layer("calibrated").contrast_limits = (0, 1)
    assert bars.bars[0].high == "1.0"
