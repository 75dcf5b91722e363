"""The Neighbours widget: the training spots behind the value of a tile."""
