"""A trained model as a folder that says what it is and refuses to be what it is not.

``card.json`` describes it and holds the hash of every other file, and its own; ``weights.safetensors`` holds
the fitted numbers and how far to trust them, ``genes.parquet`` the panel with the accuracy to expect of each
gene, ``gallery.zarr`` the training spots, ``encoder.safetensors`` the encoder's weights where they came from
a file. Nothing in it is code, and loading runs none.
"""

from chrep_model.bundle.card import FORMAT, Card, describe
from chrep_model.bundle.reading import Bundle, load_bundle
from chrep_model.bundle.writing import check_place, save_bundle

__all__ = ["FORMAT", "Bundle", "Card", "check_place", "describe", "load_bundle", "save_bundle"]
