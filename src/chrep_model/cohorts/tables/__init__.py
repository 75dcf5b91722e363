"""Parts of a table of counts: locate its datasets, and check counts, names, positions and captures."""
