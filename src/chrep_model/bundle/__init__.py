"""Bundles: trained models stored as folders whose files are checked against hashes when loaded.

``card.json`` describes the model and holds the hash of every file; ``weights.safetensors`` holds the fitted
numbers and those of the intervals, ``genes.parquet`` the gene panel with the expected accuracy of each gene,
``gallery.zarr`` the training spots, and ``encoder.safetensors`` the encoder's weights if they came from a
file. A bundle contains no code, and loading runs none.
"""

from chrep_model.bundle.card import FORMAT, Card, describe
from chrep_model.bundle.reading import Bundle, load_bundle
from chrep_model.bundle.writing import check_place, save_bundle

__all__ = ["FORMAT", "Bundle", "Card", "check_place", "describe", "load_bundle", "save_bundle"]
