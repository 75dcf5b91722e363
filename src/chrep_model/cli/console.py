"""Output of the commands: results on stdout, progress and errors on stderr.

Control characters are never printed, because names of genes, slides and files are untrusted.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chrep_model.errors import ChrepError, printable, shortened
from chrep_model.progress import Progress


def say(text: str = "") -> None:
    """Print a line of a result."""
    sys.stdout.write(f"{printable(text)}\n")


def say_json(value: Any) -> None:
    """Print a result as JSON; NaN becomes null."""
    text = json.dumps(_plain(value), indent=1, ensure_ascii=False, allow_nan=False)
    # Escape characters that json does not, such as one-character terminal codes; they occur only in strings.
    safe = (c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)
    sys.stdout.write(f"{''.join(safe)}\n")


def complain(error: BaseException) -> None:
    """Print an error as one line on stderr."""
    sys.stdout.flush()
    sys.stderr.write(f"chrep: {printable(one_line(error))}\n")


def warn(line: str) -> None:
    """Print a warning on stderr."""
    sys.stderr.write(f"chrep: {printable(line)}\n")


def one_line(error: BaseException) -> str:
    """Return the text of an error as one line for the user."""
    if isinstance(error, ChrepError):
        return str(error)
    if isinstance(error, MemoryError):
        return "the memory is full. Close other programs, or use a smaller --batch-size or --region."
    if isinstance(error, OSError):
        where = "" if error.filename is None else f"{error.filename}: "
        reason = " ".join((error.strerror or str(error)).split())
        return f"{where}{reason}. See that there is room, and that files here can be read and written."
    text = shortened(" ".join(str(error).split())) or "no message"
    return f"unexpected {type(error).__name__}: {text}. This is a fault of chrep; --debug shows where."


def size_of(path: Path) -> str:
    """Return the size of a file, or of all files in a folder, as text."""
    size = float(bytes_in(path))
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 10 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def bytes_in(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder; 0 if there is none."""
    if not path.is_dir():
        return path.stat().st_size if path.exists() else 0
    return sum(file.lstat().st_size for file in path.rglob("*") if not file.is_dir())


def table(rows: Sequence[Sequence[str]], header: Sequence[str] = ()) -> None:
    """Print a table: on a terminal fitted to its width, in a pipe in full, columns two spaces apart.

    Parameters
    ----------
    rows : sequence of sequences of str
        Cells; numbers are aligned to the right.
    header : sequence of str, optional
        Titles of the columns.
    """
    cells = [[printable(str(cell)) for cell in row] for row in ([header] if header else []) + list(rows)]
    if not cells:
        return
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    right = [
        bool(rows) and all(_is_number(row[i]) for row in rows if row[i]) and any(row[i] for row in rows)
        for i in range(len(widths))
    ]
    for row in cells:
        parts = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)]
        say("  ".join(parts).rstrip())


@contextmanager
def progress() -> Iterator[Progress]:
    """Yield an object that shows a progress bar on a terminal, and only warnings in a pipe."""
    if not sys.stderr.isatty():
        yield Progress(warn=warn)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=None)
        shown = "starting"

        def advance(done: int, total: int, what: str) -> None:
            nonlocal shown
            what = printable(what)
            if what != shown:
                shown = what
                bar.reset(task, description=what)
            bar.update(task, completed=done, total=total)

        def message(text: str) -> None:
            nonlocal shown
            shown = printable(text)
            bar.reset(task, description=shown, total=None)

        yield Progress(message, advance, warn)


def _is_number(text: str) -> bool:
    return text.replace(",", "").split(" ")[0].lstrip("+-−").replace(".", "", 1).isdigit()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if hasattr(value, "tolist"):  # numpy's numbers and arrays
        return _plain(value.tolist())
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value if isinstance(value, (str, int, float, bool)) or value is None else str(value)
