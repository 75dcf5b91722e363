"""Read a slide's pixels for the canvas, even when the file is lost.

Pixels that cannot be read are replaced by stripes, and the user gets one notification.
"""

from __future__ import annotations

import threading

import numpy as np
from napari.utils.notifications import show_error
from psygnal import Signal
from qtpy.QtWidgets import QApplication
from superqt.utils import ensure_main_thread

from chrep_model.errors import SlideError
from chrep_model.slides.backends import RgbArray
from chrep_model.slides.slide import Slide

#: Greys of the stripes, which no tissue has, and the width of a stripe in pixels.
_GREYS, _STRIPE_PX = (105, 150), 16

GONE = "the slide has been moved or deleted while it is open"
REMEDY = "Put it back, remove its layer, and open it again."


class SlidePixels:
    """Reader of a slide's pixels for display, which draws stripes where it cannot read.

    Black or invented pixels could be taken for tissue or background.

    Parameters
    ----------
    slide : Slide
        The slide to read.

    Attributes
    ----------
    trouble : str
        Why the slide can no longer be read, and what to do; empty while it can be read.
    lost : Signal
        Emitted once, on the Qt thread, when the slide can no longer be read.
    """

    lost = Signal()

    def __init__(self, slide: Slide) -> None:
        self._slide = slide
        self._path = slide.path.absolute()
        self._lock = threading.Lock()
        self.trouble = ""

    def read(self, row: int, col: int, height: int, width: int, level: int = 0) -> RgbArray:
        """Read a region as `Slide.read` does; stripes if it cannot be read. Any thread may call this."""
        try:
            pixels = self._slide.read(row, col, height, width, level)
        except SlideError as error:
            if not self.check():
                self._report(str(error))
            return _hatching(row, col, height, width)
        self.check()
        return pixels

    def check(self) -> bool:
        """Return whether the file is gone, and notify the user if it is.

        Some systems still return pixels of a deleted file while it is open.
        """
        gone = not self._path.exists()
        if gone:
            self._report(str(SlideError(GONE, path=self._path, remedy=REMEDY)))
        return gone

    def _report(self, text: str) -> None:
        """Store the reason and notify the user, the first time only."""
        with self._lock:
            known, self.trouble = bool(self.trouble), self.trouble or text
        if known:
            return
        show_error(text)
        if QApplication.instance() is not None:
            _emit_lost(self)


@ensure_main_thread
def _emit_lost(shown: SlidePixels) -> None:
    shown.lost.emit()


def _hatching(row: int, col: int, height: int, width: int) -> RgbArray:
    """Return a region of diagonal stripes, which join those of neighbouring regions."""
    rows, cols = np.ogrid[row : row + height, col : col + width]
    greys = np.array(_GREYS, np.uint8)[(rows + cols) // _STRIPE_PX % 2]
    return np.repeat(greys[..., None], 3, axis=-1)
