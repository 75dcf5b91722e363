"""Estimate the duration of a retraining from its amount of work and the speed of earlier runs.

The speed is measured in each run and stored on this machine. Before the first run, defaults are used.
"""

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
"""Seconds until the child process has opened cohort and model."""

# Default seconds per tile and spot, measured on two busy laptop cores with 785 genes.
_TILE_S = {"stainbank": 0.02}
_DEFAULT_TILE_S = 0.04
_SPOT_S = {"calibrate": 0.004, "train": 0.022, "finetune": 0.022}
_FINETUNE_TILE_S = 0.09
_CANDIDATES = 6  # number of candidate settings, each fitted once with one section held out


@dataclass(frozen=True)
class Effort:
    """Amount of work of a retraining.

    Attributes
    ----------
    models : int
        Number of models to train: the new one, and those of the comparison.
    fits : int
        Number of fits within these models, each to some of the sections.
    spots : float
        Number of spots, summed over all fits.
    tuned : int
        Number of tiles for fine-tuning the encoder, summed over epochs and models.
    """

    models: int
    fits: int
    spots: float
    tuned: int


def effort_of(job: RetrainRequest, cohort: Cohort, card: Card) -> Effort:
    """Return the amount of work of a job on a cohort; `card` is the card of the model in use."""
    if job.preset == "add":
        return Effort(1, 0, 0.0, 0)
    groups = held_out_groups(cohort, card, job.groups)
    parts = [cohort.without(group) for group in groups] + [cohort]
    searched = _CANDIDATES if job.preset != "calibrate" and card.settings.get("chrep") is None else 0
    fits = sum(len(part) + 1 + searched for part in parts)
    spots = sum(_spots(part) * (1 + (len(part) + searched) * (1 - 1 / len(part))) for part in parts)
    tuned = sum(_spots(part) for part in parts) * job.epochs if job.preset == "finetune" else 0
    return Effort(len(parts), fits, spots, tuned)


def _spots(cohort: Cohort) -> int:
    return sum(len(section) for section in cohort)


class Rates(BaseModel):
    """Seconds per tile and spot, measured on this machine.

    Attributes
    ----------
    tile : dict
        Seconds for encoding a tile, by name of the encoder.
    spot : dict
        Seconds for fitting to a spot, by preset.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    tile: dict[str, float] = {}
    spot: dict[str, float] = {}

    @classmethod
    def load(cls) -> Rates:
        """Load the rates of earlier runs; empty if there are none."""
        try:
            return cls.model_validate_json(_file().read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, ValidationError):
            return cls()

    def save(self) -> None:
        """Store the rates for later runs; errors are ignored, because only estimates depend on them."""
        with suppress(SettingsError), write_atomically(_file(), SettingsError) as part:
            part.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(self.model_dump_json(), encoding="utf-8")

    def updated(
        self, effort: Effort, *, preset: str, encoder: str, tiles: int, tiles_s: float, fits_s: float
    ) -> Rates:
        """Return the rates updated with the measurements of a run.

        A run with too few tiles or spots does not change the rate in question.

        Parameters
        ----------
        effort : Effort
            Amount of work of the run.
        preset, encoder : str
            Preset and encoder of the run.
        tiles : int
            Number of tiles encoded.
        tiles_s : float
            Seconds spent on encoding.
        fits_s : float
            Seconds spent on everything else.
        """
        tile, spot = dict(self.tile), dict(self.spot)
        if tiles >= 100:
            tile[encoder] = tiles_s / tiles
        if fits_s > START_S and effort.spots >= 500 and not effort.tuned:
            spot[preset] = (fits_s - START_S / 2) / effort.spots
        return Rates(tile=tile, spot=spot)

    def seconds(self, effort: Effort, preset: str, encoder: str, tiles: int) -> tuple[float, float]:
        """Return the range of seconds that a job will probably take.

        The range is wider if the rates were not measured on this machine.
        """
        tile = self.tile.get(encoder, _TILE_S.get(encoder, _DEFAULT_TILE_S))
        spot = self.spot.get(preset, _SPOT_S.get(preset, 0.0))
        measured = (not tiles or encoder in self.tile) and (preset in self.spot or not effort.spots)
        middle = START_S + tiles * tile + effort.spots * spot + effort.tuned * _FINETUNE_TILE_S
        low, high = (0.75, 1.4) if measured and not effort.tuned else (0.5, 2.5)
        return middle * low, middle * high


def in_words(seconds: tuple[float, float], effort: Effort, tiles: int) -> str:
    """Return an estimate as text, such as ``About 1–3 min: no tile to encode, 3 models (6 fits)``."""
    return f"About {_span(*seconds)}: {', '.join(_parts(effort, tiles))}."


def _parts(effort: Effort, tiles: int) -> Iterator[str]:
    """Yield the parts of the work as text."""
    yield f"{tiles:,} tiles to encode" if tiles else "no tile to encode"
    if effort.tuned:
        yield f"{effort.tuned:,} tiles to train the encoder on"
    if effort.fits:
        trials = effort.models - 1
        told = f", {trials} of them for the comparison" if trials else ""
        yield f"{effort.models} model{'s' if effort.models > 1 else ''} ({effort.fits} fits){told}"


def _span(low: float, high: float) -> str:
    """Return a range of seconds as text, in a suitable unit."""
    for unit, length in (("h", 3600.0), ("min", 60.0)):
        if high >= 1.5 * length:
            least, most = max(1, round(low / length)), max(1, round(high / length))
            return f"{least}–{most} {unit}" if most > least else f"{most} {unit}"
    return f"{max(5, round(low / 5) * 5)}–{max(10, round(high / 5) * 5)} s"


def _file() -> Path:
    return default_cache() / "retraining_rates.json"
