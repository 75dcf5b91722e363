"""Drive a real napari window with simulated mouse events, and take screenshots of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from napari.utils.colormaps import ensure_colormap
from PIL import Image, ImageColor
from qtpy.QtCore import QMimeData, QPoint, QPointF, Qt, QTimer, QUrl
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import (
    QApplication,
    QCheckBox,
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QDockWidget,
    QPushButton,
    QRadioButton,
    QScrollArea,
    QTabBar,
    QTableView,
    QWidget,
)

from napari_chrep.canvas.maps import BLEND, KINDS
from napari_chrep.canvas.picking import FRAME_RGBA, PINNED_RGBA
from napari_chrep.retrain.curves import COLOURS
from napari_chrep.ui.dock_heights import ancestor

TIMEOUT_S = 300
_LEFT = Qt.MouseButton.LeftButton
#: Waiting time before a screenshot: longer than a frame, a thumbnail and the throttles of the widgets take.
_SETTLED_MS = 2000
#: Number of colours for each colour bar in a picture of 256 colours.
_BAR_COLOURS = 16


class WindowDriver:
    """Simulated user of a window, who clicks, drops files and chooses entries.

    After each action the window gets time to react.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer whose window is driven.
    """

    def __init__(self, viewer: Any) -> None:
        self.viewer = viewer

    def click(self, widget: QWidget, at: QPoint | None = None) -> None:
        """Click on a widget: on the box of a check box, or in the middle, unless a place is given."""
        if not widget.isVisible() or not widget.isEnabled():
            raise RuntimeError(f"nobody could click on {widget!r}")
        above = ancestor(widget, QScrollArea)
        if above is not None:  # as a user would with the wheel
            above.ensureWidgetVisible(widget)
        box = (
            QPoint(8, widget.height() // 2)
            if isinstance(widget, QCheckBox | QRadioButton)
            else widget.rect().center()
        )
        QTest.mouseClick(widget, _LEFT, pos=box if at is None else at)
        QTest.qWait(100)

    def menu(self, *titles: str) -> None:
        """Choose an entry of the window's menus, by a click on each title."""
        bar = self.viewer.window._qt_window.menuBar()
        action = _titled(bar.actions(), titles[0])
        QTest.mouseClick(bar, _LEFT, pos=bar.actionGeometry(action).center())
        for title in titles[1:]:
            menu = action.menu()
            self.wait(lambda menu=menu: menu.isVisible())
            action = _titled(menu.actions(), title)
            QTest.mouseClick(menu, _LEFT, pos=menu.actionGeometry(action).center())
        bar.setActiveAction(None)  # no real mouse leaves the bar, so it is deactivated here
        QTest.qWait(300)

    def front(self, widget: QWidget) -> None:
        """Click on the tab of a widget's dock."""
        title = ancestor(widget, QDockWidget).windowTitle()
        for tabs in self.viewer.window._qt_window.findChildren(QTabBar):
            titles = [tabs.tabText(place) for place in range(tabs.count())]
            if title in titles:
                self.click(tabs, tabs.tabRect(titles.index(title)).center())

    def choose(self, box: QComboBox, text: str) -> None:
        """Choose an entry of a drop-down list."""
        self.click(box)
        QTest.qWait(
            QApplication.doubleClickInterval() + 100
        )  # sooner, Qt would count it as part of the first click
        entries = box.view()
        index = entries.model().index(box.findText(text), 0)
        self.click(entries.viewport(), entries.visualRect(index).center())

    def row(self, table: QTableView, row: int, column: int = 0) -> None:
        """Click on a cell of a table, scrolled to it."""
        index = table.model().index(row, column)
        table.scrollTo(index, QTableView.ScrollHint.PositionAtCenter)
        QTest.qWait(50)
        self.click(table.viewport(), table.visualRect(index).center())

    def accept(self, dialog: Any) -> None:
        """Press the Save or Open button of a file dialog."""
        self.wait(dialog.isVisible)
        box = dialog.findChild(QDialogButtonBox)
        yes = (QDialogButtonBox.StandardButton.Save, QDialogButtonBox.StandardButton.Open)
        self.click(next(button for kind in yes if (button := box.button(kind)) is not None))

    def drop(self, path: Path, reader: str) -> None:
        """Drop a file on the window, and choose a reader if napari asks for one."""
        mime = QMimeData()
        mime.setUrls([QUrl.fromLocalFile(str(path))])
        target, none = self.viewer.window._qt_viewer, Qt.KeyboardModifier.NoModifier
        copy, at, timer = Qt.DropAction.CopyAction, QPoint(200, 200), QTimer()

        def answer() -> None:
            dialog = QApplication.activeModalWidget()
            if isinstance(dialog, QDialog):
                timer.stop()
                self.click(_titled(dialog.findChildren(QRadioButton), reader))
                self.click(_titled(dialog.findChildren(QPushButton), "OK"))

        timer.timeout.connect(answer)
        timer.start(200)
        QApplication.sendEvent(target, QDragEnterEvent(at, copy, mime, _LEFT, none))
        QApplication.sendEvent(target, QDropEvent(QPointF(at), copy, mime, _LEFT, none))
        timer.stop()
        QTest.qWait(500)

    def wait(self, until: Callable[[], Any]) -> None:
        """Process the window's events until a condition holds.

        Raises
        ------
        TimeoutError
            The condition does not hold within `TIMEOUT_S`.
        """
        end = time.monotonic() + TIMEOUT_S
        while not until():
            if time.monotonic() > end:
                raise TimeoutError(f"nothing came of it in {TIMEOUT_S} s")
            QTest.qWait(20)

    def picture(self, path: Path, *, settled: bool = True) -> None:
        """Write a screenshot of the whole window as a PNG of 256 colours."""
        if settled:
            QTest.qWait(_SETTLED_MS)
        shot = Image.fromarray(self.viewer.window.screenshot(canvas_only=False, flash=False)).convert("RGB")
        # Lines and colour bars have too few pixels to get colours of their own.
        lines = [FRAME_RGBA[:3], PINNED_RGBA[:3], *(ImageColor.getrgb(name) for name in COLOURS), *_bars()]
        common = shot.quantize(256 - len(lines)).getpalette() or []
        palette = Image.new("P", (1, 1))
        palette.putpalette([*common, *(value for line in lines for value in line)])
        shot.quantize(palette=palette, dither=Image.Dither.NONE).save(path, optimize=True)
        print(path, f"{path.stat().st_size / 1000:.0f} kB")


def _bars() -> list[tuple[int, ...]]:
    """Return colours along the colour bar of every map."""
    steps = np.linspace(0, 1, _BAR_COLOURS, dtype=np.float32)
    colormaps = sorted({KINDS[kind].colormap for kind in KINDS if kind not in BLEND})
    return [
        tuple(int(255 * part) for part in rgba[:3])
        for colormap in colormaps
        for rgba in ensure_colormap(colormap).map(steps)
    ]


def _titled(candidates: Any, title: str) -> Any:
    """Return the action or button with this title."""
    for one in candidates:
        if one.text().replace("&", "").strip() == title:
            return one
    raise RuntimeError(f"no {title!r} among {[one.text() for one in candidates]}")
