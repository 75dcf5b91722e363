"""Predictions as files for other programs, and as figures."""
