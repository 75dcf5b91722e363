"""Retraining beside the viewer: a child process makes the new model, the viewer looks on and decides.

A run lives in a folder of its own, a `Workspace`, until the user takes its outcome; the model in use and
every other file stay as they are. The child needs no Qt and no viewer, and when it dies the viewer does not.
"""
