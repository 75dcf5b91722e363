"""The Retrain widget: a child process trains a new model, and the user decides whether to use it.

Everything that a run writes stays in a folder of its own, a `Workspace`, until the user accepts the new
model. The model in use and all other files are left unchanged. The child process needs neither Qt nor a
viewer, and if it crashes, the viewer keeps running.
"""
