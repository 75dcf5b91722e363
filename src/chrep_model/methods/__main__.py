"""Print all methods as the table of docs/methods.md: ``python -m chrep_model.methods``."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from chrep_model.methods.registry import every_method


def table() -> Iterator[str]:
    """Yield the lines of a table in Markdown, one method a line."""
    yield "| name | method | kind | what it does | settings | chance | published |"
    yield "|---|---|---|---|---|---|---|"
    for method in every_method():
        cells = (
            f"`{method.name}`", method.title, method.kind, method.description,
            "yes" if method.settings_class else "", "yes" if method.random else "", method.reference,
        )  # fmt: skip
        yield f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in table())
