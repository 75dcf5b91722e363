"""Embeddings of a slide's tiles, computed once per slide, encoder and tile, and stored on disk.

Encoding is the slow step; heads, gallery and correction are fast and start from stored embeddings. Embeddings
are standardised per slide by one fixed sample of its tissue, so that a tile's features never depend on which
other tiles were computed.
"""

from chrep_model.embeddings.slide import CLIP, DEFAULT_CONTEXT_UM, SAMPLE, SlideEmbeddings

__all__ = ["CLIP", "DEFAULT_CONTEXT_UM", "SAMPLE", "SlideEmbeddings"]
