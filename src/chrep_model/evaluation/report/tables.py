"""A table that its reader can sort by clicking or by the keyboard."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from chrep_model.evaluation.report.markup import Markup, join, tag

MISSING = "–"


@dataclass(frozen=True)
class Column:
    """Head of a column: its title, what it means, and how the table is sorted by it from the start.

    Attributes
    ----------
    title, hint : str
        The hint shows when the pointer rests on the title.
    words : bool
        Whether the column holds words; numbers stand on the right.
    order : {"none", "ascending", "descending"}
        By which the rows are sorted already.
    """

    title: str
    hint: str = ""
    words: bool = False
    order: str = "none"


@dataclass(frozen=True)
class Cell:
    """What is shown, and the number to sort by; without a number, what is shown."""

    shown: str
    value: float | None = None


@dataclass(frozen=True)
class Rows:
    """Rows that stay together when the table is sorted.

    Attributes
    ----------
    rows : sequence of (class or None, cells)
        The first cell of a row is its head.
    title : str
        Above them; none if empty.
    """

    rows: Sequence[tuple[str | None, Sequence[Cell]]]
    title: str = ""


def number(value: float, digits: int, *, signed: bool = False) -> Cell:
    """A cell with a number; a dash if there is none."""
    return Cell(written(value, digits, signed=signed), value if math.isfinite(value) else None)


def written(value: float, digits: int, *, signed: bool = False) -> str:
    """A number for the eye: with a true minus, and a dash for what was not measured."""
    if not math.isfinite(value):
        return MISSING
    rounded = round(value, digits) + 0.0  # no minus before a zero
    return f"{rounded:{'+' if signed else ''}.{digits}f}".replace("-", "−")


def table(columns: Sequence[Column], groups: Sequence[Rows], *, name: str, caption: object) -> Markup:
    """Write the table; it scrolls in its own frame where the window is too narrow."""
    heads = [
        tag(
            "th",
            tag("button", c.title, type="button", title=c.hint or None),
            scope="col", aria_sort=c.order, class_="words" if c.words else None,
        )
        for c in columns
    ]  # fmt: skip
    bodies = [
        tag(
            "tbody",
            _title(group, len(columns)),
            *(_row(class_, cells, columns) for class_, cells in group.rows),
        )
        for group in groups
        if group.rows
    ]
    inner = join(tag("caption", caption), tag("thead", tag("tr", *heads)), *bodies)
    whole = tag("table", inner, id=name, class_="sortable")
    return tag("div", whole, class_="scroll", tabindex=0, role="group", aria_label=f"table {name}")


def _title(group: Rows, width: int) -> Markup:
    if not group.title:
        return Markup()
    return tag("tr", tag("th", group.title, colspan=width, scope="rowgroup"), class_="group")


def _row(class_: str | None, cells: Sequence[Cell], columns: Sequence[Column]) -> Markup:
    written = []
    for position, (cell, column) in enumerate(zip(cells, columns, strict=True)):
        words = "words" if column.words else None
        name, scope = ("td", None) if position else ("th", "row")
        value = None if column.words else "" if cell.value is None else f"{cell.value:.6g}"
        written.append(tag(name, cell.shown, scope=scope, class_=words, data_value=value))
    return tag("tr", *written, class_=class_)
