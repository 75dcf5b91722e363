"""Figures as SVG within the page: their text takes the colour of the page, light or dark."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from chrep_model.evaluation.report.results import Key

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#010203"
"""Drawn for lines and text; becomes the colour of the page's text."""

GREY = "#808890"
"""Of guiding lines; seen on white and on black."""

# Okabe and Ito's colours that keep a contrast on white and on black; with the markers, 42 pairs
_COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_PX_PER_INCH = 96
_POINTS_PER_INCH = 72
_DPI = 144
_PNG_COLOURS = 96
_LONGEST_NAME = 26


@dataclass(frozen=True)
class SvgFigure:
    """A drawn figure.

    Attributes
    ----------
    inner : Markup
        What the SVG element holds, as matplotlib wrote it.
    view_box : str
        Attribute ``viewBox`` of the SVG element, in points.
    size : tuple of int
        Width and height in px.
    title, caption : str
        For screen readers, and below the figure.
    """

    inner: Markup
    view_box: str
    size: tuple[int, ...]
    title: str
    caption: str


@contextmanager
def new_figure(width: float, height: float, name: str) -> Iterator[Figure]:
    """Open a figure of a size in inches, in whose text a ``$`` is a dollar.

    The name keeps the identifiers within the SVG apart from those of other figures.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "svg.fonttype": "none", "svg.hashsalt": name, "text.parse_math": False, "font.size": 10,
        "text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK, "xtick.color": INK,
        "ytick.color": INK, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
        "axes.titlesize": 10, "path.simplify": True,
    }  # fmt: skip
    with mpl.rc_context(style):
        yield Figure(figsize=(width, height), layout="constrained", dpi=_DPI)


def to_svg(figure: Figure, title: str, caption: str) -> SvgFigure:
    """Write a figure as SVG; to be called within `new_figure`, whose style it needs."""
    stream = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(stream, format="svg", transparent=True, metadata=nothing, dpi=_DPI)
    inner = stream.getvalue().partition("<svg")[2].partition(">")[2].rpartition("</svg>")[0]
    inner = re.sub(r"data:image/png;base64,([^\"]+)", _with_fewer_colours, inner.replace(INK, "currentColor"))
    inner = re.sub(r'<g id="[^"]*"', "<g", inner)  # the same in every figure, and nothing refers to them
    inner = re.sub(r"\s*\n\s*", "\n", inner)
    inches = figure.get_size_inches()
    return SvgFigure(
        inner=Markup(inner),  # noqa: S704 matplotlib escapes the text that it writes
        view_box=f"0 0 {_POINTS_PER_INCH * inches[0]:g} {_POINTS_PER_INCH * inches[1]:g}",
        size=tuple(round(_PX_PER_INCH * length) for length in inches),
        title=title,
        caption=caption,
    )


def _with_fewer_colours(png: re.Match[str]) -> str:
    """Return the same picture in fewer colours: a fifth of the size, and no difference that an eye sees."""
    from PIL import Image

    stream = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(png[1]))) as picture:
        colours = picture.convert("RGBA").quantize(_PNG_COLOURS, method=Image.Quantize.FASTOCTREE)
        colours.save(stream, "png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def shorten(name: str) -> str:
    """Cut a name that would take too much of the figure."""
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def colours_and_markers(keys: list[Key]) -> dict[Key, tuple[str, str]]:
    """Return a colour and a marker for each key, no pair twice up to 42."""
    return {key: (_COLOURS[i % len(_COLOURS)], _MARKERS[i % len(_MARKERS)]) for i, key in enumerate(keys)}
