"""Figures as SVG that stands in the page itself: its text takes the colour of the page, light or dark."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from chrep_model.evaluation.report.markup import Markup, tag
from chrep_model.evaluation.report.results import Key

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#010203"
"""Drawn for lines and text; becomes the colour of the page's text."""

GREY = "#808890"
"""Of lines that guide the eye; seen on white and on black."""

# Okabe and Ito's colours that keep a contrast on white and on black; with the markers, 42 pairs
_COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_PX_PER_INCH = 96
_DPI = 144
_SHADES = 96
_LONGEST = 26


@contextmanager
def drawing(width: float, height: float, name: str) -> Iterator[Figure]:
    """A figure of so many inches, in whose text a ``$`` is a dollar; `name` keeps its inner names apart."""
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


def written(figure: Figure, about: str, caption: str) -> Markup:
    """The figure as an element of the page; to be called while it is being drawn (`drawing`)."""
    stream = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(stream, format="svg", transparent=True, metadata=nothing, dpi=_DPI)
    width, height = (round(inches * _PX_PER_INCH) for inches in figure.get_size_inches())
    box = tuple(72 * inches for inches in figure.get_size_inches())
    inner = stream.getvalue().partition("<svg")[2].partition(">")[2].rpartition("</svg>")[0]
    inner = re.sub(r"data:image/png;base64,([^\"]+)", _smaller, inner.replace(INK, "currentColor"))
    inner = re.sub(r'<g id="[^"]*"', "<g", inner)  # the same in every figure, and nothing refers to them
    inner = re.sub(r"\s*\n\s*", "\n", inner)
    picture = tag(
        "svg", Markup(inner), viewBox=f"0 0 {box[0]:g} {box[1]:g}", width=width, height=height, role="img",
        aria_label=about,
    )  # fmt: skip
    return tag("figure", picture, tag("figcaption", caption))


def _smaller(png: re.Match[str]) -> str:
    """The same picture in fewer colours: a fifth of the size, and no difference that an eye sees."""
    from PIL import Image

    stream = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(png[1]))) as picture:
        colours = picture.convert("RGBA").quantize(_SHADES, method=Image.Quantize.FASTOCTREE)
        colours.save(stream, "png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def short(name: str) -> str:
    """A name that leaves room for the figure."""
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def look(keys: list[Key]) -> dict[Key, tuple[str, str]]:
    """A colour and a marker for each, no pair twice."""
    return {key: (_COLOURS[i % len(_COLOURS)], _MARKERS[i % len(_MARKERS)]) for i, key in enumerate(keys)}
