"""Everything drawn on or read from napari's canvas: slide, heatmaps, spots, view, clicks and drawings."""
