"""A tall widget on a low screen becomes a tab, on a high one it stays in the stack."""

from __future__ import annotations

import pytest
from qtpy.QtCore import QSize, Qt
from qtpy.QtWidgets import QDockWidget, QMainWindow, QVBoxLayout, QWidget

from napari_chrep.ui.dock_heights import LeaveRoom, TabWhenLow
from napari_chrep.ui.parts import ancestor

RIGHT = Qt.DockWidgetArea.RightDockWidgetArea


@pytest.fixture
def stack(qtbot):
    """A window of a given height with three docks, the third one with a widget that wants 300 px."""

    def stack(height):
        window = QMainWindow()
        qtbot.addWidget(window)
        window.setCentralWidget(QWidget())
        docks = []
        for least in (100, 150, 80):
            dock = QDockWidget(window)
            content = QWidget()
            content.setMinimumHeight(least)
            dock.setWidget(content)
            window.addDockWidget(RIGHT, dock)
            docks.append(dock)
        window.resize(500, height)
        TabWhenLow(docks[2].widget(), 300)
        window.show()
        qtbot.waitExposed(window)
        qtbot.wait(100)
        return window, docks

    return stack


def test_on_a_low_screen_it_becomes_a_tab_and_is_in_front(stack):
    window, (first, second, third) = stack(420)
    assert third in window.tabifiedDockWidgets(second) or third in window.tabifiedDockWidgets(first)
    assert not third.widget().visibleRegion().isEmpty()


def test_on_a_high_screen_it_stays(stack):
    window, docks = stack(1400)
    assert docks[2].widget().height() >= 300
    assert window.tabifiedDockWidgets(docks[2]) == []


def test_where_the_user_puts_it_later_it_stays(stack, qtbot):
    window, (_, _, third) = stack(420)
    window.removeDockWidget(third)
    window.addDockWidget(RIGHT, third)
    third.show()
    qtbot.wait(100)
    assert window.tabifiedDockWidgets(third) == []


def test_the_docks_above_keep_what_they_ask_for(stack, qtbot):
    window, docks = stack(1400)
    fourth = QDockWidget(window)
    greedy = _Greedy()
    fourth.setWidget(greedy)
    LeaveRoom(greedy)
    wanted = [dock.sizeHint().height() for dock in docks]
    window.addDockWidget(RIGHT, fourth)
    qtbot.wait(100)
    assert all(dock.height() >= least for dock, least in zip(docks, wanted, strict=True))


class _Greedy(QWidget):
    def sizeHint(self):  # noqa: N802
        return QSize(200, 5000)


def test_a_dock_of_the_menu_is_not_opened_again(desk):
    (menu,) = [a.menu() for a in desk.viewer.window._qt_window.menuBar().actions() if a.text() == "&Plugins"]
    (ours,) = [a.menu() for a in menu.actions() if a.text() == "CHRep"]
    (entry,) = [a for a in ours.actions() if a.text().startswith("Slide explorer")]
    entry.trigger()
    docks = desk.viewer.window.dock_widgets
    assert list(docks.values()) == [desk.dock("Slide explorer")]
    genes = desk.dock("Genes")
    (entry,) = [a for a in ours.actions() if a.text().startswith("Genes")]
    entry.trigger()
    assert len(docks) == 2
    dock = ancestor(genes, QDockWidget)
    dock.hide()
    assert desk.dock("Genes") is genes and not dock.isHidden()


def test_it_gets_more_room_once_it_holds_more(stack, qtbot):
    window, docks = stack(1400)
    content = docks[2].widget()
    LeaveRoom(content)
    rows = QVBoxLayout(content)
    qtbot.wait(50)
    former = content.height()
    for _ in range(4):
        row = QWidget()
        row.setFixedHeight(former // 3)
        rows.addWidget(row)
        row.show()
    qtbot.waitUntil(lambda: content.height() >= rows.totalMinimumSize().height(), timeout=2000)
    assert content.height() > former and window.height() == 1400
