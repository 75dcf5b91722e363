"""Records of predicted and failed slides, stored beside the predictions, so that a run can be continued.

Each slide has a small file of its own, so that several processes never write to the same file.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from chrep_model.files import write_atomically

#: Folder beside the predictions that holds the records.
FOLDER = ".chrep"


class Record(BaseModel):
    """Result of the last attempt to predict a slide.

    Attributes
    ----------
    slide, file : str
        Paths of the slide and of its prediction.
    request : str
        Digest of everything that the prediction depends on, see `digest`; empty if the slide could not be
        opened.
    state : str
        ``done`` or ``failed``.
    attempts : int
        Number of attempts for this request, including the last.
    error : str
        Reason for the failure of the last attempt; empty if done.
    tiles, seconds, unlike_share
        Number of tiles, time taken, and share of tiles unlike the training tissue, if done.
    """

    model_config = ConfigDict(extra="forbid")

    slide: str
    file: str
    request: str
    state: Literal["done", "failed"]
    attempts: int
    error: str = ""
    tiles: int | None = None
    seconds: float | None = None
    unlike_share: float | None = None

    def serves(self, request: str, target: Path) -> bool:
        """Return whether this records a finished prediction for `request` that still exists at `target`."""
        return self.state == "done" and self.request == request and target.exists()


def digest(**facts: Any) -> str:
    """Return a digest of everything that a prediction depends on.

    Parameters
    ----------
    **facts
        Named values: paths, and values that JSON can represent.
    """
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def read(target: Path) -> Record | None:
    """Return the record of a prediction, by the path of the prediction; None if it cannot be read."""
    try:
        return Record.model_validate_json(_path(target).read_text(encoding="utf-8"))
    except (OSError, ValidationError):  # damaged or of another version: the slide is predicted again
        return None


def write(target: Path, record: Record) -> None:
    """Write the record of a prediction, and replace an older one.

    Raises
    ------
    PredictionError
        The record cannot be written.
    """
    path = _path(target)
    with write_atomically(path) as part:
        part.parent.mkdir(exist_ok=True)
        part.write_text(record.model_dump_json(indent=1), encoding="utf-8")


def _path(target: Path) -> Path:
    return target.parent / FOLDER / f"{target.name}.json"
