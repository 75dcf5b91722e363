"""The dock widgets. They know the session, never torch."""

from napari_chrep.widgets.explorer import ExplorerWidget
from napari_chrep.widgets.export import ExportWidget
from napari_chrep.widgets.genes import GenesWidget
from napari_chrep.widgets.neighbours import NeighboursWidget
from napari_chrep.widgets.retrain import RetrainWidget

__all__ = ["ExplorerWidget", "ExportWidget", "GenesWidget", "NeighboursWidget", "RetrainWidget"]
