"""Work beside the window: the prediction engine, its tasks and the order of the tiles."""
