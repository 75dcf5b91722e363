"""From a bundle and a slide to a prediction, and stored predictions read back."""
