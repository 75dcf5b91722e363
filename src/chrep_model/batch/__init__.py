"""Prediction of many slides in one run, on one machine or on a cluster."""
