"""Click a tile, see the training spots behind its value."""

from __future__ import annotations

import weakref
from functools import partial
from pathlib import Path
from typing import Any

from qtpy.QtCore import QModelIndex, QSize, Qt
from qtpy.QtWidgets import QFileDialog, QPushButton, QScrollArea, QScrollBar, QVBoxLayout, QWidget

from chrep_model.errors import ChrepError
from chrep_model.geometry import px_to_um
from chrep_model.inference.explanation import Explanation, Neighbour, explain, knobs
from napari_chrep.grid import side_by_side
from napari_chrep.navigation import layer_of, show_place
from napari_chrep.picking import Clicks, Frame, Pick, pick
from napari_chrep.pictures import Pictures, Place
from napari_chrep.session import sessions
from napari_chrep.training_images import SectionImage, find_images, remember, usual_folders
from napari_chrep.widgets._parts import Connections, heading, note, sentence
from napari_chrep.widgets.arithmetic import Arithmetic
from napari_chrep.widgets.distribution import Distribution
from napari_chrep.widgets.docking import TabWhenLow
from napari_chrep.widgets.knobs import KnobsPanel
from napari_chrep.widgets.neighbour_table import FIRST, NeighbourTable
from napari_chrep.widgets.tile_panel import TilePanel

HINT = "Click on a tile of a heatmap to see the training spots behind its value."
_MARGIN = 8
_LEAST_HEIGHT = 380


