"""What became of each of many slides, kept beside the predictions: going on does only what is missing.

One small file for each slide: several processes, each with slides of its own, never write to the same.
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
    """What became of a slide.

    Attributes
    ----------
    slide, file : str
        Where the slide is, and its prediction.
    request : str
        Digest of all that the prediction depends on, see `digest`; empty where the slide could not be opened.
    state : str
        ``done`` or ``failed``.
    attempts : int
        How often it was tried for this request, the last time included.
    error : str
        Why it failed the last time; empty where it is done.
    tiles, seconds, unlike_share
        Of the prediction, where it is done.
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
        """Tell whether this is the record of a prediction that was asked for and is still at `target`."""
        return self.state == "done" and self.request == request and target.exists()


def digest(**facts: Any) -> str:
    """Return a digest of a request: what is predicted from what, by name.

    Parameters
    ----------
    **facts
        What JSON can say, and paths.
    """
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def read(target: Path) -> Record | None:
    """Return the record of a prediction, by the path of the prediction; None where none can be read."""
    try:
        return Record.model_validate_json(_path(target).read_text(encoding="utf-8"))
    except (OSError, ValidationError):  # damaged or of another version: the slide is predicted again
        return None


def write(target: Path, record: Record) -> None:
    """Write the record of a prediction; a former one is replaced at the end.

    Raises
    ------
    PredictionError
        It cannot be written.
    """
    path = _path(target)
    with write_atomically(path) as part:
        part.parent.mkdir(exist_ok=True)
        part.write_text(record.model_dump_json(indent=1), encoding="utf-8")


def _path(target: Path) -> Path:
    return target.parent / FOLDER / f"{target.name}.json"
