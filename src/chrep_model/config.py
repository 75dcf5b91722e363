"""Reading of YAML settings files, and error messages for wrong settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from chrep_model.errors import SettingsError

M = TypeVar("M", bound=BaseModel)


def read_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a YAML file that holds a mapping of names to values.

    Raises
    ------
    SettingsError
        The file is missing, is no YAML, or holds no mapping.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(
            "these settings cannot be read as YAML", path=path, remedy="Check the file."
        ) from error
    if not isinstance(content, dict):
        raise SettingsError(
            "these settings are no list of names and values", path=path, remedy="Write `name: value`."
        )
    return content


def validated(
    model: type[M],
    values: dict[str, Any],
    *,
    path: str | os.PathLike[str] | None = None,
    command: str = "train",
) -> M:
    """Build a command's settings `model` from values; SettingsError names the first wrong value."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "settings"
        raise SettingsError(
            f"{where}: {first['msg']}", path=path, remedy=f"See `chrep {command} --help`."
        ) from error
