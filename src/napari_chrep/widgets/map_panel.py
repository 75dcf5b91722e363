"""Which maps are shown: one button for each kind, and the grid that puts them side by side."""

from __future__ import annotations

from functools import partial

from qtpy.QtWidgets import QCheckBox, QGridLayout, QPushButton, QVBoxLayout, QWidget

from napari_chrep.grid import SideBySide
from napari_chrep.layers import Heatmaps
from napari_chrep.maps import BLEND, KINDS, PAIR, pair, why_not
from napari_chrep.session import Session
from napari_chrep.widgets._parts import Connections, note

#: Buttons in a row.
_COLUMNS = 3
#: So many unknown names of a list are written out; the tooltip has them all.
_NAMED = 8
_ORDER = ("calibrated", "raw", "difference", "interval", "unlike", "signature")


class MapPanel(QWidget):
    """Shows and hides the maps; `side_by_side` is for its owner to place.

    One at a time, so that one click compares two of them; with the maps side by side, each button stands for
    itself.

    Parameters
    ----------
    session : Session
        Whose model and signature say which maps there can be.
    heatmaps : Heatmaps
        The layers.
    grid : SideBySide
        The grid of the viewer.
    """

    def __init__(self, session: Session, heatmaps: Heatmaps, grid: SideBySide) -> None:
        super().__init__()
        self.session, self.heatmaps, self.grid = session, heatmaps, grid
        self._build()
        connections = Connections(self)
        connections.add(session.bundle_changed, self._on_changed)
        connections.add(session.signature_changed, self._on_changed)
        connections.add(session.second_changed, self._on_changed)
        connections.add(heatmaps.changed, self._on_changed)
        connections.add(grid.toggled, self._on_changed)
        self._on_changed()

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
        layout.addLayout(cells)
        self.side_by_side = QCheckBox("Side by side")
        self.side_by_side.setToolTip(
            "Give the slide and each map that is on a cell of its own; they move together"
        )
        self.side_by_side.clicked.connect(self._on_side_by_side)
        self.listed = note()
        layout.addWidget(self.listed)

    def bring_up(self, *kinds: str) -> None:
        """Show maps: in place of the others, or in cells beside them."""
        if self.grid.enabled:
            for kind in kinds:
                self.heatmaps.show(kind)
        else:
            self.heatmaps.show_only(*kinds)

    def bring_up_gene(self) -> None:
        """Show the gene where only maps are on that say nothing of it."""
        visible = self.heatmaps.visible
        if visible and not set(visible) - {"unlike", "signature"}:
            self.bring_up(pair(self.session.bundle)[-1])

    def _on_toggled(self, kind: str, checked: bool) -> None:
        if checked:
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
            for kind in PAIR:
                if self.heatmaps.layer(kind) is not None:
                    self.heatmaps.show(kind)
        self.grid.enable(checked)
        if not checked and len(visible) > 1:  # on top of each other none could be read
            self.heatmaps.show_only(next(kind for kind in (*_ORDER, *BLEND) if kind in visible))

    def _on_changed(self) -> None:
        can_show, visible = self.heatmaps.can_show, self.heatmaps.visible
        for kind, button in self.toggles.items():
            missing = why_not(kind, self.session.bundle, self.session.signature)
            if not missing and not can_show:
                missing = "Predict something first."
            button.setEnabled(not missing)
            button.setChecked(kind in visible)
            button.setToolTip(f"{KINDS[kind].about}.\n{missing}".strip())
        self.blend.setVisible(self.session.second is not None)
        self.blend.setText(f"Blend with {self.session.second}")
        self.blend.setEnabled(can_show)
        self.blend.setChecked(set(BLEND) <= set(visible))
        self.side_by_side.setEnabled(can_show or self.grid.enabled)
        self.side_by_side.setChecked(self.grid.enabled)
        self.grid.make_opaque([self.heatmaps.layer(kind) for kind in visible])
        self.grid.fit()
        self._describe_signature()

    def _describe_signature(self) -> None:
        """List what a signature holds, and every name that the model does not know."""
        signature = self.session.signature
        self.listed.setVisible(signature is not None)
        if signature is None:
            return
        text = f"{signature.name}: {len(signature.genes):,} genes."
        if signature.unknown:
            shown = ", ".join(signature.unknown[:_NAMED])
            more = len(signature.unknown) - _NAMED
            text += f" {len(signature.unknown):,} unknown: {shown}" + (
                f" and {more:,} more." if more > 0 else "."
            )
        self.listed.setText(text)
        self.listed.setToolTip("\n".join(signature.unknown))
