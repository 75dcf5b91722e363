"""Explore gene expression predicted from H&E slides, in napari.

The manifest is ``napari.yaml``; nothing heavy is imported before it is used.
"""
