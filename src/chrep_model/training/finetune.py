"""Fine-tuning: phase 1 with the encoder in it.

A method's objective is put behind a timm encoder and both are trained on the tiles of the training spots.
What is left is a file of weights; all that follows (features, fit, bundle) goes the way of a frozen encoder,
on the new weights.

As on that way, features are standardised per section: by their mean and sd over the section's own spots, seen
without augmentation before every epoch. Batch norm and dropout of the encoder stay in eval mode. Its running
statistics then remain those of its pretraining, a tile's features do not depend on its batch, and several
processes can share a batch (see `distributed`).

On CUDA the encoder runs in bfloat16 and the losses in float32; that has been written but not yet been run on
a GPU. On the CPU everything is float32, and the same seed gives the same weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from chrep_model.cohorts.section import Section
from chrep_model.embeddings import CLIP, Progress
from chrep_model.encoders.timm_encoder import TimmEncoder
from chrep_model.errors import Cancelled, SettingsError, TrainingError
from chrep_model.files import write_atomically
from chrep_model.mapped_arrays import temporary_array
from chrep_model.training.augmentation import Augmentation
from chrep_model.training.distributed import ALONE, Ranks
from chrep_model.training.faults import require_finite, spots_in_words
from chrep_model.training.loop import Task, held_out_pcc, run_epochs
from chrep_model.training.objective import Objective
from chrep_model.training.run import SILENT, Run
from chrep_model.training.samples import NeighbourBatches, SpotTable

IN_MEMORY = 4 << 30
"""Bytes of tiles that are held in memory; more are kept in a temporary file, read as they are needed."""

LOOKED_AT = 128
"""Spots per section whose features give its mean and sd."""

_CHUNK = 64


class FinetuneSettings(BaseModel):
    """How an encoder is fine-tuned; all values are ours.

    Attributes
    ----------
    epochs : int
        At most.
    lr, head_lr : float
        Of the encoder's last layer, and of the objective behind it.
    layer_decay : float
        Every layer learns at this fraction of the rate of the next one.
    weight_decay : float
        Of both.
    sections_per_batch, spots_per_section : int
        See `NeighbourBatches`; memory grows with their product.
    jitter : float
        Of the stain, see `Augmentation`.
    held_out : str or None
        Training section that decides when to stop; the last one unless named.
    patience : int
        Epochs without a better PCC there after which training stops.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(10, gt=0)
    lr: float = Field(1e-4, gt=0)
    head_lr: float = Field(1e-3, gt=0)
    layer_decay: float = Field(0.85, gt=0, le=1)
    weight_decay: float = Field(0.05, ge=0)
    sections_per_batch: int = Field(4, gt=0)
    spots_per_section: int = Field(16, gt=0)
    jitter: float = Field(0.2, ge=0, lt=1)
    held_out: str | None = None
    patience: int = Field(3, gt=0)


