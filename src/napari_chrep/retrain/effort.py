"""How long a retraining will take, as far as can be known: work to do, by the speed of earlier runs here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from chrep_model.bundle.card import Card
from chrep_model.cache import default_cache
from chrep_model.cohorts.cohort import Cohort
from chrep_model.errors import SettingsError
from chrep_model.evaluation.model_comparison import held_out_groups
from chrep_model.files import write_atomically
from napari_chrep.retrain.request import RetrainRequest

if TYPE_CHECKING:
    from pathlib import Path

START_S = 6.0
"""Until the child process has opened cohort and model."""

# Two cores of a laptop's class that do other work as well, 785 genes.
_TILE_S = {"stainbank": 0.02}
_OTHER_TILE_S = 0.04
_SPOT_S = {"calibrate": 0.004, "train": 0.022, "finetune": 0.022}
_TUNED_S = 0.09
_SEARCHED = 6  # candidates for the settings, each fitted once without a section


@dataclass(frozen=True)
class Effort:
    """What there is to do.

    Attributes
    ----------
    models : int
        That are made: the new one, and those of the comparison.
    fits : int
        Fits inside of these, each to some of the sections.
    spots : float
        Spots that all of these are fitted to.
    tuned : int
        Tiles through which an encoder is trained.
    """

    models: int
    fits: int
    spots: float
    tuned: int


def effort_of(job: RetrainRequest, cohort: Cohort, card: Card) -> Effort:
    """Count what a job will do on a cohort; `card` is that of the model in use."""
    if job.preset == "add":
        return Effort(1, 0, 0.0, 0)
    groups = held_out_groups(cohort, card, job.groups)
    parts = [cohort.without(group) for group in groups] + [cohort]
    searched = _SEARCHED if job.preset != "calibrate" and card.settings.get("chrep") is None else 0
    fits = sum(len(part) + 1 + searched for part in parts)
    spots = sum(_spots(part) * (1 + (len(part) + searched) * (1 - 1 / len(part))) for part in parts)
    tuned = sum(_spots(part) for part in parts) * job.epochs if job.preset == "finetune" else 0
    return Effort(len(parts), fits, spots, tuned)


def _spots(cohort: Cohort) -> int:
    return sum(len(section) for section in cohort)


class Rates(BaseModel):
    """Seconds that things took on this machine.

    Attributes
    ----------
    tile : dict
        Encoder to seconds per tile.
    spot : dict
        Preset to seconds per spot that is fitted to.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    tile: dict[str, float] = {}
    spot: dict[str, float] = {}

    @classmethod
    def load(cls) -> Rates:
        """Read those of earlier runs; none where there were none."""
        try:
            return cls.model_validate_json(_file().read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, ValidationError):
            return cls()

    def save(self) -> None:
        """Keep them for later runs; they are worth no error."""
        with suppress(SettingsError), write_atomically(_file(), SettingsError) as part:
            part.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(self.model_dump_json(), encoding="utf-8")

    def learned(
        self, effort: Effort, *, preset: str, encoder: str, tiles: int, tiles_s: float, fits_s: float
    ) -> Rates:
        """Return them with what a run has shown; too little of anything shows nothing."""
        tile, spot = dict(self.tile), dict(self.spot)
        if tiles >= 100:
            tile[encoder] = tiles_s / tiles
        if fits_s > START_S and effort.spots >= 500 and not effort.tuned:
            spot[preset] = (fits_s - START_S / 2) / effort.spots
        return Rates(tile=tile, spot=spot)

    def seconds(self, effort: Effort, preset: str, encoder: str, tiles: int) -> tuple[float, float]:
        """Return from how long to how long a job will take: wide where nothing was measured here."""
        tile = self.tile.get(encoder, _TILE_S.get(encoder, _OTHER_TILE_S))
        spot = self.spot.get(preset, _SPOT_S.get(preset, 0.0))
        measured = (not tiles or encoder in self.tile) and (preset in self.spot or not effort.spots)
        middle = START_S + tiles * tile + effort.spots * spot + effort.tuned * _TUNED_S
        low, high = (0.75, 1.4) if measured and not effort.tuned else (0.5, 2.5)
        return middle * low, middle * high


def in_words(seconds: tuple[float, float], effort: Effort, tiles: int) -> str:
    """Say an estimate: ``about 1-3 min: 1,200 tiles to encode, 3 models of 6 fits``."""
    return f"About {_span(*seconds)}: {', '.join(_parts(effort, tiles))}."


def _parts(effort: Effort, tiles: int) -> Iterator[str]:
    yield f"{tiles:,} tiles to encode" if tiles else "no tile to encode"
    if effort.tuned:
        yield f"{effort.tuned:,} tiles to train the encoder on"
    if effort.fits:
        trials = effort.models - 1
        told = f", {trials} of them for the comparison" if trials else ""
        yield f"{effort.models} model{'s' if effort.models > 1 else ''} ({effort.fits} fits){told}"


def _span(low: float, high: float) -> str:
    for unit, length in (("h", 3600.0), ("min", 60.0)):
        if high >= 1.5 * length:
            least, most = max(1, round(low / length)), max(1, round(high / length))
            return f"{least}–{most} {unit}" if most > least else f"{most} {unit}"
    return f"{max(5, round(low / 5) * 5)}–{max(10, round(high / 5) * 5)} s"


def _file() -> Path:
    return default_cache() / "retraining_rates.json"
