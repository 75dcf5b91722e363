"""Plot the measured values of the neighbours against those of all training spots.

The plot is painted with Qt, which is quick enough to redraw it for each click.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen
from qtpy.QtWidgets import QSizePolicy, QWidget

from chrep_model.analysis.explanation import Explanation
from napari_chrep.neighbours.arithmetic import number

BINS = 24
_HEIGHT = 104
_ACCENT = QColor("#e08214")  # orange: colour-blind people tell it from grey, on light and dark
_VALUE = QColor("#00a6c4")

Bars = npt.NDArray[np.float64]


def bars(
    values: npt.NDArray[np.float32], weights: npt.NDArray[np.float64] | None, low: float, high: float
) -> Bars:
    """Return the weighted fraction of values in each of `BINS` bins between low and high, (BINS,)."""
    counts, _ = np.histogram(values, BINS, (low, high), weights=weights)
    return counts / max(float(counts.sum()), 1e-12)


class Distribution(QWidget):
    """Two histograms of measured values on one axis, with the tile's value and its interval."""

    def __init__(self) -> None:
        super().__init__()
        self._why: Explanation | None = None
        self._gallery = self._near = np.zeros(BINS)
        self._range = (0.0, 1.0)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def sizeHint(self) -> QSize:  # noqa: N802
        """Return a size with the plot's fixed height."""
        return QSize(240, _HEIGHT)

    def show_explanation(self, why: Explanation) -> None:
        """Show the measured values and the interval of an explanation."""
        shown = [n for n in why.neighbours if n.measured is not None]
        near = np.array([n.measured for n in shown], np.float32)
        weights = np.array([1.0 if n.weight is None else n.weight for n in shown])
        start, end = why.interval or (why.value, why.value)
        low = min(float(why.gallery.min(initial=np.inf)), start)
        high = max(float(why.gallery.max(initial=-np.inf)), end)
        self._range = (low, high) if high > low else (low - 0.5, low + 0.5)
        self._gallery, self._near = bars(why.gallery, None, *self._range), bars(near, weights, *self._range)
        self._why = why
        interval = "" if why.half_width is None else ", its 90 % interval as a band"
        self.setToolTip(
            f"Grey: {len(why.gallery):,} spots of the gallery. Orange: the neighbours, by their weights. "
            f"Line: the tile's value{interval}."
        )
        self.update()

    def paintEvent(self, _event: QPaintEvent | None) -> None:  # noqa: N802
        """Paint the tile's value and interval, the histograms over them, and the axis."""
        if self._why is None:
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        ink = self.palette().windowText().color()
        line = painter.fontMetrics().height()
        area = QRectF(2, line + 4, self.width() - 4, self.height() - 2 * line - 8)
        grey = QColor(ink)
        grey.setAlpha(90)
        self._paint_value(painter, area)
        self._paint_bars(painter, area, self._gallery, grey, 0.92)
        self._paint_bars(painter, area, self._near, _ACCENT, 0.46)
        painter.setPen(QPen(ink, 1))
        painter.drawLine(area.bottomLeft(), area.bottomRight())
        self._paint_texts(painter, area, ink)
        painter.end()

    def _x(self, area: QRectF, value: float) -> float:
        low, high = self._range
        return area.left() + (value - low) / (high - low) * area.width()

    def _paint_value(self, painter: QPainter, area: QRectF) -> None:
        assert self._why is not None  # noqa: S101  (checked by the caller)
        if self._why.interval is not None:
            band = QColor(_VALUE)
            band.setAlpha(50)
            left, right = (self._x(area, end) for end in self._why.interval)
            painter.fillRect(QRectF(left, area.top(), right - left, area.height()), band)
        painter.setPen(QPen(_VALUE, 2))
        at = self._x(area, self._why.value)
        painter.drawLine(QPointF(at, area.top()), QPointF(at, area.bottom()))

    def _paint_bars(
        self, painter: QPainter, area: QRectF, shares: Bars, colour: QColor, breadth: float
    ) -> None:
        top = max(float(self._gallery.max()), float(self._near.max()), 1e-12)
        step = area.width() / BINS
        for place, share in enumerate(shares):
            height = share / top * area.height()
            left = area.left() + (place + (1 - breadth) / 2) * step
            painter.fillRect(QRectF(left, area.bottom() - height, breadth * step, height), colour)

    def _paint_texts(self, painter: QPainter, area: QRectF, ink: QColor) -> None:
        low, high = self._range
        below = QRectF(area.left(), area.bottom() + 2, area.width(), painter.fontMetrics().height() + 2)
        painter.setPen(ink)
        painter.drawText(below, Qt.AlignmentFlag.AlignLeft, number(low))
        painter.drawText(below, Qt.AlignmentFlag.AlignRight, number(high))
        painter.drawText(below, Qt.AlignmentFlag.AlignHCenter, "measured, log10-spot")
        above = QRectF(area.left(), 0, area.width(), area.top())
        left = above.left()
        for text, colour in (("gallery", ink), ("neighbours", _ACCENT), ("this tile", _VALUE)):
            painter.setPen(colour)
            painter.drawText(QRectF(left, 0, above.width(), above.height()), Qt.AlignmentFlag.AlignLeft, text)
            left += painter.fontMetrics().horizontalAdvance(text) + 14
