"""What the colours of the maps on show mean: one bar with its limits and its unit for each.

napari can draw a colour bar on the canvas, over the tissue and without a unit. With every change of limits
its letters are made anew, which stops the window for longer than all else about a map; these are painted at
once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from qtpy.QtCore import QRect, QSize, Qt
from qtpy.QtGui import QImage, QPainter, QPaintEvent
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_chrep.canvas.heatmaps import Heatmaps
from napari_chrep.canvas.maps import BLEND, KINDS
from napari_chrep.ui.parts import Connections

_STEPS = 256
_GAP = 6


@dataclass(frozen=True)
class Bar:
    """One bar: what it is of, the limits in words, the unit, and its colours as (`_STEPS`, 4) RGBA bytes."""

    label: str
    low: str
    high: str
    unit: str
    rgba: bytes


class ColourBars(QWidget):
    """A line for each map on show; maps of the same colours, limits and unit share one.

    Parameters
    ----------
    heatmaps : Heatmaps
        The layers; limits and colours that the user gives them in napari's controls are followed.
    """

    def __init__(self, heatmaps: Heatmaps) -> None:
        super().__init__()
        self.heatmaps = heatmaps
        self.bars: list[Bar] = []
        self._connections = Connections(self)
        self._followed: list[Any] = []
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.hide()
        self._connections.add(heatmaps.changed, self.update_bars)
        self.update_bars()

    def sizeHint(self) -> QSize:  # noqa: N802
        """Ask for one line of text for each bar."""
        return QSize(200, len(self.bars) * self._line())

    def minimumSizeHint(self) -> QSize:  # noqa: N802
        """Never show half a line."""
        return self.sizeHint()

    def update_bars(self, _event: Any = None) -> None:
        """Look at the layers again."""
        layers = ((kind, self.heatmaps.layer(kind)) for kind in reversed(self.heatmaps.visible))
        shown = [(kind, layer) for kind, layer in layers if layer is not None]
        self._follow([layer for _, layer in shown])
        labels: dict[tuple[Any, ...], list[str]] = {}
        for kind, layer in shown:
            key = (tuple(layer.contrast_limits), layer.colormap.name, KINDS[kind].unit)
            labels.setdefault(key, []).append(self._label(kind))
        colormaps = {layer.colormap.name: layer.colormap for _, layer in shown}
        bars = []
        for (limits, name, unit), names in labels.items():
            low, high = (_number(limit, limits) for limit in limits)
            bars.append(Bar(", ".join(names), low, high, unit, _rgba(colormaps[name])))
        if bars == self.bars:
            return
        other_size, self.bars = len(bars) != len(self.bars), bars
        if other_size:
            self.updateGeometry()
        self.setVisible(bool(bars))
        self.setToolTip(
            "\n".join(
                f"{bar.label}: from {bar.low} to {bar.high} {bar.unit}; beyond, the end's colour"
                for bar in bars
            )
        )
        self.update()

    def paintEvent(self, _event: QPaintEvent | None) -> None:  # noqa: N802
        """Paint label, lower limit, colours, upper limit and unit, aligned over all lines."""
        painter = QPainter(self)
        painter.setPen(self.palette().windowText().color())
        columns = [[bar.label for bar in self.bars] if len(self.bars) > 1 else []]
        columns += [[bar.low for bar in self.bars], [f"{bar.high} {bar.unit}" for bar in self.bars]]
        label, low, high = (
            max(map(painter.fontMetrics().horizontalAdvance, texts), default=0) for texts in columns
        )
        left, line = (label + _GAP if label else 0), self._line()
        for place, bar in enumerate(self.bars):
            row = QRect(0, place * line, self.width(), line)
            if label:
                painter.drawText(row, _LEFT, bar.label)
            painter.drawText(row.adjusted(left, 0, 0, 0), _LEFT, bar.low)
            painter.drawText(row.adjusted(self.width() - high, 0, 0, 0), _LEFT, f"{bar.high} {bar.unit}")
            colours = row.adjusted(left + low + _GAP, 3, -high - _GAP, -3)
            painter.drawImage(colours, QImage(bar.rgba, _STEPS, 1, QImage.Format.Format_RGBA8888))
        painter.end()

    def _follow(self, layers: list[Any]) -> None:
        """Listen to the layers on show, and no more to those of before."""
        for layer in [layer for layer in self._followed if layer not in layers]:
            for event in (layer.events.contrast_limits, layer.events.colormap):
                self._connections.end(event, self.update_bars)
        for layer in [layer for layer in layers if layer not in self._followed]:
            for event in (layer.events.contrast_limits, layer.events.colormap):
                self._connections.add(event, self.update_bars)
        self._followed = layers

    def _label(self, kind: str) -> str:
        session = self.heatmaps.session
        return str(session.second_gene if kind == BLEND[1] else session.gene) if kind in BLEND else kind

    def _line(self) -> int:
        return self.fontMetrics().height() + 4


_LEFT = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter


def _rgba(colormap: Any) -> bytes:
    colours = colormap.map(np.linspace(0, 1, _STEPS, dtype=np.float32))
    return bytes(np.round(255 * colours).astype(np.uint8).tobytes())


def _number(value: float, limits: tuple[float, float]) -> str:
    """Write a limit with as many decimals as tell it from the other one, with a true minus."""
    decimals = max(0, 1 - int(np.floor(np.log10(limits[1] - limits[0]))))
    return f"{value:.{decimals}f}".replace("-", "−")
