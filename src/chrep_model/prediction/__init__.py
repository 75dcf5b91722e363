"""Prediction of gene expression on a slide with a bundle, and reading of stored predictions."""
