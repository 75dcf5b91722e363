"""Fine-tuning of a timm encoder together with the objective of a method's first phase.

Encoder and objective are trained on the tiles of the training spots. Only the encoder's weights are kept, in
a file; the following steps (features, fit, bundle) use them like those of a frozen encoder.

Features are standardised per section, as with a frozen encoder: by the mean and sd over the section's spots,
computed without augmentation before every epoch. The encoder's batch norm and dropout stay in eval mode, so
that its running statistics remain those of its pretraining, a tile's features do not depend on its batch, and
several processes can share a batch (see `distributed`).

On CUDA the encoder runs in bfloat16 and the losses in float32; this has not been run on a GPU yet. On the CPU
everything is float32, and the same seed gives the same weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from chrep_model.cohorts.section import Section
from chrep_model.embeddings import CLIP
from chrep_model.encoders.timm_encoder import TimmEncoder
from chrep_model.errors import SettingsError, TrainingError
from chrep_model.files import write_atomically
from chrep_model.mapped_arrays import temporary_array
from chrep_model.progress import SILENT, Progress
from chrep_model.training.augmentation import Augmentation
from chrep_model.training.distributed import ALONE, Ranks
from chrep_model.training.faults import require_finite, spots_in_words
from chrep_model.training.loop import Task, held_out_pcc, run_epochs
from chrep_model.training.objective import Objective
from chrep_model.training.run import SILENT_RUN, Run
from chrep_model.training.samples import NeighbourBatches, SpotTable

IN_MEMORY = 4 << 30
"""Largest number of bytes of tiles in memory; more are stored in a temporary file and read when needed."""

STATISTICS_SPOTS = 128
"""Number of spots per section from which the mean and sd of its features are computed."""

_CHUNK = 64


class FinetuneSettings(BaseModel):
    """Settings of fine-tuning; the defaults are this project's.

    Attributes
    ----------
    epochs : int
        Largest number of epochs.
    lr, head_lr : float
        Learning rates of the encoder's last layer, and of the objective.
    layer_decay : float
        Learning rate of each layer as a fraction of that of the next layer.
    weight_decay : float
        Weight decay of encoder and objective.
    sections_per_batch, spots_per_section : int
        See `NeighbourBatches`; memory grows with their product.
    jitter : float
        Variation of the stain, see `Augmentation`.
    held_out : str or None
        Training section used for early stopping; the last one by default.
    patience : int
        Training stops after this number of epochs without a better PCC on that section.
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
    run: Run = SILENT_RUN,
    ranks: Ranks = ALONE,
) -> None:
    """Train an encoder in place together with an objective, and write its weights.

    Parameters
    ----------
    encoder : TimmEncoder
        Encoder to start from; its `id` is not valid afterwards.
    objective : Objective
        Network and loss on features (n, encoder.dim).
    sections : sequence of Section
        Training sections, at least two, one of which is used for early stopping.
    table : SpotTable
        Their spots in the same order; its features are not used.
    settings : FinetuneSettings
    out : Path
        Weights file for `open_encoder`, written when training is complete.
    seed : int
        Random seed of batches, dropout and augmentation.
    run : Run
        Receives tiles, batches and epochs, may cancel between them; stores a checkpoint.
    ranks : Ranks
        Processes that share the encoder's work; the first one writes.

    Raises
    ------
    SettingsError
        The section to hold out is not among the sections.
    TrainingError
        See `run_epochs`; or `out` cannot be written.
    Cancelled
        `run.progress.cancelled` returned True.
    """
    tuning = _Finetuning(encoder, objective, sections, table, settings, ranks, run.progress)
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
    """Return the number of the section used for early stopping."""
    numbers = [int(s) for s in np.unique(table.section)]
    names = [table.section_names[s] for s in numbers]
    name = settings.held_out or names[-1]
    if name not in names or len(names) < 2:
        raise SettingsError(
            f"section {name!r} cannot be held out of fine-tuning on {', '.join(names)}",
            remedy="Name one of at least two training sections as `held_out`.",
        )
    return numbers[names.index(name)]


