"""Run a retraining job: train the models for the comparison, then the new model.

This runs in the child process, see `process`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from chrep_model.bundle import Bundle, load_bundle
from chrep_model.bundle.extending import with_section
from chrep_model.cache import default_cache
from chrep_model.cohorts.cohort import Cohort, open_cohort
from chrep_model.cohorts.section import Section
from chrep_model.evaluation.model_comparison import ModelComparison, compare, held_out_groups
from chrep_model.progress import Epoch, Progress
from napari_chrep.retrain.effort import Effort, Rates, effort_of
from napari_chrep.retrain.messages import Curve, Message, StageBegun, StatusLine, Tiles
from napari_chrep.retrain.request import RetrainRequest, Workspace, write_text

if TYPE_CHECKING:
    from chrep_model.encoders.encoder import Encoder
    from chrep_model.pipeline import TrainSettings

TELL_EVERY_S = 0.2
"""Minimum time between two messages on encoded tiles, in seconds."""

ADDED = (
    "Not compared: on this section the spots would be found again, and any score would flatter. Encoder, "
    "heads and what is known of the errors are as before; only the neighbours' mean reads the new spots."
)


class Work:
    """A retraining job, which `run` executes in the calling thread.

    Parameters
    ----------
    space : Workspace
        Folder with the job, in which all results are written.
    tell : callable
        Called with each message for the viewer.
    progress : Progress
        Asked whether to stop, which may raise KeyboardInterrupt. Its reports are replaced by calls of `tell`.
    """

    def __init__(self, space: Workspace, tell: Callable[[Message], None], progress: Progress) -> None:
        self.space, self.job = space, space.read_job()
        self.cache = self.job.cache or default_cache()
        self.tell = tell
        self.progress = replace(
            progress, message=self._on_message, advance=self._on_advance, warn=self._on_message,
            epoch=self._on_epoch,
        )  # fmt: skip
        self._stage = ""
        self._features: dict[tuple[str, tuple[float, ...], str], npt.NDArray[np.float32]] = {}
        self._encoders: dict[str, Encoder] = {}
        self._clock = _Clock()

    def run(self) -> None:
        """Compute the comparison and the new bundle; results of an interrupted job are reused.

        Raises
        ------
        ChrepError
            The cohort, the model in use or the settings are invalid, or the job was cancelled (`Cancelled`).
        """
        _leave_a_core()
        in_use = load_bundle(self.job.in_use)
        panel = in_use.panel
        cohort = open_cohort(self.space.manifest).named_as(panel.genes, panel.ids, "the model in use")
        if self.job.preset == "add":
            comparison = self._add(cohort.sections[0], in_use)
        else:
            comparison = self._retrain(cohort, in_use)
        write_text(self.space.comparison_file, comparison.model_dump_json(indent=1))

    def _add(self, section: Section, in_use: Bundle) -> ModelComparison:
        """Add a section's spots to the gallery of the model in use; nothing is compared."""
        self._begin("the section's spots", 1, 1)
        with_section(
            in_use, section, self._encode(in_use, section), self._encoder(in_use), self.space.result(self.job)
        )
        return ModelComparison(rows=(), how=ADDED)

    def _retrain(self, cohort: Cohort, in_use: Bundle) -> ModelComparison:
        """Train the models for the comparison and the new model."""
        groups = held_out_groups(cohort, in_use.card, self.job.groups)
        total = len(groups) + 1

        def fit(part: Cohort, held_out: str) -> Bundle:
            number = [" and ".join(group) for group in groups].index(held_out) + 1
            self._begin(f"without {held_out}", number, total)
            return self._train_or_load(part, in_use, self.space.folds / f"fold{number}.chrep", trial=True)

        comparison = compare(in_use, cohort, fit, self._encode, folds=self.job.groups)
        self._begin("new model", total, total)
        self._train_or_load(cohort, in_use, self.space.result(self.job), trial=False)
        self._clock.save_rates(
            effort_of(self.job, cohort, in_use.card), self.job.preset, self.job.encoder_of(in_use.card)
        )
        return comparison

    def _train_or_load(self, cohort: Cohort, in_use: Bundle, out: Path, *, trial: bool) -> Bundle:
        """Train a bundle according to the job's preset, or load it if it already exists."""
        from chrep_model import pipeline

        if (out / "card.json").is_file():
            self._clock.is_whole = False
            return load_bundle(out)
        how: dict[str, Any] = {"progress": self.progress, "device": self.job.device}
        if self.job.preset == "calibrate":
            features = {s.name: self._encode(in_use, s) for s in cohort}
            return pipeline.calibrate(in_use, cohort, out, features=features, **how)
        settings = train_settings(self.job, in_use, self.space)
        resume = pipeline.partial_training(out).exists()
        if settings.finetune is not None:
            # The encoder of a trial is never used again, so its embeddings stay out of the common cache.
            cache = self.space.folder / "cache" if trial else self.cache
            self._clock.is_whole &= not resume
            return pipeline.train(cohort, settings, out, cache=cache, resume=resume, **how)
        encoder = self._open_encoder(settings)
        features = {s.name: self._spot_features(encoder, settings.context_um, s) for s in cohort}
        self._clock.is_whole &= not resume
        return pipeline.train(cohort, settings, out, resume=resume, features=features, **how)

    def _begin(self, what: str, number: int, of: int) -> None:
        """Report that the training of a model begins."""
        self._stage = what
        self.tell(StageBegun(number=number, of=of, what=what))

    def _encode(self, bundle: Bundle, section: Section) -> npt.NDArray[np.float32]:
        """Return the features of a section's spots from the encoder of a bundle."""
        return self._spot_features(self._encoder(bundle), bundle.context_um, section)

    def _spot_features(
        self, encoder: Encoder, context_um: tuple[float, ...], section: Section
    ) -> npt.NDArray[np.float32]:
        """Return the features of a section's spots, which are computed only once."""
        from chrep_model.training.features import section_features

        key = (encoder.id, context_um, section.name)
        if key not in self._features:
            found = section_features(
                [section], encoder, context_um, cache=self.cache, in_bulk=False, progress=self.progress
            )  # fmt: skip
            self._features[key] = found[section.name]
        return self._features[key]

    def _encoder(self, bundle: Bundle) -> Encoder:
        """Return the encoder of a bundle, opened only once."""
        from chrep_model.device import choose_device

        known = self._encoders
        if bundle.card.encoder_id not in known:
            known[bundle.card.encoder_id] = bundle.encoder(choose_device(self.job.device))
        return known[bundle.card.encoder_id]

    def _open_encoder(self, settings: TrainSettings) -> Encoder:
        """Return the encoder that the settings name, opened only once."""
        from chrep_model.device import choose_device

        encoder = settings.open(choose_device(self.job.device))
        return self._encoders.setdefault(encoder.id, encoder)

    def _on_message(self, text: str) -> None:
        self.tell(StatusLine(text=text))

    def _on_epoch(self, epoch: Epoch) -> None:
        self.tell(Curve(stage=self._stage, **vars(epoch)))

    def _on_advance(self, done: int, total: int, what: str) -> None:
        if self._clock.record(done, what) or done >= total:
            self.tell(Tiles(done=done, total=total, what=what))


