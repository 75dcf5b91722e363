"""Labels, layouts and a scroll area that the widgets share, and connections that end with a widget."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from qtpy.QtCore import QEvent, QObject, QSize, Qt
from qtpy.QtWidgets import QLabel, QScrollArea, QScrollBar, QSizePolicy, QVBoxLayout, QWidget

T = TypeVar("T", bound=QWidget)


class Connections:
    """Connections to objects that outlive a widget, ended when Qt destroys the widget.

    An event of psygnal or napari that reaches a deleted Qt widget raises an error. So all connections of a
    widget to its session, engine, heatmaps or viewer are made here.
    """

    def __init__(self, owner: QWidget) -> None:
        self._made: list[tuple[Any, Callable[..., None]]] = []
        # A partial of a function, as Qt would only keep a weak reference to a bound method.
        owner.destroyed.connect(partial(_end, self._made))

    def add(self, signal: Any, slot: Callable[..., None]) -> None:
        """Connect `slot` to `signal` (anything with ``connect`` and ``disconnect``)."""
        signal.connect(slot)
        self._made.append((signal, slot))

    def end(self, signal: Any, slot: Callable[..., None]) -> None:
        """Disconnect `slot` from `signal` while the widget exists."""
        self._made.remove((signal, slot))
        signal.disconnect(slot)


def _end(made: list[tuple[Any, Callable[..., None]]], _destroyed: Any = None) -> None:
    while made:
        signal, slot = made.pop()
        signal.disconnect(slot)


class Scrolling(QScrollArea):
    """Scroll area that is as wide as its content, and scrolls it only vertically."""

    def __init__(self, content: QWidget) -> None:
        super().__init__()
        self._content, self._bar = content, QScrollBar()
        self.setVerticalScrollBar(self._bar)
        self.setWidgetResizable(True)
        self.setFrameShape(QScrollArea.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setWidget(content)

    def sizeHint(self) -> QSize:  # noqa: N802
        """Return the preferred size of the content, which a plain scroll area does not."""
        return self._with_bar(self._content.sizeHint())

    def minimumSizeHint(self) -> QSize:  # noqa: N802
        """Return the least width of the content, and a small height."""
        return QSize(self._with_bar(self._content.minimumSizeHint()).width(), 160)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:  # noqa: N802
        """Update the geometry when the content requests a new layout."""
        if event is not None and event.type() == QEvent.Type.LayoutRequest:
            self.updateGeometry()
        return super().eventFilter(watched, event)

    @property
    def bar_width(self) -> int:
        """Width of the scroll bar in pixels, whether it is visible or not."""
        return self._bar.sizeHint().width()

    def _with_bar(self, size: QSize) -> QSize:
        return QSize(size.width() + self.bar_width, size.height())


def heading(text: str, *, larger: bool = False) -> QLabel:
    """Return a label in bold as heading of a section, or with `larger` as title of a widget."""
    label = QLabel(text)
    label.setTextFormat(Qt.TextFormat.PlainText)
    # A style sheet, because napari's own one outranks the label's font.
    label.setStyleSheet("font-weight: bold;" + (" font-size: 15pt;" if larger else ""))
    return label


def note(text: str = "") -> QLabel:
    """Return a label for plain text that wraps, and can be selected and copied."""
    label = QLabel(text)
    label.setWordWrap(True)
    # Names of genes and slides come from files: as plain text, markup in them stays harmless.
    label.setTextFormat(Qt.TextFormat.PlainText)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
    return label


def sentence(text: str) -> str:
    """Return a text with a capital first letter; messages of errors start with a small one."""
    return text[:1].upper() + text[1:]


def stack(*widgets: QWidget) -> QVBoxLayout:
    """Return a layout of widgets below each other, close together."""
    column = QVBoxLayout()
    column.setContentsMargins(0, 0, 0, 0)
    column.setSpacing(4)
    for widget in widgets:
        column.addWidget(widget)
    return column


def ancestor(widget: QWidget, kind: type[T]) -> T | None:
    """Return the nearest widget of a class that contains another widget; None if there is none."""
    above = widget.parentWidget()
    while above is not None and not isinstance(above, kind):
        above = above.parentWidget()
    return above
