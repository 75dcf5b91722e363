"""The slide explorer: choose a slide and a model, and predict."""
