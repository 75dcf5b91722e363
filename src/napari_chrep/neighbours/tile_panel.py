"""Show the picked tile: its picture, its value, and how far to trust the value."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from chrep_model.analysis.explanation import Explanation
from napari_chrep.neighbours.arithmetic import number
from napari_chrep.ui.parts import heading, note

PICTURE_PX = 116

#: A tile less similar to the gallery than this fraction of the training spots is reported as unlike them.
UNLIKE = 0.95


class TilePanel(QWidget):
    """Panel with picture, value, interval and position of one tile."""

    def __init__(self) -> None:
        super().__init__()
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(10)
        self.picture = QLabel()
        self.picture.setFixedSize(QSize(PICTURE_PX, PICTURE_PX))
        self.picture.setAlignment(Qt.AlignmentFlag.AlignCenter)
        row.addWidget(self.picture, 0, Qt.AlignmentFlag.AlignTop)
        column = QVBoxLayout()
        column.setSpacing(2)
        self.title = heading("", larger=True)
        self.facts = note()
        self.back = QPushButton("Show tile")
        self.back.setToolTip("Bring the slide with the picked tile into view")
        self.pin = QPushButton("Pin")
        self.pin.setCheckable(True)
        self.pin.setToolTip("Keep this tile and its neighbours, to compare the next tiles with")
        for widget in (self.title, self.facts):
            column.addWidget(widget)
        column.addStretch(1)
        buttons = QHBoxLayout()
        buttons.addWidget(self.back)
        buttons.addWidget(self.pin)
        buttons.addStretch(1)
        column.addLayout(buttons)
        row.addLayout(column, 1)

    def show_explanation(self, why: Explanation, tile_um: float, xy_um: tuple[float, float]) -> None:
        """Show a tile's value, its interval, its likeness to the training tissue, and its position."""
        self.title.setText(f"{why.gene} {number(why.value)}")
        lines = []
        if why.interval is not None:
            low, high = why.interval
            lines.append(f"90 % interval {number(low)} to {number(high)}")
        if why.unlike is not None:
            lines.append(likeness(why.unlike))
        lines.append(f"{tile_um:.0f} µm at x {xy_um[0] / 1000:.2f}, y {xy_um[1] / 1000:.2f} mm")
        if any(n.of_this_slide for n in why.neighbours):
            lines.append("The model was trained on this slide: its own spots are among the neighbours.")
        self.facts.setText("\n".join(lines))

    def show_picture(self, picture: npt.NDArray[np.uint8] | None) -> None:
        """Show the tile's picture at the model's scale; None while it is being read."""
        if picture is None:
            self.picture.clear()
            self.picture.setText("…")
        else:
            self.picture.setPixmap(pixmap(picture, PICTURE_PX))

    def show_no_picture(self, why: str) -> None:
        """Show that the picture cannot be read, with the reason as tooltip."""
        self.picture.setText("no picture")
        self.picture.setToolTip(why)


def likeness(unlike: float) -> str:
    """Return a sentence on how similar a tile is to the training tissue; see `Explanation.unlike`."""
    if unlike > UNLIKE:
        return f"Less like the training tissue than {unlike:.0%} of its own spots: take care"
    return f"More like the training tissue than {1 - unlike:.0%} of its own spots"


def pixmap(picture: npt.NDArray[np.uint8], side: int) -> QPixmap:
    """Convert a picture, uint8 (rows, cols, 3), to a pixmap with `side` pixels on its longer side."""
    rows, cols = picture.shape[:2]
    image = QImage(picture.tobytes(), cols, rows, 3 * cols, QImage.Format.Format_RGB888)
    return QPixmap.fromImage(image).scaled(
        side, side, Qt.AspectRatioMode.KeepAspectRatio, Qt.TransformationMode.SmoothTransformation
    )
