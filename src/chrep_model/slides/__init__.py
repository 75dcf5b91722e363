"""Slides and their pixels: file formats, pyramids, tissue detection, tiles and stain."""
