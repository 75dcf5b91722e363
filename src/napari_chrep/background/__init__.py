"""Work in background threads: the prediction engine, its tasks and the order of the tiles."""
