"""State of each viewer and settings of the user. No widgets, no layers."""
