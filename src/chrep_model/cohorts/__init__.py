"""Paired data: sections of tissue with a picture and spots with measured gene expression."""
