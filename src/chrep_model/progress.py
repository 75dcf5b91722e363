"""How long work reports how far it is, and asks whether to stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from chrep_model.errors import Cancelled


@dataclass(frozen=True)
class Epoch:
    """One epoch of one network, for a curve.

    Attributes
    ----------
    part : str
        Which of a fit's networks, as ``"without C2/member 1"``.
    number, of : int
        From 1.
    loss : float
        Mean over the batches.
    held_out : float or None
        PCC on the held-out training section, where one is held out or watched.
    """

    part: str
    number: int
    of: int
    loss: float
    held_out: float | None = None


def _nothing(*_: object) -> None:
    pass


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Progress:
    """Callbacks of long work: four to report how far it is, two to ask whether to stop.

    Whoever starts the work sets those that it needs. The work asks between batches, epochs and parts, by
    `raise_if_cancelled`.

    Attributes
    ----------
    message : callable
        ``message(text)``: what is being done now, in a line.
    advance : callable
        ``advance(done, total, what)``: how many tiles, sections or fits are done, and of what.
    warn : callable
        ``warn(text)``: a line that the user should see even where no progress is shown.
    epoch : callable
        ``epoch(Epoch)``: an epoch of a network is done.
    cancelled : callable
        ``cancelled()``: whether the work should stop.
    enough : callable
        ``enough()``: whether the network in training should stop with its best weights; asked after every
        epoch of a training that keeps them.
    """

    message: Callable[[str], None] = _nothing
    advance: Callable[[int, int, str], None] = _nothing
    warn: Callable[[str], None] = _nothing
    epoch: Callable[[Epoch], None] = _nothing
    cancelled: Callable[[], bool] = _never
    enough: Callable[[], bool] = _never

    def raise_if_cancelled(self) -> None:
        """Raise Cancelled if the work should stop."""
        if self.cancelled():
            raise Cancelled("cancelled")


SILENT = Progress()
"""Reports to nobody and never asks to stop."""
