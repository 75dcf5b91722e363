"""Table of a slide's properties, which unfolds at the click of a button."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QGridLayout, QLabel, QToolButton, QVBoxLayout, QWidget

from chrep_model.slides.slide import Slide
from napari_chrep.ui.parts import note

_TITLES = {"vendor": "Scanner", "objective": "Objective", "format": "Format", "compression": "Compression"}


class SlideProperties(QWidget):
    """Button that unfolds a table of the properties of a slide."""

    def __init__(self) -> None:
        super().__init__()
        self.button = QToolButton()
        self.button.setText("Details")
        self.button.setToolTip("Levels, scanner, format and file of the slide")
        self.button.setCheckable(True)
        self.button.setAutoRaise(True)
        self.button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.button.toggled.connect(self._on_toggled)
        self.table = QWidget()
        self._grid = QGridLayout(self.table)
        self._grid.setContentsMargins(8, 0, 2, 2)
        self._grid.setHorizontalSpacing(12)
        self._grid.setVerticalSpacing(2)
        self._grid.setColumnStretch(1, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(self.button)
        layout.addWidget(self.table)
        self._on_toggled(False)

    def describe(self, slide: Slide) -> None:
        """Show the properties of a slide."""
        while item := self._grid.takeAt(0):
            former = item.widget()
            if former is not None:
                former.deleteLater()
        for row, (title, text) in enumerate(properties_of(slide).items()):
            self._grid.addWidget(QLabel(title), row, 0, Qt.AlignmentFlag.AlignTop)
            self._grid.addWidget(note(text), row, 1)

    def _on_toggled(self, unfolded: bool) -> None:
        self.button.setArrowType(Qt.ArrowType.DownArrow if unfolded else Qt.ArrowType.RightArrow)
        self.table.setVisible(unfolded)


def properties_of(slide: Slide) -> dict[str, str]:
    """Return the properties of a slide, as titles and texts."""
    levels = ", ".join(f"{level.downsample:.3g}×" for level in slide.levels)
    known = {"Levels": f"{len(slide.levels)}: {levels}" if len(slide.levels) > 1 else "1"}
    for key in (*_TITLES, *(key for key in slide.properties if key not in _TITLES)):
        if slide.properties.get(key):
            known[_TITLES.get(key, key.capitalize())] = slide.properties[key]
    if "Objective" in known and known["Objective"].replace(".", "").isdigit():
        known["Objective"] += "×"
    return known | {"File": str(slide.path)}
