"""Messages of the child process, one JSON object a line."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=True, ser_json_inf_nan="constants")


class StatusLine(_Message):
    """What is being done, as a line of text."""

    kind: Literal["said"] = "said"
    text: str


class StageBegun(_Message):
    """The training of a model began: one for the comparison, or the new one."""

    kind: Literal["stage"] = "stage"
    number: int
    of: int
    what: str


class Tiles(_Message):
    """How many tiles are encoded."""

    kind: Literal["tiles"] = "tiles"
    done: int
    total: int
    what: str


class Curve(_Message):
    """One epoch of one network; see `chrep_model.progress.Epoch`."""

    kind: Literal["epoch"] = "epoch"
    stage: str
    part: str
    number: int
    of: int
    loss: float
    held_out: float | None


class Ended(_Message):
    """The last line: how it ended, and for a failure why."""

    kind: Literal["ended"] = "ended"
    how: Literal["done", "cancelled", "interrupted", "failed"]
    why: str = ""


Message = StatusLine | StageBegun | Tiles | Curve | Ended

_READER: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="kind")])


def read_message(line: str | bytes) -> Message:
    """Parse a line; ValueError for anything else."""
    return _READER.validate_json(line)
