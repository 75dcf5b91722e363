"""Findings: problems noticed in a section's data, each with a level, a description and a remedy."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "error"]
LEVELS: tuple[Level, ...] = ("ok", "warning", "error")


@dataclass(frozen=True)
class Finding:
    """One problem in the data, with its level and a remedy.

    Attributes
    ----------
    level : {"ok", "warning", "error"}
        Data with an error cannot be used.
    text, remedy : str
        Description of the problem, and advice for the user, in whole sentences; the remedy may be empty.
    """

    level: Level
    text: str
    remedy: str = ""


def worst(findings: Collection[Finding]) -> Level:
    """Return the worst level among findings; ``"ok"`` if there are none."""
    return max((finding.level for finding in findings), key=LEVELS.index, default="ok")
