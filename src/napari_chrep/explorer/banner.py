"""A bordered, coloured box with a few words that must not be overlooked."""

from __future__ import annotations

from qtpy.QtWidgets import QFrame, QVBoxLayout, QWidget

from napari_chrep.explorer.advice import Advice
from napari_chrep.ui.parts import heading, note

#: Border colours that stand out on a dark and on a light ground; the ground gets a touch of them.
_GRAVE, _MILD = (217, 83, 79), (214, 158, 46)


class Banner(QFrame):
    """Shows one advice.

    Parameters
    ----------
    advice : Advice
        What it says.
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
    """Shows advices below each other; takes no room without any."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[Advice] = []
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setSpacing(4)
        self.hide()

    def show_advice(self, found: list[Advice]) -> None:
        """Show these in place of the former ones."""
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