class NeighboursWidget(QWidget):
    """Shows where the value of the tile that was clicked comes from.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The viewer. All widgets of one viewer share its session.

    Attributes
    ----------
    picked : Pick or None
        The tile it speaks of. It stays while other slides are looked at, until its slide or model goes.
    why : Explanation or None
        What is shown of it.
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        viewer = getattr(napari_viewer, "__wrapped__", napari_viewer)  # napari passes a proxy
        self._viewer = weakref.ref(viewer)
        self.session = sessions.of(viewer)
        self.picked: Pick | None = None
        self.why: Explanation | None = None
        self.images: dict[str, SectionImage] = {}
        self.clicks, self.frame, self.pictures = Clicks(viewer), Frame(viewer), Pictures()
        self.listed_all = False
        self._awaited: dict[Place, int | None] = {}  # row of the gallery; None for the tile itself
        self._build()
        connections = Connections(self)
        connections.add(self.clicks.clicked, self._on_clicked)
        connections.add(self.pictures.arrived, self._on_picture)
        connections.add(self.pictures.failed, self._on_no_picture)
        connections.add(self.session.gene_changed, self._explain)
        connections.add(self.session.bundle_changed, self._clear)
        connections.add(self.session.prediction_changed, self._on_prediction)
        connections.add(viewer.layers.events.removed, self._on_removed)
        connections.add(side_by_side.of(viewer).toggled, self._mark)
        self.destroyed.connect(partial(_let_go, self.clicks, self.pictures))
        TabWhenLow(self, _LEAST_HEIGHT)
        self._clear()

    def _build(self) -> None:
        self._content = QWidget()
        column = QVBoxLayout(self._content)
        column.setContentsMargins(_MARGIN, _MARGIN, _MARGIN, _MARGIN)
        column.setSpacing(10)
        self.message = note(HINT)
        column.addWidget(self.message)
        self.body = QWidget()
        parts = QVBoxLayout(self.body)
        parts.setContentsMargins(0, 0, 0, 0)
        parts.setSpacing(10)
        self.tile, self.arithmetic = TilePanel(), Arithmetic()
        self.distribution, self.knobs, self.table = Distribution(), KnobsPanel(), NeighbourTable()
        self.spots = heading("")
        self.more, self.locate = QPushButton(), QPushButton("Locate training images…")
        self.locate.setToolTip("Choose the folder with the images of the training sections, to see the spots")
        for part in (
            self.tile, self.spots, self.knobs, self.table, self.more, self.locate, self.arithmetic,
            self.distribution,
        ):  # fmt: skip
            parts.addWidget(part, 1 if part is self.table else 0)
        column.addWidget(self.body, 1)
        column.addStretch(0)
        self.tile.back.clicked.connect(self._on_back)
        self.knobs.changed.connect(self._explain)
        self.table.doubleClicked.connect(self._on_double_clicked)
        self.more.clicked.connect(self._on_more)
        self.locate.clicked.connect(self._on_locate)
        self._bar = QScrollBar()
        self._scroll = scroll = QScrollArea()
        scroll.setVerticalScrollBar(self._bar)
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QScrollArea.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(self._content)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(scroll)

    def sizeHint(self) -> QSize:  # noqa: N802
        """Ask for the room of a tile that is explained, or the dock would jump with the first click."""
        return QSize(340, 760)

    def minimumSizeHint(self) -> QSize:  # noqa: N802
        """Never be narrower than the parts; any height will do."""
        width = self.body.minimumSizeHint().width() + 2 * _MARGIN + self._bar.sizeHint().width()
        return QSize(width, 160)

    def _on_clicked(self, world: tuple[float, ...]) -> None:
        former = self.picked
        try:
            self.picked = pick(self.session, world)
        except ChrepError as error:
            self._clear(sentence(str(error)))
            return
        prediction = self.picked.prediction
        if former is None or former.prediction is not prediction:
            self.images = find_images(prediction.bundle, usual_folders(prediction.bundle, prediction.slide))
        self.listed_all = False
        self._mark()
        self.tile.show_picture(None)
        self._explain()

    def _mark(self) -> None:
        """Put the frame around the picked tile, if its slide is looked at."""
        if self.picked is not None and self.session.slide_layer is self.picked.layer:
            prediction, (x, y) = self.picked.prediction, _um(self.picked)
            half_px = prediction.slide.require_mpp() / 2  # napari centres pixel 0 on world 0
            self.frame.put((y - half_px, x - half_px), prediction.bundle.spec.um)

    def _explain(self) -> None:
        """Show why the picked tile has its value of the current gene. No encoder runs."""
        picked, gene = self.picked, self.session.gene
        if picked is None or gene is None:
            return
        try:
            fitted = knobs(picked.prediction)
            self.knobs.fit(fitted)
            k, temperature = self.knobs.values
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
        self._list(why)

    def _list(self, why: Explanation) -> None:
        """List the neighbours, and ask for their pictures and the tile's."""
        assert self.picked is not None  # noqa: S101  (there is an explanation)
        count = len(why.neighbours)
        listed = why.neighbours if self.listed_all else why.neighbours[:FIRST]
        kind = "Neighbours" if why.from_neighbours else "Nearest training spots"
        self.spots.setText(f"{kind}: {len(listed)} of {count}" if len(listed) < count else f"{kind}: {count}")
        self.more.setVisible(count > FIRST)
        self.more.setText(f"Show the first {FIRST} only" if self.listed_all else f"Show all {count}")
        self.locate.setVisible(any(n.section not in self.images for n in why.neighbours))
        self.table.listed.set_neighbours(listed)
        self._ask_for_pictures(self.picked, listed)

    def _ask_for_pictures(self, picked: Pick, listed: tuple[Neighbour, ...]) -> None:
        own = self.pictures.slides.keep(picked.prediction.slide)
        self._awaited = {Place(own, _um(picked)): None}
        for neighbour in listed:
            if neighbour.section in self.images:
                self._awaited[Place(self.images[neighbour.section], neighbour.position_um)] = neighbour.row
        self.pictures.ask(list(self._awaited), picked.prediction.bundle.spec)

    def _on_picture(self, place: Place, picture: Any) -> None:
        row = self._awaited.get(place)
        if row is not None:
            self.table.listed.set_picture(row, picture)
        elif place in self._awaited:
            self.tile.show_picture(picture)

    def _on_no_picture(self, place: Place, why: str) -> None:
        if place in self._awaited and self._awaited[place] is None:
            self.tile.show_no_picture(why)
        else:
            self._say(sentence(why))

    def _on_more(self) -> None:
        self.listed_all = not self.listed_all
        if self.why is not None:
            self._list(self.why)

    def _on_locate(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder with the images of the training sections")
        if folder:
            self.locate_images(Path(folder))

    def locate_images(self, folder: Path) -> None:
        """Look for the images of the training sections in a folder, and remember it if there are any."""
        if self.picked is None or self.why is None:
            return
        bundle = self.picked.prediction.bundle
        found = find_images(bundle, [folder])
        if not found:
            names = ", ".join(str(section["name"]) for section in bundle.card.sections[:3])
            self._say(f"No image of a training section in {folder}. They are called {names} and so on.")
            return
        remember(bundle, folder)
        self.images |= found
        self._say(f"{len(found)} of {len(bundle.card.sections)} training images found.")
        self._list(self.why)

    def _on_double_clicked(self, index: QModelIndex) -> None:
        neighbour, viewer = self.table.listed.neighbours[index.row()], self._viewer()
        image = self.images.get(neighbour.section)
        if viewer is None or self.picked is None:
            return
        if image is None:
            self._say(f"The image of {neighbour.section} is not at hand: locate the training images.")
            return
        try:
            layer = layer_of(viewer, image)
        except ChrepError as error:
            self._say(sentence(str(error)))
            return
        side = self.picked.prediction.bundle.spec.um
        show_place(viewer, self.session, layer, neighbour.position_um, side, self.frame)

    def _on_back(self) -> None:
        viewer, picked = self._viewer(), self.picked
        if viewer is not None and picked is not None:
            side = picked.prediction.bundle.spec.um
            show_place(viewer, self.session, picked.layer, _um(picked), side, self.frame)

    def _on_prediction(self) -> None:
        """Let go of a tile whose prediction was dropped while its slide is looked at."""
        picked, session = self.picked, self.session
        if picked is None or session.slide_layer is not picked.layer:
            return
        if session.prediction is not picked.prediction:
            self._clear()

    def _on_removed(self, event: Any) -> None:
        if self.picked is not None and event.value is self.picked.layer:
            self._clear()

    def _clear(self, message: str = HINT) -> None:
        """Speak of no tile; say why, or what to do."""
        self.picked = self.why = None
        self.pictures.stop()
        self.frame.remove()
        self.knobs.fit(None)
        self.table.listed.set_neighbours(())
        self.table.listed.forget_pictures()
        self.body.hide()
        self._say(message)

    def _say(self, text: str) -> None:
        self.message.setText(text)
        self.message.show()
        self._scroll.ensureWidgetVisible(self.message)


def _um(picked: Pick) -> tuple[float, float]:
    """Centre (x, y) of a picked tile in µm."""
    mpp = picked.prediction.slide.require_mpp()
    x, y = (px_to_um(value, mpp) for value in picked.xy)
    return x, y


def _let_go(clicks: Clicks, pictures: Pictures, _destroyed: Any = None) -> None:
    clicks.disconnect()
    pictures.stop()
