"""State of each viewer, and settings of the user; without widgets and layers."""
