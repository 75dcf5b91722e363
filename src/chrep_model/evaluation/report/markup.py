"""HTML that no data can break: every text is escaped unless it is markup already."""

from __future__ import annotations

import html


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def join(*parts: object) -> Markup:
    """Put parts one after the other; what is no `Markup` is escaped."""
    return Markup("".join(p if isinstance(p, Markup) else html.escape(str(p)) for p in parts))


def tag(name: str, /, *inner: object, **attributes: object) -> Markup:
    """Write one element, ``tag("td", value, class_="name", data_value=0.3)``.

    Parameters
    ----------
    name : str
        Of the element.
    *inner : object
        What it holds, escaped unless it is `Markup`.
    **attributes : object
        Escaped; a trailing underscore is dropped and the others become hyphens, ``None`` leaves the attribute
        out, ``True`` writes it without a value.
    """
    written = "".join(
        f" {_attribute(key)}" + ("" if value is True else f'="{html.escape(str(value))}"')
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{written}>{join(*inner)}</{name}>")


def field(name: str, /, **attributes: object) -> Markup:
    """Write an element that holds nothing and has no end, as ``<input>``."""
    return Markup(tag(name, **attributes).removesuffix(f"</{name}>"))


def _attribute(key: str) -> str:
    return key.rstrip("_").replace("_", "-")
