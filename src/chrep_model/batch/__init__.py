"""Many slides in one run: on one machine or on a cluster."""
