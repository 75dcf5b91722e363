"""Click a tile, see the training spots behind it: a real viewer, real clicks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from napari.layers import Shapes
from qtpy.QtCore import QPoint, Qt

from chrep_model.analysis.explanation import explain
from chrep_model.analysis.tile_comparison import compare
from chrep_model.slides.tiles import TileReader
from napari_chrep.canvas.heatmaps import VARIANT_KEY
from napari_chrep.neighbours.arithmetic import number, signed
from napari_chrep.neighbours.neighbour_table import FIRST
from napari_chrep.neighbours.widget import HINT

LEFT = Qt.MouseButton.LeftButton
PLAIN = Qt.KeyboardModifier.NoModifier


class Hand:
    """Clicks on the canvas at places of the world."""

    def __init__(self, viewer, qtbot):
        self.viewer, self.qtbot = viewer, qtbot
        self.canvas = viewer.window._qt_viewer.canvas.native

    def at(self, row, col):
        """The pixel of the canvas at a place in world coordinates."""
        camera, (height, width) = self.viewer.scene.camera, self.viewer.canvas.size
        x = width / 2 + (col - camera.center[-1]) * camera.zoom
        y = height / 2 + (row - camera.center[-2]) * camera.zoom
        return QPoint(round(x), round(y))

    def click(self, row, col, modifier=PLAIN):
        self.qtbot.mouseClick(self.canvas, LEFT, modifier, self.at(row, col))

    def drag(self, start, end):
        self.qtbot.mousePress(self.canvas, LEFT, PLAIN, self.at(*start))
        for share in (0.5, 1.0):
            place = [a + share * (b - a) for a, b in zip(start, end, strict=True)]
            self.qtbot.mouseMove(self.canvas, self.at(*place))
            self.qtbot.wait(20)
        self.qtbot.mouseRelease(self.canvas, LEFT, PLAIN, self.at(*end))


@pytest.fixture
def hand(desk, qtbot):
    return Hand(desk.viewer, qtbot)


@pytest.fixture
def widget(desk):
    return desk.dock("Neighbours")


@pytest.fixture
def predicted(desk, widget, tiny_bundle, write_tissue, qtbot):
    """A slide that is predicted as a whole and has its maps, and the widget."""
    desk.open(write_tissue())
    desk.load(tiny_bundle)
    desk.engine.predict(None)
    desk.wait()
    # The maps come one each turn of the event loop; what is put on top before would lie below the last.
    qtbot.waitUntil(lambda: sum(VARIANT_KEY in layer.metadata for layer in desk.viewer.layers) == 2)
    desk.viewer.reset_view()
    return widget


def centre(desk, tile):
    """Middle of a tile in world coordinates, (row, col)."""
    (x, y), mpp = desk.session.context.grid.centres(np.array([tile]))[0], desk.session.slide.mpp.value
    return (y - 0.5) * mpp, (x - 0.5) * mpp


@pytest.fixture
def tile(desk, predicted, hand):
    """A tile that was clicked."""
    chosen = int(desk.session.prediction.indices[4])
    hand.click(*centre(desk, chosen))
    return chosen


def settle(widget, qtbot):
    qtbot.waitUntil(lambda: not widget.pictures.busy, timeout=20_000)


def test_it_says_what_to_do(widget):
    assert widget.message.text() == HINT and widget.body.isHidden()


def test_a_click_fills_it(desk, predicted, hand, qtbot):
    states = []
    desk.engine.state_changed.connect(states.append)
    for chosen in desk.session.prediction.indices[[0, 7, 12]]:
        hand.click(*centre(desk, int(chosen)))
        why = explain(desk.session.prediction, int(chosen), desk.session.gene)
        assert predicted.picked.tile == chosen
        assert not predicted.body.isHidden() and predicted.message.isHidden()
        assert predicted.tile.title.text() == f"{why.gene} {number(why.value)}"
        assert predicted.table.listed.rows == why.neighbours[:FIRST]
    assert states == []  # no model ran


def test_the_arithmetic_is_written_out(desk, predicted, tile):
    why = explain(desk.session.prediction, tile, desk.session.gene)
    rows = predicted.arithmetic.text()
    assert [row[0] for row in rows[1:]] == [
        "Mean of the gene", "Head", "Estimate", "Correction", "Linear", "Trees", "Calibrated",
    ]  # fmt: skip
    assert rows[-1][3] == number(why.value)
    for row, term in zip(rows[2:-1], why.terms, strict=True):
        assert row[1:] == [number(term.answer), number(term.weight), signed(term.contribution)]
    shown = desk.session.prediction.map(why.gene).ravel()[tile]
    assert float(rows[-1][3].replace("−", "-")) == pytest.approx(shown, abs=6e-4)
    low, high = why.interval
    assert f"{number(low)} to {number(high)}" in predicted.tile.facts.text()


def test_a_sum_below_zero_is_written_out(desk, predicted, tile):
    """The heatmap has 0 there, and the interval starts at 0."""
    why = explain(desk.session.prediction, tile, desk.session.gene)
    head, *others = why.terms
    low = replace(why, value=0.0, terms=(replace(head, contribution=head.contribution - 10), *others))
    assert low.total < 0
    predicted.arithmetic.show_explanation(low, None, 0.0)
    rows = predicted.arithmetic.text()
    assert [(row[0], row[3]) for row in rows[-2:]] == [("Sum", number(low.total)), ("Calibrated", "0.000")]
    predicted.tile.show_explanation(low, 150.0, (0.0, 0.0))
    assert f"90 % interval 0.000 to {number(low.half_width)}" in predicted.tile.facts.text()


def test_the_picture_is_the_tile_as_the_model_sees_it(desk, predicted, hand, qtbot):
    pictures = {}
    predicted.pictures.arrived.connect(lambda place, picture: pictures.update({place: picture}))
    hand.click(*centre(desk, int(desk.session.prediction.indices[4])))
    settle(predicted, qtbot)
    reader = TileReader(desk.session.slide, desk.session.bundle.spec)
    (own,) = [p for place, p in pictures.items() if place.image.path == desk.session.slide.path]
    np.testing.assert_array_equal(own, reader.read([predicted.picked.xy])[0])
    assert not predicted.tile.picture.pixmap().isNull()


def test_the_frame_is_around_the_tile(desk, predicted, tile):
    (layer,) = [la for la in desk.viewer.layers if la.name == "Picked place"]
    row, col = centre(desk, tile)
    half = desk.session.bundle.spec.um / 2
    first, last = layer.extent.world  # the middles of its outermost pixels
    np.testing.assert_allclose(first - layer.scale / 2, (row - half, col - half), atol=1e-6)
    np.testing.assert_allclose(last + layer.scale / 2, (row + half, col + half), atol=1e-6)
    assert desk.viewer.layers[-1] is layer


def test_side_by_side_the_frame_takes_no_cell(desk, predicted, tile):
    desk.viewer.canvas.grid.enabled = True
    assert "Picked place" not in [layer.name for layer in desk.viewer.layers]
    desk.viewer.canvas.grid.enabled = False
    assert "Picked place" in [layer.name for layer in desk.viewer.layers]
    assert predicted.picked.tile == tile


def test_a_drag_is_no_click(desk, predicted, hand):
    start = centre(desk, int(desk.session.prediction.indices[3]))
    hand.drag(start, (start[0] + 150, start[1] + 150))
    assert predicted.picked is None


def test_a_click_that_means_something_else(desk, predicted, hand):
    place = centre(desk, int(desk.session.prediction.indices[3]))
    hand.click(*place, Qt.KeyboardModifier.ShiftModifier)
    shapes = Shapes(name="region")
    desk.viewer.layers.append(shapes)
    desk.viewer.layers.selection.active = shapes
    shapes.mode = "add_rectangle"
    hand.click(*place)
    assert predicted.picked is None


def test_clicks_that_meet_no_value(desk, widget, hand, tiny_bundle, write_tissue):
    desk.open(write_tissue())
    desk.viewer.reset_view()
    hand.click(300, 300)
    assert "Nothing is predicted yet" in widget.message.text()
    desk.prepare(tiny_bundle, batch_size=4)
    context = desk.session.context
    part = next(desk.session.predictor.stream(context, context.tissue[:4]))
    desk.session.add_part(part)
    hand.click(*centre(desk, int(context.tissue[-1])))
    assert "not predicted yet" in widget.message.text()
    hand.click(-60, 300)
    assert "outside of the slide" in widget.message.text()
    bare = [i for i in range(context.grid.size) if i not in context.tissue]
    if bare:
        hand.click(*centre(desk, bare[0]))
        assert "no tissue" in widget.message.text()
    assert widget.body.isHidden() and widget.picked is None
    hand.click(*centre(desk, int(context.tissue[0])))
    assert widget.picked is not None


def test_another_gene(desk, predicted, tile, qtbot):
    settle(predicted, qtbot)
    gene = desk.session.bundle.genes[9]
    desk.session.show_gene(gene)
    why = explain(desk.session.prediction, tile, gene)
    assert predicted.tile.title.text() == f"{gene} {number(why.value)}"
    assert predicted.table.listed.rows == why.neighbours[:FIRST]
    assert not predicted.pictures.busy  # the pictures are those of before


def test_k_and_temperature_are_live(desk, predicted, tile, qtbot):
    prediction, gene = desk.session.prediction, desk.session.gene
    shown = prediction.map(gene)
    assert not predicted.settings.isHidden() and not predicted.settings.reset.isEnabled()
    fitted = (predicted.settings.k.value(), predicted.settings.temperature.value())
    field = predicted.settings.k.lineEdit()
    field.selectAll()
    qtbot.keyClicks(field, "5")
    qtbot.keyClick(field, Qt.Key.Key_Return)
    predicted.settings.temperature.setValue(0.5)
    why = explain(prediction, tile, gene, k=5, temperature=0.5)
    assert predicted.why.value == why.value != explain(prediction, tile, gene).value
    assert predicted.table.listed.rowCount() == 5
    assert "k = 5" in predicted.arithmetic.words.text()
    assert number(shown.ravel()[tile]) in predicted.arithmetic.words.text()
    np.testing.assert_array_equal(prediction.map(gene), shown)
    qtbot.mouseClick(predicted.settings.reset, LEFT)
    assert (predicted.settings.k.value(), predicted.settings.temperature.value()) == fitted
    assert predicted.why.value == explain(prediction, tile, gene).value
    assert "k =" not in predicted.arithmetic.words.text()


def test_all_neighbours_on_demand(predicted, tile, qtbot):
    count = len(predicted.why.neighbours)
    assert predicted.table.listed.rowCount() == FIRST < count
    qtbot.mouseClick(predicted.more, LEFT)
    assert predicted.table.listed.rowCount() == count
    weights = [n.weight for n in predicted.table.listed.rows]
    assert weights == sorted(weights, reverse=True)
    qtbot.mouseClick(predicted.more, LEFT)
    assert predicted.table.listed.rowCount() == FIRST


def test_training_images_are_located_once(desk, predicted, tile, tiny_cohort, tmp_path, qtbot):
    settle(predicted, qtbot)
    assert predicted.table.listed.pictures == 0 and not predicted.locate.isHidden()
    predicted.locate_images(tmp_path / "settings")
    assert "No image of a training section" in predicted.message.text()
    predicted.locate_images(tiny_cohort)
    settle(predicted, qtbot)
    assert predicted.table.listed.pictures == FIRST and predicted.locate.isHidden()
    desk.viewer.window.remove_dock_widget(predicted)
    again = desk.dock("Neighbours")
    Hand(desk.viewer, qtbot).click(*centre(desk, tile))
    settle(again, qtbot)
    assert again.table.listed.pictures == FIRST and again.locate.isHidden()


def test_a_neighbour_s_section_opens_at_its_spot_and_back(desk, predicted, tile, tiny_cohort, qtbot):
    slide_layer = desk.session.slide_layer
    double_click(predicted, 1, qtbot)
    assert "locate" in predicted.message.text() and len(desk.viewer.layers) == 4
    predicted.locate_images(tiny_cohort)
    neighbour = predicted.table.listed.rows[1]
    double_click(predicted, 1, qtbot)
    layer = desk.session.slide_layer
    assert layer is not slide_layer and desk.session.slide.path.stem == neighbour.section
    assert layer.visible and not slide_layer.visible
    mpp = desk.session.slide.mpp
    assert mpp.source == "cohort"
    x, y = neighbour.position_um
    np.testing.assert_allclose(
        desk.viewer.scene.camera.center[-2:], (y - mpp.value / 2, x - mpp.value / 2), atol=1e-6
    )
    assert predicted.picked.tile == tile and not predicted.body.isHidden()  # it still speaks of the tile
    opened = len(desk.viewer.layers)
    double_click(predicted, 1, qtbot)
    assert len(desk.viewer.layers) == opened
    qtbot.mouseClick(predicted.tile.back, LEFT)
    assert desk.session.slide_layer is slide_layer and slide_layer.visible and not layer.visible
    np.testing.assert_allclose(desk.viewer.scene.camera.center[-2:], centre(desk, tile), atol=1e-6)


def double_click(widget, row, qtbot):
    """Double click on a row of the table, as a hand does it: the second press is the double one."""
    place = widget.table.visualRect(widget.table.listed.index(row, 2)).center()
    qtbot.mouseClick(widget.table.viewport(), LEFT, PLAIN, place)
    qtbot.mouseDClick(widget.table.viewport(), LEFT, PLAIN, place)


def test_a_method_without_neighbours_says_so(desk, widget, hand, trusting_bundle, write_tissue, qtbot):
    desk.open(write_tissue())
    desk.load(trusting_bundle)
    desk.engine.predict(None)
    desk.wait()
    desk.viewer.reset_view()
    hand.click(*centre(desk, int(desk.session.prediction.indices[0])))
    assert "does not come from neighbours" in widget.arithmetic.words.text()
    assert widget.spots.text().startswith("Nearest training spots")
    assert widget.settings.isHidden()
    weights = [widget.table.listed.index(row, 2).data() for row in range(FIRST)]
    assert set(weights) == {"–"}


def test_it_lets_go_of_a_slide_and_a_model_that_go(desk, predicted, tile, hand, trusting_bundle):
    desk.load(trusting_bundle)
    assert predicted.picked is None and predicted.body.isHidden()
    desk.engine.predict(None)
    desk.wait()
    hand.click(*centre(desk, int(desk.session.prediction.indices[0])))
    assert predicted.picked is not None
    desk.viewer.layers.remove(desk.session.slide_layer)
    assert predicted.picked is None and predicted.message.text() == HINT
    assert "Picked place" not in [layer.name for layer in desk.viewer.layers]


def test_a_closed_widget_hears_no_more_clicks(desk, predicted, tile, hand, qtbot):
    callbacks = len(desk.viewer.mouse_drag_callbacks)
    desk.viewer.window.remove_dock_widget(predicted)
    predicted.deleteLater()
    qtbot.wait(100)
    assert len(desk.viewer.mouse_drag_callbacks) == callbacks - 1
    hand.click(*centre(desk, tile))
    desk.session.show_gene(desk.session.bundle.genes[2])


def test_a_pinned_tile_is_compared_with_the_next(desk, predicted, tile, hand, qtbot):
    session, panel = desk.session, predicted.comparison
    assert panel.isHidden()
    qtbot.mouseClick(predicted.tile.pin, LEFT)
    assert predicted.pinned.tile == tile and "Click another one" in panel.words.text()
    layers = [layer.name for layer in desk.viewer.layers]
    assert "Picked place" in layers and "Pinned place" not in layers  # one frame is enough for one tile
    other = int(session.prediction.indices[12])
    hand.click(*centre(desk, other))
    qtbot.waitUntil(lambda: not predicted.comparer.busy, timeout=20_000)
    found = compare((session.prediction, tile), (session.prediction, other), session.gene)
    assert predicted.picked.tile == other and predicted.pinned.tile == tile
    assert number(found.shown.first) in panel.values[0].text()
    assert number(found.shown.second) in panel.values[1].text()
    assert f"{len(found.shared)} of {found.neighbours[0]} neighbours are shared" in panel.words.text()
    assert [panel.listed.index(row, 0).data() for row in range(10)] == [d.gene for d in found.most]
    first = predicted.table.listed.rows[0]
    text = predicted.table.listed.index(0, 0).data()
    assert text.endswith("shared") == (first.row in found.shared)
    (frame,) = [layer for layer in desk.viewer.layers if layer.name == "Pinned place"]
    middle = np.array(frame.translate) + np.array(frame.scale) * (np.array(frame.data.shape[:2]) - 1) / 2
    assert middle == pytest.approx(centre(desk, tile))
    settle(predicted, qtbot)
    assert all(not picture.pixmap().isNull() for picture in panel.pictures)
    row = 3
    name = panel.listed.index(row, 0).data()
    predicted.scroll_area.ensureWidgetVisible(panel.table)
    qtbot.mouseClick(
        panel.table.viewport(), LEFT, pos=panel.table.visualRect(panel.listed.index(row, 0)).center()
    )
    assert session.gene == name
    qtbot.waitUntil(lambda: name in panel.words.text(), timeout=20_000)
    hand.click(5.0, -300.0)  # beside the slide: what is pinned stays
    assert predicted.picked is None and predicted.pinned.tile == tile
    hand.click(*centre(desk, other))
    assert predicted.tile.pin.text() == "Unpin"
    qtbot.mouseClick(predicted.tile.pin, LEFT)
    assert predicted.pinned is None and panel.isHidden() and predicted.tile.pin.text() == "Pin"
    assert "Pinned place" not in [layer.name for layer in desk.viewer.layers]
    qtbot.mouseClick(predicted.tile.pin, LEFT)
    desk.viewer.layers.remove(session.slide_layer)
    assert predicted.pinned is None and predicted.picked is None
