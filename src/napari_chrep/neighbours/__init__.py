"""The Neighbours widget, which shows the training spots that a tile's predicted value comes from."""
