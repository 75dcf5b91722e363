"""Tiles to embeddings, stored on disk once per slide, encoder and tile, and shared by everything after.

The encoder is the expensive step; heads, gallery and correction are cheap and start from here. Whatever is
standardised per slide is standardised by one fixed sample of the slide's tissue, so that a tile's numbers
never depend on what else was looked at.
"""

from chrep_model.embeddings.slide import CLIP, DEFAULT_CONTEXT_UM, SAMPLE, SlideEmbeddings

__all__ = ["CLIP", "DEFAULT_CONTEXT_UM", "SAMPLE", "SlideEmbeddings"]
