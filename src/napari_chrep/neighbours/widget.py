"""The Neighbours widget: a click on a tile shows the training spots that its value comes from.

It also compares the tile with a pinned one, and opens training sections at their spots.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from qtpy.QtCore import QModelIndex, QSize
from qtpy.QtWidgets import QFileDialog, QPushButton, QVBoxLayout, QWidget

from chrep_model.analysis.explanation import Explanation, Neighbour, adjustable_settings, explain
from chrep_model.analysis.tile_comparison import TileComparison, compare
from chrep_model.errors import ChrepError
from chrep_model.geometry import px_to_um
from napari_chrep.background.runner import TaskRunner, in_words
from napari_chrep.canvas.grid import SideBySide
from napari_chrep.canvas.picking import PINNED_RGBA, Clicks, Frame, PickedTile, pick_tile
from napari_chrep.neighbours.arithmetic import Arithmetic
from napari_chrep.neighbours.comparison_panel import ComparisonPanel
from napari_chrep.neighbours.distribution import Distribution
from napari_chrep.neighbours.navigation import layer_of, show_place
from napari_chrep.neighbours.neighbour_settings import NeighbourSettings
from napari_chrep.neighbours.neighbour_table import FIRST, NeighbourTable
from napari_chrep.neighbours.pictures import Pictures, Place
from napari_chrep.neighbours.tile_panel import TilePanel
from napari_chrep.neighbours.training_images import SectionImage, find_images, usual_folders
from napari_chrep.state.settings import remember_image_folder
from napari_chrep.state.viewers import kept_for, unwrapped
from napari_chrep.ui.dock_heights import TabWhenLow
from napari_chrep.ui.parts import heading, note, sentence
from napari_chrep.ui.widgets import MARGIN, ScrollingWidget

HINT = "Click on a tile of a heatmap to see the training spots behind its value."
_LEAST_HEIGHT = 380


class NeighboursWidget(ScrollingWidget):
    """Dock widget that explains the value of the clicked tile.

    Attributes
    ----------
    picked : PickedTile or None
        The clicked tile. It is kept while the user views other slides, until its slide is closed or the model
        changes.
    why : Explanation or None
        The explanation shown for `picked`.
    pinned : PickedTile or None
        The tile with which other tiles are compared.
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer)
        viewer = unwrapped(napari_viewer)
        self.picked: PickedTile | None = None
        self.why: Explanation | None = None
        self.images: dict[str, SectionImage] = {}
        self.clicks, self.frame, self.pictures = Clicks(viewer), Frame(viewer), Pictures()
        self.pinned: PickedTile | None = None
        self.pin_frame = Frame(viewer, "Pinned place", PINNED_RGBA)
        self.comparer = TaskRunner()
        self.listed_all = False
        self._requested: dict[Place, int | None] = {}  # row in the gallery; None for a picked or pinned tile
        self._build()
        connections = self.connections
        connections.add(self.clicks.clicked, self._on_clicked)
        connections.add(self.pictures.arrived, self._on_picture)
        connections.add(self.pictures.failed, self._on_no_picture)
        connections.add(self.session.gene_changed, self._explain)
        connections.add(self.session.bundle_changed, self._on_bundle)
        connections.add(self.session.prediction_changed, self._on_prediction)
        connections.add(viewer.layers.events.removed, self._on_removed)
        connections.add(kept_for(viewer, SideBySide).toggled, self._place_frames)
        self.destroyed.connect(partial(_stop_all, self.clicks, self.pictures, self.comparer))
        TabWhenLow(self, _LEAST_HEIGHT)
        self._clear()

    def _build(self) -> None:
        column = self.add_column(10)
        self.message = note(HINT)
        column.addWidget(self.message)
        self.body = QWidget()
        parts = QVBoxLayout(self.body)
        parts.setContentsMargins(0, 0, 0, 0)
        parts.setSpacing(10)
        self.tile, self.arithmetic = TilePanel(), Arithmetic()
        self.distribution, self.settings, self.table = Distribution(), NeighbourSettings(), NeighbourTable()
        self.comparison = ComparisonPanel()
        self.spots = heading("")
        self.more, self.locate = QPushButton(), QPushButton("Locate training images…")
        self.locate.setToolTip("Choose the folder with the images of the training sections, to see the spots")
        for part in (
            self.tile, self.comparison, self.spots, self.settings, self.table, self.more, self.locate,
            self.arithmetic, self.distribution,
        ):  # fmt: skip
            parts.addWidget(part, 1 if part is self.table else 0)
        column.addWidget(self.body, 1)
        column.addStretch(0)
        self.tile.back.clicked.connect(self._on_back)
        self.tile.pin.clicked.connect(self._on_pin)
        self.comparison.gene_chosen.connect(self.session.show_gene)
        self.settings.changed.connect(self._explain)
        self.table.doubleClicked.connect(self._on_double_clicked)
        self.more.clicked.connect(self._on_more)
        self.locate.clicked.connect(self._on_locate)

    def sizeHint(self) -> QSize:  # noqa: N802
        """Return the size needed for an explanation, so that the first click does not enlarge the dock."""
        return QSize(340, 760)

    def minimumSizeHint(self) -> QSize:  # noqa: N802
        """Return the width needed for an explanation, so that the first click does not widen the dock.

        The panel scrolls, so its height may be small.
        """
        least = self.scroll_area.minimumSizeHint()
        width = self.body.minimumSizeHint().width() + 2 * MARGIN
        return QSize(width + self.scroll_area.bar_width, least.height())

    def _on_clicked(self, world: tuple[float, ...]) -> None:
        former = self.picked
        try:
            self.picked = pick_tile(self.session, world)
        except ChrepError as error:
            self._clear(sentence(str(error)))
            return
        prediction = self.picked.prediction
        if former is None or former.prediction is not prediction:
            self.images = find_images(prediction.bundle, usual_folders(prediction.bundle, prediction.slide))
        self.listed_all = False
        self._place_frames()
        self.tile.show_picture(None)
        self.comparison.show_picture(1, None)
        self._explain()

    def _place_frames(self) -> None:
        """Frame the picked and the pinned tile, if their slide is the current one."""
        if self.picked is not None and self.session.slide_layer is self.picked.layer:
            self.frame.put(_centre(self.picked), self.picked.prediction.bundle.spec.um)
        pinned = self.pinned
        if pinned is None or self.session.slide_layer is not pinned.layer or pinned.is_tile_of(self.picked):
            self.pin_frame.remove()
        else:
            self.pin_frame.put(_centre(pinned), pinned.prediction.bundle.spec.um)

    def _explain(self) -> None:
        """Explain the picked tile's value of the current gene, without running the encoder."""
        picked, gene = self.picked, self.session.gene
        if picked is None or gene is None:
            return
        try:
            fitted = adjustable_settings(picked.prediction)
            self.settings.set_model(fitted)
            k, temperature = self.settings.values
            why = explain(picked.prediction, picked.tile, gene, k=k, temperature=temperature)
            tried = k is not None or temperature is not None
            shown = explain(picked.prediction, picked.tile, gene).value if tried else why.value
        except ChrepError as error:
            self._clear(sentence(str(error)))
            return
        self.why = why
        self.tile.show_explanation(why, picked.prediction.bundle.spec.um, _um(picked))
        self.arithmetic.show_explanation(why, fitted, shown)
        self.distribution.show_explanation(why)
        self.message.hide()
        self.body.show()
        self.updateGeometry()  # the numbers may need a wider dock
        self._list_neighbours(why)
        self._compare()

    def _on_pin(self, checked: bool) -> None:
        self.pinned = self.picked if checked else None
        self.comparison.show_picture(0, None)
        self._place_frames()
        if self.why is not None:
            self._list_neighbours(self.why)  # requests the pinned tile's picture, which is in the cache
        self._compare()

    def _compare(self) -> None:
        """Compare the picked tile with the pinned one, in the background."""
        pinned, picked, gene = self.pinned, self.picked, self.session.gene
        self.tile.pin.setChecked(pinned is not None)
        self.tile.pin.setText("Pin" if pinned is None else "Unpin")
        self.comparison.setVisible(pinned is not None)
        self.comparer.drop()
        self.table.listed.set_shared(frozenset())
        if pinned is None or picked is None or gene is None:
            return
        if pinned.is_tile_of(picked):
            self.comparison.say("This tile is pinned. Click another one to compare the two.")
        else:
            tiles = (pinned.prediction, pinned.tile), (picked.prediction, picked.tile)
            self.comparer.run(
                lambda _task: compare(*tiles, gene),
                on_result=self._on_comparison,
                on_error=self._on_no_comparison,
            )

    def _on_no_comparison(self, error: Exception) -> None:
        self.comparison.say(sentence(in_words(error)))

    def _on_comparison(self, result: TileComparison) -> None:
        self.comparison.show_comparison(result)
        self.table.listed.set_shared(result.shared)
        self.updateGeometry()

    def _list_neighbours(self, why: Explanation) -> None:
        """List the neighbours, and request their pictures and the tile's."""
        assert self.picked is not None  # noqa: S101  (there is an explanation)
        count = len(why.neighbours)
        listed = why.neighbours if self.listed_all else why.neighbours[:FIRST]
        kind = "Neighbours" if why.from_neighbours else "Nearest training spots"
        self.spots.setText(f"{kind}: {len(listed)} of {count}" if len(listed) < count else f"{kind}: {count}")
        recall = self.picked.prediction.bundle.recall
        self.spots.setToolTip(
            "" if recall == 1 else f"Found by an index, which finds {recall:.1%} of the nearest"
        )
        self.more.setVisible(count > FIRST)
        self.more.setText(f"Show the first {FIRST} only" if self.listed_all else f"Show all {count}")
        self.locate.setVisible(any(n.section not in self.images for n in why.neighbours))
        self.table.listed.set_neighbours(listed)
        self._ask_for_pictures(self.picked, listed)

    def _ask_for_pictures(self, picked: PickedTile, listed: tuple[Neighbour, ...]) -> None:
        """Request the pictures of the picked tile, the pinned tile and the listed neighbours."""
        self._requested = {self._place(pick): None for pick in (picked, self.pinned) if pick is not None}
        for neighbour in listed:
            if neighbour.section in self.images:
                self._requested[Place(self.images[neighbour.section], neighbour.position_um)] = neighbour.row
        self.pictures.request(list(self._requested), picked.prediction.bundle.spec)

    def _place(self, pick: PickedTile) -> Place:
        return Place(self.pictures.slides.keep(pick.prediction.slide), _um(pick))

    def _on_picture(self, place: Place, picture: Any) -> None:
        row = self._requested.get(place)
        if row is not None:
            self.table.listed.set_picture(row, picture)
        elif place in self._requested:
            if self.pinned is not None and place == self._place(self.pinned):
                self.comparison.show_picture(0, picture)
            if self.picked is not None and place == self._place(self.picked):
                self.comparison.show_picture(1, picture)
                self.tile.show_picture(picture)

    def _on_no_picture(self, place: Place, why: str) -> None:
        if self.picked is not None and place == self._place(self.picked):
            self.tile.show_no_picture(why)
        else:
            self._show_text(sentence(why))

    def _on_more(self) -> None:
        self.listed_all = not self.listed_all
        if self.why is not None:
            self._list_neighbours(self.why)

    def _on_locate(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder with the images of the training sections")
        if folder:
            self.locate_images(Path(folder))

    def locate_images(self, folder: Path) -> None:
        """Search a folder for images of the training sections, and remember it if it has any."""
        if self.picked is None or self.why is None:
            return
        bundle = self.picked.prediction.bundle
        found = find_images(bundle, [folder])
        if not found:
            names = ", ".join(str(section["name"]) for section in bundle.card.sections[:3])
            self._show_text(f"No image of a training section in {folder}. They are called {names} and so on.")
            return
        remember_image_folder(bundle.card.cohort, folder)
        self.images |= found
        self._show_text(f"{len(found)} of {len(bundle.card.sections)} training images found.")
        self._list_neighbours(self.why)

    def _on_double_clicked(self, index: QModelIndex) -> None:
        neighbour, viewer = self.table.listed.rows[index.row()], self._viewer()
        image = self.images.get(neighbour.section)
        if viewer is None or self.picked is None:
            return
        if image is None:
            self._show_text(f"The image of {neighbour.section} is not at hand: locate the training images.")
            return
        try:
            layer = layer_of(viewer, image)
        except ChrepError as error:
            self._show_text(sentence(str(error)))
            return
        side = self.picked.prediction.bundle.spec.um
        show_place(viewer, self.session, layer, neighbour.position_um, side, self.frame)

    def _on_back(self) -> None:
        viewer, picked = self._viewer(), self.picked
        if viewer is not None and picked is not None:
            side = picked.prediction.bundle.spec.um
            show_place(viewer, self.session, picked.layer, _um(picked), side, self.frame)

    def _on_prediction(self) -> None:
        """Drop the picked and pinned tile if their slide is current but their prediction was replaced."""
        session = self.session
        for held, let_go in ((self.pinned, self._unpin), (self.picked, self._clear)):
            if held is None or session.slide_layer is not held.layer:
                continue
            if session.prediction is not held.prediction:
                let_go()

    def _on_bundle(self) -> None:
        self._unpin()
        self._clear()

    def _unpin(self) -> None:
        """Drop the pinned tile."""
        self.pinned = None
        self.pin_frame.remove()
        self._compare()

    def _on_removed(self, event: Any) -> None:
        if self.pinned is not None and event.value is self.pinned.layer:
            self._unpin()
        if self.picked is not None and event.value is self.picked.layer:
            self._clear()

    def _clear(self, message: str = HINT) -> None:
        """Drop the picked tile, and show a message instead of an explanation."""
        self.picked = self.why = None
        self.pictures.stop()
        self.comparer.drop()
        self.frame.remove()
        self.settings.set_model(None)
        self.table.listed.set_neighbours(())
        self.table.listed.forget_pictures()
        self.body.hide()
        self._show_text(message)

    def _show_text(self, text: str) -> None:
        self.message.setText(text)
        self.message.show()
        self.scroll_area.ensureWidgetVisible(self.message)


def _um(picked: PickedTile) -> tuple[float, float]:
    """Return the centre (x, y) of a picked tile in µm."""
    mpp = picked.prediction.slide.require_mpp()
    x, y = (px_to_um(value, mpp) for value in picked.xy)
    return x, y


def _centre(picked: PickedTile) -> tuple[float, float]:
    """Return the centre (row, col) of a picked tile in world units, where pixel 0 is centred on 0."""
    x, y = _um(picked)
    half_px = picked.prediction.slide.require_mpp() / 2
    return y - half_px, x - half_px


def _stop_all(clicks: Clicks, pictures: Pictures, comparer: TaskRunner, _destroyed: Any = None) -> None:
    """Stop listening to clicks, and drop all background work."""
    clicks.disconnect()
    pictures.stop()
    comparer.drop()
