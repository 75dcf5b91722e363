"""Honest measurement: splits, metrics, benchmark, report."""
