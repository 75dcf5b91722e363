"""Hook of mkdocs that makes pages of the documentation site from other files, see mkdocs.yml.

README.md, CONTRIBUTING.md and CHANGELOG.md become pages, as does the help of all commands. The list of rooms
becomes a part of docs/architecture.md.
"""

from __future__ import annotations

import re
import sys
from html import escape
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGES = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
ROOMS = "<!-- rooms -->"


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made from other files."""
    from mkdocs.structure.files import File

    made = {page: (ROOT / source).read_text(encoding="utf-8") for page, source in PAGES.items()}
    for name, text in {**made, "command-line.md": command_line()}.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace links between files by links between pages, and insert the table of rooms."""
    for page, source in PAGES.items():
        markdown = re.sub(rf"\]\((\.\./)?{source}", f"]({page}", markdown)
    return markdown.replace("](docs/", "](").replace(ROOMS, rooms())


def rooms() -> str:
    """Return a table of the rooms of both packages, with the first line of their docstrings."""
    sys.path.insert(0, str(ROOT / "tools"))
    import draw_rooms

    docstrings = draw_rooms.rooms()
    rows = [
        f"| `{room.replace('.', '/')}` | {text.replace('``', '`')} |" for room, text in docstrings.items()
    ]
    return "\n".join(["| room | what is in it |", "|---|---|", *rows])


def command_line() -> str:
    """Return the page about the command line, made from the help of the commands."""
    import typer

    from chrep_model.cli import app

    group: Any = typer.main.get_command(app)
    parts = ["# Command line", group.help, "Every command prints this with `--help`."]
    for name, command in group.commands.items():
        context = command.make_context(name, [], resilient_parsing=True)
        parts += [f"## chrep {name}", escape(command.help, quote=False).replace("\b\n", "")]
        for kind in ("argument", "option"):
            records = [p.get_help_record(context) for p in command.params if p.param_type_name == kind]
            rows = [f"| `{form}` | {escape(text, quote=False)} |" for form, text in filter(None, records)]
            if rows:
                parts.append("\n".join([f"| {kind} | |", "|---|---|", *rows]))
        lines = [line.strip() for line in command.epilog.replace("\b\n", "").splitlines()]
        parts += ["\n".join(["```sh", *lines[1:], "```"])]
    return "\n\n".join(parts) + "\n"
