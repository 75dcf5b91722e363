"""What a fit is given beside its data and settings: its progress, its name and its folder of checkpoints."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from chrep_model.progress import SILENT, Epoch, Progress

if TYPE_CHECKING:
    from chrep_model.training.samples import SpotTable


@dataclass(frozen=True)
class Run:
    """A fit, or a part of one, while it runs.

    Attributes
    ----------
    progress : Progress
        Told what is being done, and asked whether to stop.
    checkpoints : Path or None
        Folder of half-finished networks; a fit that finds its own there goes on from it.
    part : str
        Name of what is being fitted, parts of parts divided by slashes; no two networks of a fit share one.
    watched : SpotTable or None
        Spots of a training section that is held out: every epoch's PCC on them goes into its `Epoch`, and
        nowhere else.
    """

    progress: Progress = SILENT
    checkpoints: Path | None = None
    part: str = ""
    watched: SpotTable | None = None

    def message(self, text: str) -> None:
        """Tell what is being done; Cancelled if the fit should stop."""
        self.progress.raise_if_cancelled()
        self.progress.message(text)

    def epoch(self, number: int, of: int, loss: float, held_out: float | None) -> None:
        """Tell an epoch of this part, see `Epoch`; Cancelled if the fit should stop."""
        self.progress.raise_if_cancelled()
        self.progress.epoch(Epoch(self.part, number, of, loss, held_out))

    def within(self, part: str) -> Run:
        """Give the run of a part."""
        return replace(self, part=f"{self.part}/{part}" if self.part else part)

    def watching(self, spots: SpotTable) -> Run:
        """Give the run that scores every epoch on these spots."""
        return replace(self, watched=spots)


SILENT_RUN = Run()
