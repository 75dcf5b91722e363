"""Arrangement of docks on a low screen: a new dock becomes a tab, or leaves room for the docks above it."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import QEvent, QObject, Qt, QTimer
from qtpy.QtWidgets import QDockWidget, QMainWindow, QWidget

from napari_chrep.ui.parts import ancestor

#: Share of its preferred height that a new dock gets at least.
_SHARE = 0.75


class _FirstShow(QObject):
    """Event filter that arranges a widget's dock once, when the widget is first shown and laid out."""

    def __init__(self, widget: QWidget) -> None:
        super().__init__(widget)
        self._widget = widget
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._arrange)
        widget.installEventFilter(self)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:  # noqa: N802
        """Start the timer when the widget is first shown."""
        if event is not None and event.type() == QEvent.Type.Show:
            self._widget.removeEventFilter(self)
            self._timer.start(0)
        return False

    def _arrange(self) -> None:
        dock, window = self._surroundings()
        if dock is None or window is None:
            return
        beside = _beside(window, dock)
        if beside:
            self._place(window, dock, beside)

    def _surroundings(self) -> tuple[QDockWidget | None, QMainWindow | None]:
        """Return the dock and the window of the widget; None if there are none, or the dock floats."""
        dock, window = ancestor(self._widget, QDockWidget), ancestor(self._widget, QMainWindow)
        return (None, None) if dock is None or dock.isFloating() else (dock, window)

    def _place(self, window: QMainWindow, dock: QDockWidget, beside: list[QDockWidget]) -> None:
        raise NotImplementedError


class _ContentSize(QObject):
    """Event filter that calls a function when the content of a widget has changed its size."""

    def __init__(self, widget: QWidget, changed: Callable[[], None]) -> None:
        super().__init__(widget)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(changed)
        widget.installEventFilter(self)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:  # noqa: N802
        """Start the timer when a new layout is requested; it fires once the layout is done."""
        if event is not None and event.type() == QEvent.Type.LayoutRequest:
            self._timer.start(0)
        return False


class TabWhenLow(_FirstShow):
    """Event filter that turns a widget's dock into a tab if it is first shown with too little height.

    napari stacks the docks of a side; on a small screen the third gets only a few lines. If the user moves
    the dock later, it stays there.

    Parameters
    ----------
    widget : QWidget
        A widget in a dock.
    least : int
        Least height in pixels with which the dock stays in the stack.
    """

    def __init__(self, widget: QWidget, least: int) -> None:
        super().__init__(widget)
        self._least = least

    def _place(self, window: QMainWindow, dock: QDockWidget, beside: list[QDockWidget]) -> None:
        if self._widget.height() < self._least:
            window.tabifyDockWidget(max(beside, key=lambda other: other.height()), dock)
            dock.raise_()


class LeaveRoom(_FirstShow):
    """Event filter that gives the docks above a new one their preferred height, and the new one the rest.

    Qt gives a new dock its preferred height, and leaves the others a few lines on a small screen. Here the
    new one gets less, down to three quarters of that. If its content grows later, the dock grows to the least
    height of the content, so that nothing in it is squeezed.

    Parameters
    ----------
    widget : QWidget
        A widget in a dock.
    """

    def __init__(self, widget: QWidget) -> None:
        super().__init__(widget)
        self._content = _ContentSize(widget, self._grow)

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
    """Return the other visible docks on the same side as a dock."""
    return [
        other
        for other in window.findChildren(QDockWidget)
        if other is not dock
        and other.isVisible()
        and not other.visibleRegion().isEmpty()
        and window.dockWidgetArea(other) == window.dockWidgetArea(dock)
    ]
