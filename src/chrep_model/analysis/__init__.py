"""Analyses of a prediction: explanations, comparisons, signatures, spatial variability."""
