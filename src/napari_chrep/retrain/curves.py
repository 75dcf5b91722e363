"""Plot loss and held-out PCC of the networks while they are trained."""

from __future__ import annotations

import time
from typing import Any

from qtpy.QtCore import QEvent, QTimer
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_chrep.retrain.messages import Curve

#: Minimum time between two redraws, in milliseconds.
_REDRAW_MS = 300
#: Maximum number of names that fit into the legend.
_MAX_NAMES = 8
#: Maximum length of names for a legend with four columns; longer ones get two columns.
_SHORT_NAME = 9
#: Colours safe for colour-blind people, readable on light and dark (Okabe & Ito, without black and yellow).
COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#d55e00", "#cc79a7", "#0072b2")
_NONE_HELD_OUT = "the rest"

Points = list[tuple[int, float, float | None]]


class Curves(QWidget):
    """Two plots over the epochs, with one line per network and one colour per held-out section.

    Attributes
    ----------
    lines : dict
        List of (epoch, loss, held-out PCC or None) by part of the fit, see `Epoch.part`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[str, Points] = {}
        self._stage = ""
        self._redraw_ms = _REDRAW_MS
        self._canvas: Any = None
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._draw)

    def clear(self) -> None:
        """Remove all lines."""
        self.lines, self._stage = {}, ""
        self._draw()

    def add(self, point: Curve) -> None:
        """Add an epoch to its line; the first one of another model removes the former model's lines."""
        if point.stage != self._stage:
            self.lines, self._stage = {}, point.stage
        self.lines.setdefault(point.part, []).append((point.number, point.loss, point.held_out))
        if not self._timer.isActive():
            self._timer.start(self._redraw_ms)

    def changeEvent(self, event: QEvent | None) -> None:  # noqa: N802
        """Redraw when the theme of the window changes."""
        super().changeEvent(event)
        kinds = (QEvent.Type.PaletteChange, QEvent.Type.StyleChange)
        if event is not None and event.type() in kinds and not self._timer.isActive():
            self._timer.start(self._redraw_ms)

    def _create_figure(self) -> None:
        """Create the matplotlib figure, which is done late because importing matplotlib is slow."""
        from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg
        from matplotlib.figure import Figure

        self._figure = figure = Figure(figsize=(3.2, 3.0), layout="constrained", facecolor="none")
        self._loss, self._pcc = figure.subplots(2, 1, sharex=True)
        canvas: Any = FigureCanvasQTAgg  # matplotlib has no type hints
        self._canvas = canvas(figure)
        self._canvas.setMinimumHeight(220)
        self._canvas.setStyleSheet("background-color: transparent;")
        column = self.layout()
        assert column is not None  # noqa: S101  (set in __init__)
        column.addWidget(self._canvas)

    def _draw(self) -> None:
        """Draw both plots anew."""
        if self._canvas is None:
            if not self.lines:
                return
            self._create_figure()
        ink = self.palette().windowText().color().name()
        names = list(dict.fromkeys(held_out_of(part) for part in self.lines))
        for legend in list(self._figure.legends):
            legend.remove()
        for axes in (self._loss, self._pcc):
            _reset_axes(axes, ink)
        for part, points in self.lines.items():
            name = held_out_of(part)
            colour = ink if name == _NONE_HELD_OUT else COLOURS[names.index(name) % len(COLOURS)]
            style = {"color": colour, "linewidth": 1.2, "marker": ".", "markersize": 3}
            self._loss.plot([p[0] for p in points], [p[1] for p in points], **style)
            scored = [(number, pcc) for number, _, pcc in points if pcc is not None]
            if scored:
                self._pcc.plot(*zip(*scored, strict=True), **style)
        self._loss.set_ylabel("loss", color=ink, fontsize=8)
        self._pcc.set_ylabel("held-out PCC", color=ink, fontsize=8)
        self._pcc.set_xlabel(f"epoch ({self._stage})" if self._stage else "epoch", color=ink, fontsize=8)
        self._draw_legend(names, ink)
        begun = time.perf_counter()
        self._canvas.draw()
        # Drawing many lines is slow: it may take at most a tenth of the time.
        self._redraw_ms = max(_REDRAW_MS, int(10_000 * (time.perf_counter() - begun)))

    def _draw_legend(self, names: list[str], ink: str) -> None:
        """Add a legend with the held-out sections, if they fit."""
        from matplotlib.lines import Line2D

        shown = [name for name in names if name != _NONE_HELD_OUT]
        if 0 < len(shown) <= _MAX_NAMES:
            colours = [COLOURS[names.index(name) % len(COLOURS)] for name in shown]
            self._figure.legend(
                [Line2D([], [], color=colour) for colour in colours], shown, loc="outside upper center",
                ncols=4 if max(map(len, shown)) <= _SHORT_NAME else 2, fontsize=7, frameon=False,
                labelcolor=ink, handlelength=1.2,
            )  # fmt: skip


def held_out_of(part: str) -> str:
    """Return the section held out in a part of a fit, such as C2 for ``without C2/member 1``."""
    steps = [step for step in part.split("/") if step.startswith("without ")]
    return steps[-1].removeprefix("without ") if steps else _NONE_HELD_OUT


def _reset_axes(axes: Any, ink: str) -> None:
    """Empty the axes and set their style."""
    axes.clear()
    axes.set_facecolor("none")
    axes.tick_params(colors=ink, labelsize=7)
    axes.grid(visible=True, color=ink, alpha=0.15, linewidth=0.6)
    for side, spine in axes.spines.items():
        spine.set_color(ink)
        spine.set_visible(side in ("left", "bottom"))
