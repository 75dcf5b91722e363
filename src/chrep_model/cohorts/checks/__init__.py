"""Whether a section's spots, counts, scale and names can be right: one topic a file."""
