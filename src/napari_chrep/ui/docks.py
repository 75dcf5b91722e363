"""Function that opens the docks of this plugin as the Plugins menu does."""

from __future__ import annotations

from typing import Any

PLUGIN = "napari-chrep"


def show_dock(viewer: Any, title: str) -> Any:
    """Return a widget of the plugin, and open its dock unless it is open already.

    napari names a dock opened from the menu after the plugin's display name, and one opened with
    ``add_plugin_dock_widget`` after its package. Both names are searched, so that no dock is opened twice.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer whose window gets the dock.
    title : str
        Title of the widget in the manifest.

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