def train_settings(job: RetrainRequest, in_use: Bundle, space: Workspace) -> TrainSettings:
    """Return the training settings of a job, based on those of the model in use.

    Parameters
    ----------
    job : RetrainRequest
        The job.
    in_use : Bundle
        The model in use.
    space : Workspace
        Folder to which the list of genes is written if the genes of the model in use are kept.
    """
    from chrep_model.pipeline import TrainSettings

    card = in_use.card
    values: dict[str, Any] = {"genes": job.genes, "seed": job.seed, "chrep": card.settings.get("chrep")}
    if job.encoder == "same":
        values |= {
            "encoder": card.encoder, "weights": in_use.encoder_weights, "mpp": card.mpp,
            "tile_um": card.mpp * card.px, "context_um": in_use.context_um,
        }  # fmt: skip
    if job.genes == "same":
        values["genes"] = space.folder / "genes.txt"
        write_text(values["genes"], "\n".join(in_use.genes) + "\n")
    if job.preset == "finetune":
        values["finetune"] = {"epochs": job.epochs}
    return TrainSettings(**values, note=f"retrained in the viewer, from {card.name}")


class _Clock:
    """Clock for the parts of a job, whose rates are used to estimate the time of later jobs."""

    def __init__(self) -> None:
        self.is_whole = True  # False if results of an interrupted job were reused
        self._start = self._reported = self._last = time.monotonic()
        self._at: tuple[str, int] = ("", 0)
        self._tiles, self._tiles_s = 0, 0.0

    def record(self, done: int, what: str) -> bool:
        """Record progress; return whether it is time to report it."""
        now, (former, before) = time.monotonic(), self._at
        if what == former and done > before and what.startswith("tiles of"):
            self._tiles += done - before
            self._tiles_s += now - self._last
        self._at, self._last = (what, done), now
        if now - self._reported < TELL_EVERY_S:
            return False
        self._reported = now
        return True

    def save_rates(self, effort: Effort, preset: str, encoder: str) -> None:
        """Store the measured rates on this machine."""
        seconds = time.monotonic() - self._start - self._tiles_s if self.is_whole else 0.0
        Rates.load().updated(
            effort, preset=preset, encoder=encoder, tiles=self._tiles, tiles_s=self._tiles_s, fits_s=seconds
        ).save()


def _leave_a_core() -> None:
    """Use one core less than there are, so that the viewer stays responsive."""
    import torch

    torch.set_num_threads(max(1, (os.cpu_count() or 2) - 1))