def finetune(
    encoder: TimmEncoder,
    objective: Objective,
    sections: Sequence[Section],
    table: SpotTable,
    settings: FinetuneSettings,
    out: Path,
    *,
    seed: int,
    run: Run = SILENT,
    ranks: Ranks = ALONE,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> None:
    """Train an encoder in place together with an objective, and write its weights.

    Parameters
    ----------
    encoder : TimmEncoder
        Where to start from; its `id` is no longer true afterwards.
    objective : Objective
        Reads features (n, encoder.dim).
    sections : sequence of Section
        Training sections, at least two: one of them decides when to stop.
    table : SpotTable
        Their spots in the same order; its features are not read.
    out : Path
        File for `open_encoder`; appears when it is complete.
    seed : int
        Of batches, dropout and augmentation.
    run : Run
        Gets every epoch, and keeps a checkpoint.
    ranks : Ranks
        Processes that share the encoder's work; the first one writes.
    progress, cancelled : callable, optional
        Tiles and batches done; asked between them.

    Raises
    ------
    SettingsError
        The section to be held out is not among them.
    TrainingError
        See `run_epochs`; or `out` cannot be written.
    Cancelled
        `cancelled` said so.
    """
    tuning = _Tuning(encoder, objective, sections, table, settings, ranks, progress, cancelled)
    torch.manual_seed(seed)
    run_epochs(
        tuning.task(), epochs=settings.epochs, lr=settings.lr, weight_decay=settings.weight_decay, seed=seed,
        patience=settings.patience, run=run, ranks=ranks,
    )  # fmt: skip
    if ranks.first:
        with write_atomically(out, TrainingError) as part:
            part.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(encoder.weights_file())


def _held_out(settings: FinetuneSettings, table: SpotTable) -> int:
    """Number of the section that decides when to stop."""
    numbers = [int(s) for s in np.unique(table.section)]
    names = [table.section_names[s] for s in numbers]
    name = settings.held_out or names[-1]
    if name not in names or len(names) < 2:
        raise SettingsError(
            f"section {name!r} cannot be held out of fine-tuning on {', '.join(names)}",
            remedy="Name one of at least two training sections as `held_out`.",
        )
    return numbers[names.index(name)]


class _Behind(nn.Module):
    """An encoder with an objective behind it; the encoder is trained in eval mode."""

    def __init__(self, encoder: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.encoder, self.objective = encoder, objective

    def train(self, mode: bool = True) -> _Behind:
        super().train(mode)
        self.encoder.eval()
        return self


class _Tuning:
    """Tiles to features to the loss, for one fit."""

    def __init__(
        self,
        encoder: TimmEncoder,
        objective: Objective,
        sections: Sequence[Section],
        table: SpotTable,
        settings: FinetuneSettings,
        ranks: Ranks,
        progress: Progress | None,
        cancelled: Callable[[], bool] | None,
    ) -> None:
        self.encoder, self.objective, self.settings = encoder, objective.to(encoder.device), settings
        self.sections, self.table, self.ranks = sections, table, ranks
        self.progress, self.cancelled = progress, cancelled
        scored = table.section == _held_out(settings, table)
        self.trained, self.scored = np.flatnonzero(~scored), np.flatnonzero(scored)
        self.batches = NeighbourBatches(
            table.rows(~scored), settings.sections_per_batch, settings.spots_per_section
        )
        count = int(table.section.max()) + 1
        self._mean, self._sd = (torch.zeros(count, encoder.dim, device=encoder.device) for _ in range(2))
        self._done = 0

    def task(self) -> Task:
        """Describe the fit to `run_epochs`."""
        return Task(
            _Behind(self.encoder.model, self.objective), self.loss, self.batches.epoch,
            self.batches.per_epoch, data=self._data(), whose=self.whose, before_epoch=self.before_epoch,
            held_out=self.held_out, groups=self._groups(),
        )  # fmt: skip

    @cached_property
    def tiles(self) -> NDArray[np.uint8]:
        """(n, px, px, 3), read when they are first needed: not for a fit that is complete."""
        return read_tiles(self.sections, self.encoder, self.progress, self.cancelled)

    def loss(self, rows: NDArray[np.int64]) -> Tensor:
        """Loss of a batch of augmented tiles."""
        batch = self.batches.batch(rows).to(self.encoder.device)
        augmentation = Augmentation.draw(len(rows), self.settings.jitter)
        features = self._embed(self.trained[rows], augmentation)
        require_finite(rows, self.whose, inputs=features, targets=batch.targets)
        self._tell(self.batches.per_epoch)
        return self.objective.loss(self._standardised(features, batch.section), batch)

    def before_epoch(self) -> None:
        """Standardise anew, and show the objective all spots where it wants to see them."""
        self._done = 0
        wants_all = type(self.objective).before_epoch is not Objective.before_epoch
        features = self._look(self.trained if wants_all else _spread(self.trained, self.table.section))
        if wants_all:
            self.objective.before_epoch(features, self.batches.targets.to(self.encoder.device))

    def held_out(self) -> float | None:
        """PCC on the held-out section."""
        targets, section = (
            torch.from_numpy(a[self.scored]).to(self.encoder.device)
            for a in (self.table.targets, self.table.section)
        )
        return held_out_pcc(self.objective, self._look(self.scored), targets, section)

    def whose(self, rows: NDArray[np.int64]) -> str:
        """Say rows of the trained spots in words."""
        return spots_in_words(self.trained[rows], self.table.section, self.table.section_names)

    @torch.no_grad()
    def _look(self, rows: NDArray[np.int64]) -> Tensor:
        """Features of these spots without augmentation, standardised by their own mean and sd per section."""
        parts = np.split(rows, range(_CHUNK, len(rows), _CHUNK))
        features = torch.cat([self._embed(part) for part in parts])
        section = torch.from_numpy(self.table.section[rows]).to(features.device)
        for s in section.unique():
            own = features[section == s]
            sd = own.std(0, correction=0)
            self._mean[s], self._sd[s] = own.mean(0), torch.where(sd < 1e-6, 1.0, sd)
        return self._standardised(features, section)

    def _standardised(self, features: Tensor, section: Tensor) -> Tensor:
        return ((features - self._mean[section]) / self._sd[section]).clamp(-CLIP, CLIP)

    def _embed(self, rows: NDArray[np.int64], augmentation: Augmentation | None = None) -> Tensor:
        """Features (len(rows), dim) float32 of rows of the table; every process embeds its share."""
        if self.cancelled is not None and self.cancelled():
            raise Cancelled("cancelled")
        own = self.ranks.share(len(rows))
        seen = slice(own.start, max(own.stop, own.start + 1))  # a model may not like a batch of nothing
        pixels = self.encoder.pixels(self.tiles[rows[seen]])
        if augmentation is not None:
            pixels = augmentation.part(seen)(pixels)
        on_cuda = self.encoder.device.type == "cuda"
        with torch.autocast(self.encoder.device.type, torch.bfloat16, enabled=on_cuda):
            features = self.encoder.embed(pixels)
        return self.ranks.gather(features[: own.stop - own.start].float(), len(rows))

    def _groups(self) -> list[dict[str, Any]]:
        """Parameters with the rates of their layers."""
        from timm.optim import param_groups_layer_decay  # type: ignore[attr-defined]

        s, model = self.settings, self.encoder.model
        exempt = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()
        layers = param_groups_layer_decay(
            model, s.weight_decay, no_weight_decay_list=exempt, layer_decay=s.layer_decay
        )
        return [
            *(
                {"params": g["params"], "lr": s.lr * g["lr_scale"], "weight_decay": g["weight_decay"]}
                for g in layers
            ),
            {"params": list(self.objective.parameters()), "lr": s.head_lr, "weight_decay": s.weight_decay},
        ]

    def _data(self) -> list[Any]:
        """What a checkpoint must have been made of; slides by their content, so that no tile is read."""
        slides = []
        for section in self.sections:
            with section.open_slide() as slide:
                slides.append(f"{section.name} {section.mpp!r} {slide.fingerprint}")
        facts = [repr(self.settings), self.encoder.id, *slides, *(s.xy for s in self.sections)]
        return [*facts, *self.table.arrays()]

    def _tell(self, of: int) -> None:
        self._done += 1
        if self.progress is not None:
            self.progress(self._done, of, "fine-tuning: batches of the epoch")


def read_tiles(
    sections: Sequence[Section],
    encoder: TimmEncoder,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> NDArray[np.uint8]:
    """Read the tiles around all spots, (n, px, px, 3), section after section.

    Raises
    ------
    Cancelled
        `cancelled` said so.
    SlideError
        Pixels cannot be read.
    SettingsError
        There is no room for the temporary file of many tiles.
    """
    from chrep_model.slides.tiles import TileReader

    px = encoder.spec.px
    shape = (sum(len(s) for s in sections), px, px, 3)
    large = np.prod(shape, dtype=np.int64) > IN_MEMORY
    out: NDArray[np.uint8] = temporary_array(shape, np.uint8) if large else np.empty(shape, np.uint8)
    start = 0
    for section in sections:
        with section.open_slide() as slide:
            for part, tiles in TileReader(slide, encoder.spec).batches(section.xy, _CHUNK):
                if cancelled is not None and cancelled():
                    raise Cancelled("cancelled", path=slide.path)
                out[start + part.start : start + part.stop] = tiles
                if progress is not None:
                    progress(part.stop, len(section), f"tiles of {section.name}")
        start += len(section)
    return out


def _spread(rows: NDArray[np.int64], section: NDArray[np.int64]) -> NDArray[np.int64]:
    """At most `LOOKED_AT` of every section's rows, evenly spread."""
    kept = []
    for s in np.unique(section[rows]):
        own = rows[section[rows] == s]
        kept.append(own[np.unique(np.linspace(0, len(own) - 1, LOOKED_AT).astype(np.int64))])
    return np.concatenate(kept)
