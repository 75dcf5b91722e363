"""Messages from the child process to the viewer, one JSON object per line."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=True, ser_json_inf_nan="constants")


class StatusLine(_Message):
    """A line of text on what the child process is doing."""

    kind: Literal["said"] = "said"
    text: str


class StageBegun(_Message):
    """Start of training a model, which is either the new one or one for the comparison."""

    kind: Literal["stage"] = "stage"
    number: int
    of: int
    what: str


class Tiles(_Message):
    """Number of tiles encoded so far."""

    kind: Literal["tiles"] = "tiles"
    done: int
    total: int
    what: str


class Curve(_Message):
    """Loss and held-out PCC of one epoch of a network; see `chrep_model.progress.Epoch`."""

    kind: Literal["epoch"] = "epoch"
    stage: str
    part: str
    number: int
    of: int
    loss: float
    held_out: float | None


class Ended(_Message):
    """Last message: how the job ended, and the reason if it failed."""

    kind: Literal["ended"] = "ended"
    how: Literal["done", "cancelled", "interrupted", "failed"]
    why: str = ""


Message = StatusLine | StageBegun | Tiles | Curve | Ended

_READER: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="kind")])


def read_message(line: str | bytes) -> Message:
    """Parse a line of the child process; ValueError if it is not a message."""
    return _READER.validate_json(line)