class _EncoderWithObjective(nn.Module):
    """Encoder followed by an objective; the encoder always stays in eval mode."""

    def __init__(self, encoder: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.encoder, self.objective = encoder, objective

    def train(self, mode: bool = True) -> _EncoderWithObjective:
        super().train(mode)
        self.encoder.eval()
        return self


class _Finetuning:
    """Data and functions of one fine-tuning: from tiles to features to the loss."""

    def __init__(
        self,
        encoder: TimmEncoder,
        objective: Objective,
        sections: Sequence[Section],
        table: SpotTable,
        settings: FinetuneSettings,
        ranks: Ranks,
        progress: Progress,
    ) -> None:
        self.encoder, self.objective, self.settings = encoder, objective.to(encoder.device), settings
        self.sections, self.table, self.ranks, self.progress = sections, table, ranks, progress
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
            _EncoderWithObjective(self.encoder.model, self.objective), self.loss, self.batches.epoch,
            self.batches.per_epoch, data=self._data(), whose=self.whose, before_epoch=self.before_epoch,
            held_out=self.held_out, groups=self._groups(),
        )  # fmt: skip

    @cached_property
    def tiles(self) -> NDArray[np.uint8]:
        """Tiles of all spots, (n, px, px, 3), read on first use, so not for a fit that is complete."""
        return read_tiles(self.sections, self.encoder, self.progress)

    def loss(self, rows: NDArray[np.int64]) -> Tensor:
        """Compute the loss of a batch of augmented tiles."""
        batch = self.batches.batch(rows).to(self.encoder.device)
        augmentation = Augmentation.draw(len(rows), self.settings.jitter)
        features = self._embed(self.trained[rows], augmentation)
        require_finite(rows, self.whose, inputs=features, targets=batch.targets)
        self._done += 1
        self.progress.advance(self._done, self.batches.per_epoch, "fine-tuning: batches of the epoch")
        return self.objective.loss(self._standardised(features, batch.section), batch)

    def before_epoch(self) -> None:
        """Recompute the standardisation, and pass all spots to the objective if it uses them."""
        self._done = 0
        wants_all = type(self.objective).before_epoch is not Objective.before_epoch
        features = self._features(self.trained if wants_all else _spread(self.trained, self.table.section))
        if wants_all:
            self.objective.before_epoch(features, self.batches.targets.to(self.encoder.device))

    def held_out(self) -> float | None:
        """Compute the PCC on the held-out section."""
        targets, section = (
            torch.from_numpy(a[self.scored]).to(self.encoder.device)
            for a in (self.table.targets, self.table.section)
        )
        return held_out_pcc(self.objective, self._features(self.scored), targets, section)

    def whose(self, rows: NDArray[np.int64]) -> str:
        """Describe rows of the training spots."""
        return spots_in_words(self.trained[rows], self.table.section, self.table.section_names)

    @torch.no_grad()
    def _features(self, rows: NDArray[np.int64]) -> Tensor:
        """Compute features of spots without augmentation, standardised per section by mean and sd."""
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
        """Compute features (len(rows), dim) float32 of the table's rows; every process embeds a share."""
        self.progress.raise_if_cancelled()
        own = self.ranks.share(len(rows))
        seen = slice(own.start, max(own.stop, own.start + 1))  # never empty, which a model may not support
        pixels = self.encoder.pixels(self.tiles[rows[seen]])
        if augmentation is not None:
            pixels = augmentation.part(seen)(pixels)
        on_cuda = self.encoder.device.type == "cuda"
        with torch.autocast(self.encoder.device.type, torch.bfloat16, enabled=on_cuda):
            features = self.encoder.embed(pixels)
        return self.ranks.gather(features[: own.stop - own.start].float(), len(rows))

    def _groups(self) -> list[dict[str, Any]]:
        """Return parameter groups with the learning rates of their layers."""
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
        """Return the data that identify a checkpoint; slides by their fingerprint, without reading tiles."""
        slides = []
        for section in self.sections:
            with section.open_slide() as slide:
                slides.append(f"{section.name} {section.mpp!r} {slide.fingerprint}")
        facts = [repr(self.settings), self.encoder.id, *slides, *(s.xy for s in self.sections)]
        return [*facts, *self.table.arrays()]


def read_tiles(
    sections: Sequence[Section],
    encoder: TimmEncoder,
    progress: Progress = SILENT,
) -> NDArray[np.uint8]:
    """Read the tiles around all spots, (n, px, px, 3), section after section.

    Raises
    ------
    Cancelled
        `progress.cancelled` returned True.
    SlideError
        Pixels cannot be read.
    SettingsError
        The disk has no space for the temporary file of many tiles.
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
                progress.raise_if_cancelled()
                out[start + part.start : start + part.stop] = tiles
                progress.advance(part.stop, len(section), f"tiles of {section.name}")
        start += len(section)
    return out


def _spread(rows: NDArray[np.int64], section: NDArray[np.int64]) -> NDArray[np.int64]:
    """Select at most `STATISTICS_SPOTS` rows of every section, evenly spread."""
    kept = []
    for s in np.unique(section[rows]):
        own = rows[section[rows] == s]
        kept.append(own[np.unique(np.linspace(0, len(own) - 1, STATISTICS_SPOTS).astype(np.int64))])
    return np.concatenate(kept)
