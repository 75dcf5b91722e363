"""Analyses of a prediction: explanations, comparison of tiles, gene signatures, spatial variability."""
