"""Export of predictions to files for other programs, and to figures."""
