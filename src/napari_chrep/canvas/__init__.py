"""The canvas: slide and heatmap layers, spots, viewport, clicks and drawings."""
