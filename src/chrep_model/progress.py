"""Callbacks by which long work reports its progress and learns that it should stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from chrep_model.errors import Cancelled


@dataclass(frozen=True)
class Epoch:
    """Figures of one epoch of training a network, from which a learning curve is drawn.

    Attributes
    ----------
    part : str
        Name of the network within a fit, such as ``"without C2/member 1"``.
    number, of : int
        Number of the epoch from 1, and number of all epochs.
    loss : float
        Mean loss over the batches.
    held_out : float or None
        PCC on the held-out training section; None if there is none.
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
    """Callbacks of long work: four to report progress, and two to ask whether to stop.

    The caller sets those that it needs. The work calls `raise_if_cancelled` between batches, epochs and
    parts.

    Attributes
    ----------
    message : callable
        ``message(text)``: one line about the current step.
    advance : callable
        ``advance(done, total, what)``: number of tiles, sections or fits that are done and in total.
    warn : callable
        ``warn(text)``: one line that the user should see even if no progress is shown.
    epoch : callable
        ``epoch(Epoch)``: figures of an epoch that is done.
    cancelled : callable
        ``cancelled()``: whether the work should stop.
    enough : callable
        ``enough()``: whether training should stop and use the best weights so far; asked after every epoch of
        a training that keeps them.
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
"""Progress without callbacks: nothing is reported, and the work is never stopped."""
