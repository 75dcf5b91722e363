"""Context of a fit besides its data and settings: progress, name and folder of checkpoints."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from chrep_model.progress import SILENT, Epoch, Progress

if TYPE_CHECKING:
    from chrep_model.training.samples import SpotTable


@dataclass(frozen=True)
class Run:
    """Context of a running fit, or of a part of one.

    Attributes
    ----------
    progress : Progress
        Receives messages and epochs, and tells whether to stop.
    checkpoints : Path or None
        Folder of checkpoints, from which an interrupted fit is resumed.
    part : str
        Name of the part, with slashes between nested parts; unique for every network of a fit.
    watched : SpotTable or None
        Spots of a held-out training section; their PCC is reported in every `Epoch`, and not used otherwise.
    """

    progress: Progress = SILENT
    checkpoints: Path | None = None
    part: str = ""
    watched: SpotTable | None = None

    def message(self, text: str) -> None:
        """Report the current step; Cancelled if the fit should stop."""
        self.progress.raise_if_cancelled()
        self.progress.message(text)

    def epoch(self, number: int, of: int, loss: float, held_out: float | None) -> None:
        """Report an epoch of this part, see `Epoch`; Cancelled if the fit should stop."""
        self.progress.raise_if_cancelled()
        self.progress.epoch(Epoch(self.part, number, of, loss, held_out))

    def within(self, part: str) -> Run:
        """Return the context of a part of this fit."""
        return replace(self, part=f"{self.part}/{part}" if self.part else part)

    def watching(self, spots: SpotTable) -> Run:
        """Return this context with spots on which every epoch is scored."""
        return replace(self, watched=spots)


SILENT_RUN = Run()
