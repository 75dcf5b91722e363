"""The dock widgets. They know the session, never torch."""

from napari_chrep.widgets.explorer import ExplorerWidget
from napari_chrep.widgets.genes import GenesWidget

__all__ = ["ExplorerWidget", "GenesWidget"]
