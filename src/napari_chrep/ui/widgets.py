"""Base classes of the plugin's widgets."""

from __future__ import annotations

import weakref
from typing import Any

from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_chrep.state.session import Session
from napari_chrep.state.viewers import kept_for, unwrapped
from napari_chrep.ui.parts import Connections, Scrolling

#: Margin around the column of a widget, in pixels.
MARGIN = 8


class ViewerWidget(QWidget):
    """Base of the widgets in docks of a viewer; all widgets of one viewer share its session.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The viewer or a proxy of it; only a weak reference is kept.

    Attributes
    ----------
    session : Session
        The session of the viewer.
    connections : Connections
        Connections that end with the widget.
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        self._viewer = weakref.ref(unwrapped(napari_viewer))
        self.session = kept_for(napari_viewer, Session)
        self.connections = Connections(self)


class ScrollingWidget(ViewerWidget):
    """Base of the widgets with one column of parts, which scrolls on a low screen."""

    def add_column(self, spacing: int) -> QVBoxLayout:
        """Fill the widget with a column, and return its layout, to which parts can be added.

        Parameters
        ----------
        spacing : int
            Distance between the parts, in pixels.
        """
        content = QWidget()
        column = QVBoxLayout(content)
        column.setContentsMargins(MARGIN, MARGIN, MARGIN, MARGIN)
        column.setSpacing(spacing)
        self.scroll_area = Scrolling(content)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.scroll_area)
        return column
