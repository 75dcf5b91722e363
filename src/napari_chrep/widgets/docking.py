"""Room for a tall widget on a low screen."""

from __future__ import annotations

from typing import TypeVar

from qtpy.QtCore import QEvent, QObject, QTimer
from qtpy.QtWidgets import QDockWidget, QMainWindow, QWidget

T = TypeVar("T", bound=QWidget)


class TabWhenLow(QObject):
    """Turns a widget's dock into a tab when it first shows with too little height to be of use.

    napari stacks the docks of a side; the third of them gets a few lines on a small screen. Where the user
    moves the dock later, it stays.

    Parameters
    ----------
    widget : QWidget
        In a dock.
    least : int
        Height in pixels with which it stays in the stack.
    """

    def __init__(self, widget: QWidget, least: int) -> None:
        super().__init__(widget)
        self._widget, self._least = widget, least
        self._timer = QTimer(self)  # once the window has laid itself out
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._look)
        widget.installEventFilter(self)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:  # noqa: N802
        """Wait for the first show."""
        if event is not None and event.type() == QEvent.Type.Show:
            self._widget.removeEventFilter(self)
            self._timer.start(0)
        return False

    def _look(self) -> None:
        dock, window = _ancestor(self._widget, QDockWidget), _ancestor(self._widget, QMainWindow)
        if dock is None or window is None or dock.isFloating() or self._widget.height() >= self._least:
            return
        area = window.dockWidgetArea(dock)
        beside = [
            other
            for other in window.findChildren(QDockWidget)
            if other is not dock and other.isVisible() and window.dockWidgetArea(other) == area
        ]
        if beside:
            window.tabifyDockWidget(max(beside, key=lambda other: other.height()), dock)
            dock.raise_()


def _ancestor(widget: QWidget, kind: type[T]) -> T | None:
    above = widget.parentWidget()
    while above is not None and not isinstance(above, kind):
        above = above.parentWidget()
    return above
