"""Look up methods by name; each registers itself in its own file.

No file of a method is imported before one is asked for: the command line knows the names at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from chrep_model.methods.base import Method

BUILT_IN = ("mean", "knn", "ridge", "trees", "bleep", "mclstexp", "heclip", "hage_like", "chrep")
"""Methods of this folder, each in a file of its name, in the order in which tables list them."""

_REGISTERED: dict[str, type[Method]] = {}
_REQUIRED = ("name", "title", "description", "kind", "fitted_class")

M = TypeVar("M", bound="Method")


def register(method: type[M]) -> type[M]:
    """Make a method known by its name everywhere: the decorator of its class.

    Raises
    ------
    TypeError
        The class lacks an attribute of `Method`, or another method has its name or its fitted class.
    """
    if missing := [attribute for attribute in _REQUIRED if not hasattr(method, attribute)]:
        raise TypeError(f"the method {method.__name__} lacks {', '.join(missing)}")
    if method.name in _REGISTERED:
        raise TypeError(f"there is a method called {method.name} already")
    if "name" in vars(method.fitted_class):
        raise TypeError(f"{method.fitted_class.__name__} belongs to the method {method.fitted_class.name}")
    method.fitted_class.name = method.name
    _REGISTERED[method.name] = method
    return method


def names() -> tuple[str, ...]:
    """Return the names of all methods: those built in, then others in the order of their registration."""
    return tuple(dict.fromkeys([*BUILT_IN, *_REGISTERED]))


def find(name: str) -> type[Method] | None:
    """Return a method by its name; None if there is no such method."""
    if name in BUILT_IN:
        import_module(f"chrep_model.methods.{name}")
    return _REGISTERED.get(name)


def every_method() -> list[type[Method]]:
    """Return all methods in the order of `names`."""
    return [method for name in names() if (method := find(name))]


def rivals() -> tuple[str, ...]:
    """Return the names of the methods that others published."""
    return tuple(method.name for method in every_method() if method.kind == "rival")
