"""Choose which maps are shown, alone, blended or side by side, and whether the measured spots are shown."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from qtpy.QtWidgets import QCheckBox, QFileDialog, QGridLayout, QPushButton, QVBoxLayout, QWidget

from napari_chrep.canvas.grid import SideBySide
from napari_chrep.canvas.heatmaps import Heatmaps
from napari_chrep.canvas.maps import BLEND, KINDS, MAIN_KINDS, main_kinds, why_unavailable
from napari_chrep.canvas.measured_spots import beside
from napari_chrep.canvas.spots_layer import SpotsLayer
from napari_chrep.genes.colour_bars import ColourBars
from napari_chrep.state.session import Session
from napari_chrep.state.viewers import kept_for
from napari_chrep.ui.parts import Connections, note, sentence

#: Number of buttons per row.
_COLUMNS = 3
#: Maximum number of unknown names that are written out; the tooltip lists all.
_MAX_NAMES = 8
_ORDER = ("calibrated", "raw", "difference", "interval", "unlike", "signature")


class MapPanel(QWidget):
    """Buttons that show and hide the maps and the measured spots.

    One map is shown at a time, so that one click compares two of them. In grid mode each button shows or
    hides its own map. The check box `side_by_side` is not in this panel's layout: the widget around it places
    it.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer with the maps, the grid and the measured spots. Its session's model decides which maps are
        available.

    Attributes
    ----------
    dialog : QFileDialog or None
        The file dialog for measured spots, once it was opened.
    """

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self.session = session = kept_for(viewer, Session)
        self.heatmaps = heatmaps = kept_for(viewer, Heatmaps)
        self.grid = grid = kept_for(viewer, SideBySide)
        self.spots = spots = kept_for(viewer, SpotsLayer)
        self.dialog: QFileDialog | None = None
        self._build()
        connections = Connections(self)
        connections.add(session.bundle_changed, self._on_changed)
        connections.add(session.signature_changed, self._on_changed)
        connections.add(session.second_gene_changed, self._on_changed)
        connections.add(heatmaps.changed, self._on_changed)
        connections.add(grid.toggled, self._on_changed)
        connections.add(spots.changed, self._on_spots)
        connections.add(session.slide_changed, self._on_spots)
        self._on_changed()
        self._on_spots()

    def _build(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        cells = QGridLayout()
        cells.setSpacing(4)
        self.toggles: dict[str, QPushButton] = {}
        for place, kind in enumerate(_ORDER):
            button = QPushButton(kind.capitalize())
            button.setCheckable(True)
            button.clicked.connect(partial(self._on_toggled, kind))
            self.toggles[kind] = button
            cells.addWidget(button, *divmod(place, _COLUMNS))
        self.blend = QPushButton()
        self.blend.setCheckable(True)
        self.blend.setToolTip(f"{KINDS[BLEND[0]].about}.")
        self.blend.clicked.connect(self._on_blend)
        cells.addWidget(self.blend, len(_ORDER) // _COLUMNS, 0, 1, _COLUMNS)
        self.measured, self.open_measured = QPushButton("Measured spots"), QPushButton("Open…")
        self.measured.setCheckable(True)
        self.measured.clicked.connect(self.spots.show)
        self.open_measured.setToolTip("Open the h5ad with the spots that were measured on this slide")
        self.open_measured.clicked.connect(self._on_open_measured)
        cells.addWidget(self.measured, len(_ORDER) // _COLUMNS + 1, 0, 1, _COLUMNS - 1)
        cells.addWidget(self.open_measured, len(_ORDER) // _COLUMNS + 1, _COLUMNS - 1)
        layout.addLayout(cells)
        self.colour_bars = ColourBars(self.heatmaps)
        layout.addWidget(self.colour_bars)
        self.agreement = note()
        layout.addWidget(self.agreement)
        self.side_by_side = QCheckBox("Side by side")
        self.side_by_side.setToolTip(
            "Give the slide and each map that is on a cell of its own; they move together"
        )
        self.side_by_side.clicked.connect(self._on_side_by_side)
        self.listed = note()
        layout.addWidget(self.listed)

    def bring_up(self, *kinds: str) -> None:
        """Show these maps: instead of the others, or in grid mode beside them."""
        if self.grid.enabled:
            for kind in kinds:
                self.heatmaps.show(kind)
        else:
            self.heatmaps.show_only(*kinds)

    def bring_up_gene(self) -> None:
        """Show the current gene's best map, if only maps that do not depend on the gene are visible."""
        visible = self.heatmaps.visible
        if visible and not set(visible) - {"unlike", "signature"}:
            self.bring_up(main_kinds(self.session.bundle)[-1])

    def _on_toggled(self, kind: str, *_: bool) -> None:
        if self.toggles[kind].isChecked():  # PySide6 passes no argument to a partial
            self.bring_up(kind)
        else:
            self.heatmaps.show(kind, visible=False)

    def _on_blend(self, checked: bool) -> None:
        if checked:
            self.bring_up(*BLEND)
        else:
            for kind in BLEND:
                self.heatmaps.show(kind, visible=False)

    def _on_side_by_side(self, checked: bool) -> None:
        visible = self.heatmaps.visible
        if checked and len(visible) < 2:
            for kind in MAIN_KINDS:
                if self.heatmaps.layer(kind) is not None:
                    self.heatmaps.show(kind)
        self.grid.enable(checked)
        if not checked and len(visible) > 1:  # maps on top of each other are illegible
            self.heatmaps.show_only(next(kind for kind in (*_ORDER, *BLEND) if kind in visible))

    def _on_changed(self) -> None:
        can_show, visible = self.heatmaps.can_show, self.heatmaps.visible
        for kind, button in self.toggles.items():
            missing = why_unavailable(kind, self.session.bundle, self.session.signature)
            if not missing and not can_show:
                missing = "Predict something first."
            button.setEnabled(not missing)
            button.setChecked(kind in visible)
            button.setToolTip(f"{KINDS[kind].about}.\n{missing}".strip())
        self.blend.setVisible(self.session.second_gene is not None)
        self.blend.setText(f"Blend with {self.session.second_gene}")
        self.blend.setEnabled(can_show)
        self.blend.setChecked(set(BLEND) <= set(visible))
        self.side_by_side.setEnabled(can_show or self.grid.enabled)
        self.side_by_side.setChecked(self.grid.enabled)
        shown = [self.heatmaps.layer(kind) for kind in visible]
        self.grid.make_opaque(shown)
        self.grid.fit_titles(shown)
        self.grid.fit()
        self._describe_signature()

    def _on_spots(self) -> None:
        spots, slide = self.spots, self.session.slide
        self.open_measured.setEnabled(slide is not None)
        self.measured.setEnabled(spots.measured is not None)
        self.measured.setChecked(spots.visible)
        missing = ""
        if slide is None:
            missing = "Open a slide first."
        elif spots.measured is None:
            missing = "Reading…" if spots.busy else f"There is no {beside(slide).name} beside the slide."
        about = "What was measured, in the colours of the maps: spots in their true size, over any map"
        self.measured.setToolTip(f"{about}.\n{missing}".strip())
        self.agreement.setText(sentence(spots.trouble or spots.agreement))
        self.agreement.setVisible(bool(self.agreement.text()))

    def _on_open_measured(self) -> None:
        slide = self.session.slide
        if slide is None:
            return
        self.dialog = dialog = QFileDialog(self, "Open measured spots")
        dialog.setFileMode(QFileDialog.FileMode.ExistingFile)
        dialog.setNameFilter("Spots (*.h5ad)")
        dialog.setDirectory(str(slide.path.parent))
        dialog.fileSelected.connect(self._on_file)
        dialog.finished.connect(dialog.deleteLater)
        dialog.open()

    def _on_file(self, name: str) -> None:
        self.spots.open(Path(name))

    def _describe_signature(self) -> None:
        """Show how many genes the signature has, and which of its names the model does not know."""
        signature = self.session.signature
        self.listed.setVisible(signature is not None)
        if signature is None:
            return
        text = f"{signature.name}: {len(signature.genes):,} genes."
        if signature.unknown:
            shown = ", ".join(signature.unknown[:_MAX_NAMES])
            more = len(signature.unknown) - _MAX_NAMES
            text += f" {len(signature.unknown):,} unknown: {shown}" + (
                f" and {more:,} more." if more > 0 else "."
            )
        self.listed.setText(text)
        self.listed.setToolTip("\n".join(signature.unknown))
