"""Coloured boxes that show warnings in the slide explorer."""

from __future__ import annotations

from qtpy.QtWidgets import QFrame, QVBoxLayout, QWidget

from napari_chrep.explorer.advice import Advice
from napari_chrep.ui.parts import heading, note

#: Border colours that are visible on dark and on light backgrounds; the background has a pale tint of them.
_GRAVE, _MILD = (217, 83, 79), (214, 158, 46)


class Banner(QFrame):
    """Coloured box that shows one warning.

    Parameters
    ----------
    advice : Advice
        The warning to show.
    """

    def __init__(self, advice: Advice) -> None:
        super().__init__()
        self.title, self.text = heading(advice.title), note(advice.text)
        self.title.setWordWrap(True)
        self.setObjectName("banner")
        self.setAccessibleName(f"{advice.title}. {advice.text}")
        red, green, blue = _GRAVE if advice.grave else _MILD
        colour = f"{red}, {green}, {blue}"
        self.setStyleSheet(
            f"#banner {{ border: 1px solid rgb({colour}); border-left: 5px solid rgb({colour});"
            f" border-radius: 3px; background: rgba({colour}, 45); }}"
            "#banner QLabel { background: transparent; }"
        )
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 6, 8, 6)
        layout.setSpacing(2)
        layout.addWidget(self.title)
        layout.addWidget(self.text)


class Banners(QWidget):
    """Column of warnings; hidden while there are none."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[Advice] = []
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setSpacing(4)
        self.hide()

    def show_advice(self, found: list[Advice]) -> None:
        """Replace the warnings that are shown."""
        if found == self.shown:
            return
        self.shown = found
        while item := self._layout.takeAt(0):
            former = item.widget()
            if former is not None:
                former.hide()
                former.deleteLater()
        for one in found:
            self._layout.addWidget(Banner(one))
        self.setVisible(bool(found))
