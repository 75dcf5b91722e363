"""One object of each class per viewer, such as its session, shared by all widgets of the viewer."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

# Keyed by the identity of the viewer, because two viewers with equal content compare equal.
_KEPT: dict[int, dict[Callable[[Any], Any], Any]] = {}


def unwrapped(viewer: Any) -> Any:
    """Return the viewer itself if given the proxy that napari passes to widgets."""
    return getattr(viewer, "__wrapped__", viewer)


def kept_for(viewer: Any, kind: Callable[[Any], T]) -> T:
    """Return the one object of a class that belongs to a viewer, and create it on the first call.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer or a proxy of it. The object is deleted with the viewer.
    kind : type
        The class, such as `Session`. It is called with the viewer, and may keep only a weak reference to it.
    """
    viewer = unwrapped(viewer)
    key = id(viewer)
    if key not in _KEPT:
        _KEPT[key] = {}
        weakref.finalize(viewer, _KEPT.pop, key, None)
    kept = _KEPT[key]
    if kind not in kept:
        kept[kind] = kind(viewer)
    made: T = kept[kind]
    return made
