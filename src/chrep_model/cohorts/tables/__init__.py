"""What of a table of counts is the counts, the names, the positions, and which of its rows are used."""
