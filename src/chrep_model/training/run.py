"""Callbacks of a fit to its caller: messages, epochs for curves, stopping; and the folder of checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chrep_model.training.samples import SpotTable


@dataclass(frozen=True)
class Epoch:
    """Result of one epoch of one network, for a training curve.

    Attributes
    ----------
    part : str
        Name of the network in the fit, such as ``"without C2/member 1"``.
    number, of : int
        Number of the epoch, from 1, and number of all epochs.
    loss : float
        Mean loss over the batches.
    held_out : float or None
        PCC on the held-out training section, if there is one.
    """

    part: str
    number: int
    of: int
    loss: float
    held_out: float | None = None


def _nothing(_: object) -> None:
    pass


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Run:
    """What a fit tells, and where it keeps what it has.

    Attributes
    ----------
    say : callable
        Called with a line of what is being done; may raise Cancelled.
    on_epoch : callable
        Called with every `Epoch`; may raise Cancelled.
    checkpoints : Path or None
        Folder of half-finished networks; a fit that finds its own there goes on from it.
    part : str
        Name of what is being fitted, parts of parts divided by slashes; no two networks of a fit share one.
    warn : callable
        Called with a line that the user should see even where nobody is shown what is being done.
    enough : callable
        Asked after every epoch of a fit that keeps its best weights: whether it should stop there.
    watched : SpotTable or None
        Spots of a training section that is held out: every epoch's PCC on them goes into its `Epoch`, and
        nowhere else.
    """

    say: Callable[[str], None] = _nothing
    on_epoch: Callable[[Epoch], None] = _nothing
    checkpoints: Path | None = None
    part: str = ""
    warn: Callable[[str], None] = _nothing
    enough: Callable[[], bool] = _never
    watched: SpotTable | None = None

    def within(self, part: str) -> Run:
        """Give the run of a part."""
        return replace(self, part=f"{self.part}/{part}" if self.part else part)

    def watching(self, spots: SpotTable) -> Run:
        """Give the run that scores every epoch on these spots."""
        return replace(self, watched=spots)


SILENT = Run()
