"""Find the counts, names, positions and rows in use of a table of counts."""
