"""Heights of docks on a low screen: a dock becomes a tab, or leaves room for those above it."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import QEvent, QObject, Qt, QTimer
from qtpy.QtWidgets import QDockWidget, QMainWindow, QWidget

from napari_chrep.ui.parts import ancestor

#: Of the height that a new dock asks for, so much is enough for it.
_SHARE = 0.75


class _FirstShow(QObject):
    """Looks at a widget's dock once, when it first shows and the window has laid itself out."""

    def __init__(self, widget: QWidget) -> None:
        super().__init__(widget)
        self._widget = widget
        self._timer = QTimer(self)
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
        dock, window = self._surroundings()
        if dock is None or window is None:
            return
        beside = _beside(window, dock)
        if beside:
            self._place(window, dock, beside)

    def _surroundings(self) -> tuple[QDockWidget | None, QMainWindow | None]:
        """Return the dock and the window around the widget; None if it has none, or floats."""
        dock, window = ancestor(self._widget, QDockWidget), ancestor(self._widget, QMainWindow)
        return (None, None) if dock is None or dock.isFloating() else (dock, window)

    def _place(self, window: QMainWindow, dock: QDockWidget, beside: list[QDockWidget]) -> None:
        raise NotImplementedError


class _Content(QObject):
    """Calls a function when what a widget holds has changed its size, once it is laid out."""

    def __init__(self, widget: QWidget, changed: Callable[[], None]) -> None:
        super().__init__(widget)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(changed)
        widget.installEventFilter(self)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:  # noqa: N802
        """Wait for the end of the turn in which the layout was asked for."""
        if event is not None and event.type() == QEvent.Type.LayoutRequest:
            self._timer.start(0)
        return False


class TabWhenLow(_FirstShow):
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
        self._least = least

    def _place(self, window: QMainWindow, dock: QDockWidget, beside: list[QDockWidget]) -> None:
        if self._widget.height() < self._least:
            window.tabifyDockWidget(max(beside, key=lambda other: other.height()), dock)
            dock.raise_()


class LeaveRoom(_FirstShow):
    """Gives the docks above a widget's the height they ask for, when it first shows, and it what remains.

    Qt gives a new dock all the room it asks for, and leaves the others a few lines on a small screen. Here
    the new one makes do with less, down to three quarters of what it asks for. Later, when it holds more than
    it has room for, it gets what that needs at least, as nothing in it should be squeezed.

    Parameters
    ----------
    widget : QWidget
        In a dock.
    """

    def __init__(self, widget: QWidget) -> None:
        super().__init__(widget)
        self._content = _Content(widget, self._grow)

    def _grow(self) -> None:
        layout, (dock, window) = self._widget.layout(), self._surroundings()
        if layout is None or dock is None or window is None or not self._widget.isVisible():
            return
        short = layout.totalMinimumSize().height() - self._widget.height()
        beside = _beside(window, dock)
        if short > 0 and beside:
            share = 1 - short / sum(other.height() for other in beside)
            heights = [int(share * other.height()) for other in beside]
            window.resizeDocks([*beside, dock], [*heights, dock.height() + short], Qt.Orientation.Vertical)

    def _place(self, window: QMainWindow, dock: QDockWidget, beside: list[QDockWidget]) -> None:
        heights = [other.sizeHint().height() for other in beside]
        room = sum(each.height() for each in (dock, *beside))
        rest = max(room - sum(heights), int(_SHARE * dock.sizeHint().height()))
        window.resizeDocks([*beside, dock], [*heights, rest], Qt.Orientation.Vertical)


def _beside(window: QMainWindow, dock: QDockWidget) -> list[QDockWidget]:
    """Return the other docks of a dock's side that can be seen."""
    return [
        other
        for other in window.findChildren(QDockWidget)
        if other is not dock
        and other.isVisible()
        and not other.visibleRegion().isEmpty()
        and window.dockWidgetArea(other) == window.dockWidgetArea(dock)
    ]
