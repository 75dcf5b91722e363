"""Draw a colour bar with limits and unit for each visible map.

napari's own colour bar covers tissue on the canvas and has no unit. It also renders its text anew for every
change of limits, which blocks the window longer than all other work for a map. Painting these bars is quick.
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
    """Label, limits as text, unit and colours of one bar; `rgba` holds (`_STEPS`, 4) bytes."""

    label: str
    low: str
    high: str
    unit: str
    rgba: bytes


class ColourBars(QWidget):
    """Widget with one colour bar per line; maps with the same colours, limits and unit share a bar.

    Parameters
    ----------
    heatmaps : Heatmaps
        The maps. The bars are updated when the user changes limits or colours in napari's controls.
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
        """Return a height of one line of text per bar."""
        return QSize(200, len(self.bars) * self._line())

    def minimumSizeHint(self) -> QSize:  # noqa: N802
        """Return the size hint, so that no line is cut off."""
        return self.sizeHint()

    def update_bars(self, _event: Any = None) -> None:
        """Update the bars from the visible layers."""
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
        """Paint label, lower limit, colours, upper limit and unit, aligned across all lines."""
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
        """Listen to changes of these layers, and stop listening to other ones."""
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
    """Return a limit as text, with enough decimals to tell it from the other one and a true minus sign."""
    decimals = max(0, 1 - int(np.floor(np.log10(limits[1] - limits[0]))))
    return f"{value:.{decimals}f}".replace("-", "−")
