"""Opening of files in napari: the reader, stored predictions, samples, and the start of the viewer."""
