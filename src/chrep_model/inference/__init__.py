"""From a bundle and a slide to a prediction and its files."""
