"""Checks of a section's spots, counts, scale and gene names, one topic per file."""
