"""The docks of this plugin, opened from code as the Plugins menu opens them."""

from __future__ import annotations

from typing import Any

PLUGIN = "napari-chrep"


def show_dock(viewer: Any, title: str) -> Any:
    """Return a widget of the plugin, in a dock that is opened unless it is there.

    napari names a dock after the plugin's display name when it is opened from the menu, and after its package
    when it is opened with ``add_plugin_dock_widget``; so either would open a second one beside the other's.

    Parameters
    ----------
    viewer : napari.Viewer
        In whose window.
    title : str
        Of the widget, as in the manifest.

    Returns
    -------
    QWidget
        The widget itself.
    """
    from npe2 import PluginManager
    from qtpy.QtWidgets import QDockWidget

    from napari_chrep.ui.parts import ancestor

    manager, open_docks = PluginManager.instance(), viewer.window.dock_widgets
    by_menu = f"{title} ({manager.get_manifest(PLUGIN).display_name})"
    for name in (by_menu, f"{title} ({PLUGIN})"):
        if name in open_docks:
            dock = ancestor(open_docks[name], QDockWidget)
            if dock is not None:
                dock.show()
                dock.raise_()
            return open_docks[name]
    kind = next(w for w in manager.iter_widgets() if w.plugin_name == PLUGIN and w.display_name == title)
    widget = kind.get_callable()(viewer)
    viewer.window.add_dock_widget(widget, name=by_menu, area="right")
    return widget
