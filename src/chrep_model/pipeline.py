"""Training and calibration of models, for the command line and the plugin.

Features of the training sections are computed once (`training.features.section_features`); a model is fitted
on them (`methods.model.fit_model`) and stored as a bundle.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from chrep_model.bundle import Bundle, check_place, load_bundle, save_bundle
from chrep_model.bundle.card import HEADS, provenance
from chrep_model.cache import default_cache
from chrep_model.cohorts.cohort import Cohort
from chrep_model.cohorts.gene_lists import read_gene_list
from chrep_model.cohorts.gene_panel import GenePanel
from chrep_model.device import choose_device
from chrep_model.encoders.encoder import Encoder
from chrep_model.encoders.timm_encoder import TimmEncoder
from chrep_model.errors import BundleError, Cancelled, SettingsError
from chrep_model.methods.base import Method
from chrep_model.methods.chrep import ChrepSettings, FittedChrep, recalibrate
from chrep_model.methods.method_settings import MethodSettings, make_method
from chrep_model.methods.model import FeatureScale, Model, fit_model, spot_table
from chrep_model.progress import SILENT, Progress
from chrep_model.training.distributed import Ranks, process_group
from chrep_model.training.features import EncoderSettings, Features, section_features
from chrep_model.training.finetune import FinetuneSettings, finetune
from chrep_model.training.run import Run

DEFAULT_GENES = 785
"""Number of genes in the list on which methods are commonly compared on HER2+ sections."""


class TrainSettings(EncoderSettings, MethodSettings):
    """Settings of a training: the encoder, the genes, the seed, and those of each method.

    Attributes
    ----------
    method : str
        One of `methods.registry.names`.
    genes : int or Path
        Number of genes to choose on the training sections, or a file that lists them.
    seed : int
        Random seed of the whole training.
    exclude_sections : tuple of str
        Names of sections that are not used.
    finetune : FinetuneSettings, optional
        Settings of fine-tuning the encoder on the sections first; not fine-tuned if None.
    note : str
        Note for the bundle's card.
    """

    method: str = "chrep"
    genes: int | Path = DEFAULT_GENES
    seed: int = Field(0, ge=0, lt=2**32)  # the range that random forests accept
    exclude_sections: tuple[str, ...] = ()
    finetune: FinetuneSettings | None = None
    note: str = ""

    def gene_choice(self) -> int | tuple[str, ...]:
        """Return the number of genes, or their names from the file."""
        return self.genes if isinstance(self.genes, int) else read_gene_list(self.genes)


def train(
    cohort: Cohort,
    settings: TrainSettings,
    out: str | os.PathLike[str],
    *,
    device: str = "auto",
    cache: Path | None = None,
    resume: bool = False,
    features: Features | None = None,
    progress: Progress = SILENT,
) -> Bundle:
    """Train a method on a cohort and write the bundle.

    Under ``torchrun`` the processes share the fine-tuning; the first one does everything else.

    Parameters
    ----------
    out : path
        Folder of the bundle, written when training is complete.
    device : str
        ``"auto"`` or a torch device, for the encoder.
    cache : Path, optional
        Cache folder of the embeddings; `default_cache()` unless given.
    resume : bool
        Whether to resume an interrupted training from its checkpoints beside `out`.
    features : mapping, optional
        Result of `section_features` for these sections, if computed already; not for fine-tuning.
    progress : Progress
        Told what is being done, tiles, and every epoch's loss; asked between batches, and between the parts
        of a fit.

    Raises
    ------
    BundleError
        `out` cannot be written, or exists and is not a bundle.
    CohortError
        Fewer than two sections remain.
    GeneError
        No section measured a listed gene, or no gene is detected often enough.
    """
    check_place(out)
    cohort = cohort.without(settings.exclude_sections) if settings.exclude_sections else cohort
    cohort.require(2, "training holds sections out in turn")
    method, genes = make_method(settings.method, settings), settings.gene_choice()
    # Report wrong names and missing genes before hours of encoding.
    gaps: list[str] = []
    panel = GenePanel.fit(cohort.sections, genes, warn=gaps.append)
    gaps += panel.gaps(cohort.sections)
    folder = partial_training(out)
    with process_group() as ranks, _kept_in(folder, resume, progress, ranks) as run:
        for line in gaps:
            run.progress.warn(line)
        encoder, weights = settings.open(choose_device(device)), settings.weights
        if settings.finetune is not None:
            weights = folder / "fine-tuned.safetensors"
            encoder = _finetuned(method, cohort, genes, encoder, settings, weights, run=run, ranks=ranks)
        if ranks.first:
            if weights is None and isinstance(encoder, TimmEncoder):  # from the hub: stored in the bundle
                weights = folder / "hub.safetensors"
                encoder = _written(encoder, settings, weights)
            _fit_and_save(
                method, cohort, genes, encoder, settings, weights, out,
                features=None if settings.finetune else features, cache=cache, run=run,
            )  # fmt: skip
        ranks.wait()
    return load_bundle(out)


def _fit_and_save(
    method: Method,
    cohort: Cohort,
    genes: int | tuple[str, ...],
    encoder: Encoder,
    settings: TrainSettings,
    weights: Path | None,
    out: str | os.PathLike[str],
    *,
    features: Features | None,
    cache: Path | None,
    run: Run,
) -> None:
    """Compute features with the final encoder, fit the method and write the bundle."""
    features = features or section_features(
        cohort.sections, encoder, settings.context_um, batch_size=settings.batch_size,
        cache=cache or default_cache(), progress=run.progress,
    )  # fmt: skip
    run.progress.raise_if_cancelled()
    model = fit_model(method, cohort.sections, features, genes, seed=settings.seed, run=run)
    run.progress.raise_if_cancelled()
    save_bundle(
        out, model, encoder, weights=weights, context_um=settings.context_um, cohort=cohort.name,
        sections=provenance(cohort.sections), seed=settings.seed,
        settings=_settings_of(settings), note=settings.note,
    )  # fmt: skip


def _finetuned(
    method: Method,
    cohort: Cohort,
    genes: int | tuple[str, ...],
    encoder: Encoder,
    settings: TrainSettings,
    out: Path,
    *,
    run: Run,
    ranks: Ranks,
) -> Encoder:
    """Fine-tune the encoder by the method's objective, write its weights to `out` and load them."""
    import torch

    assert settings.finetune is not None  # noqa: S101  (checked by the caller)
    if not isinstance(encoder, TimmEncoder):
        raise SettingsError(
            "the built-in encoder has no weights to fine-tune",
            remedy="Choose a timm model with --encoder, or leave --finetune out.",
        )
    panel = GenePanel.fit(cohort.sections, genes)
    torch.manual_seed(settings.seed)
    objective = method.objective(encoder.dim, len(panel))
    if objective is None:
        raise SettingsError(
            f"the method {method.name} has nothing to fine-tune an encoder by",
            remedy="Use --method chrep, or leave --finetune out.",
        )
    none = np.empty(0, np.float32)
    blank = {s.name: np.empty((len(s), 0), np.float32) for s in cohort.sections}
    table = spot_table(cohort.sections, blank, panel, FeatureScale(none, none))
    run.message("fine-tuning the encoder")
    finetune(
        encoder, objective, cohort.sections, table, settings.finetune, out, seed=settings.seed,
        run=run.within("encoder"), ranks=ranks,
    )  # fmt: skip
    ranks.wait()
    return settings.model_copy(update={"weights": out}).open(str(encoder.device))


def _written(encoder: TimmEncoder, settings: TrainSettings, path: Path) -> Encoder:
    """Write an encoder's weights to a file, and load the encoder from it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoder.weights_file())
    return settings.model_copy(update={"weights": path}).open(str(encoder.device))


def calibrate(
    bundle: Bundle,
    cohort: Cohort,
    out: str | os.PathLike[str],
    *,
    device: str = "auto",
    cache: Path | None = None,
    features: Features | None = None,
    progress: Progress = SILENT,
) -> Bundle:
    """Fit a new gallery and corrector to measured sections; encoder and heads of the bundle do not change.

    The weights of the combination are also fitted again, on predictions for new sections that are held out
    from gallery and corrector in turn, so that they reflect the accuracy of the old heads at the new site.

    Raises
    ------
    BundleError
        The bundle's method cannot be calibrated, or `out` exists and is not a bundle.
    CohortError
        There are fewer than two sections, or they use other gene names.
    """
    check_place(out)
    old = bundle.model
    if not isinstance(old.fitted, FittedChrep):
        raise BundleError(
            f"a bundle of the method {bundle.card.method} has no calibration",
            path=bundle.path,
            remedy="Use one of chrep.",
        )
    cohort.require(2, "calibrating holds sections out in turn")
    cohort = cohort.named_as(old.panel.genes, old.panel.ids, "the model")
    for line in old.panel.gaps(cohort.sections):
        progress.warn(line)
    encoder = bundle.encoder(choose_device(device))
    features = features or section_features(
        cohort.sections, encoder, bundle.context_um,
        cache=cache or default_cache(), progress=progress,
    )  # fmt: skip
    progress.raise_if_cancelled()
    table = spot_table(cohort.sections, features, old.panel, old.scale)
    settings = ChrepSettings.model_validate(bundle.card.settings.get("chrep") or {})
    fitted = recalibrate(old.fitted, table, settings, seed=bundle.card.seed, run=Run(progress))
    progress.raise_if_cancelled()
    return save_bundle(
        out, Model(old.panel, old.scale, fitted), encoder, weights=bundle.encoder_weights,
        context_um=bundle.context_um, cohort=cohort.name, sections=provenance(cohort.sections),
        seed=bundle.card.seed, settings=bundle.card.settings | {HEADS: bundle.card.of_heads},
        note=f"calibrated on {cohort.name} from {bundle.card.name}. {bundle.card.note}".strip(),
    )  # fmt: skip


def partial_training(out: str | os.PathLike[str]) -> Path:
    """Return the folder for checkpoints beside a bundle, which exists until the bundle is complete."""
    return Path(f"{Path(out)}.partial-training")


@contextmanager
def _kept_in(folder: Path, resume: bool, progress: Progress, ranks: Ranks) -> Iterator[Run]:
    """Yield a run with a folder of checkpoints, empty or as found; it is deleted after success.

    A training that fails or is killed leaves it for `resume`, one that the user cancels does not. All
    processes but the first are silent and write nothing.
    """
    if not ranks.first:
        yield Run(Progress(cancelled=progress.cancelled), folder)
        return
    if resume and not folder.exists():
        progress.warn(f"{folder}: there is no half-finished training to go on with; this one starts anew")
    if folder.exists() and not resume:
        discarded = "an earlier training's half-finished networks are discarded (--resume uses them)"
        progress.warn(f"{folder}: {discarded}")
        shutil.rmtree(folder)
    try:
        yield Run(progress, folder)
    except Cancelled:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except KeyboardInterrupt:
        if folder.exists():
            progress.warn(f"{folder}: what was done so far is kept here; --resume goes on with it")
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _settings_of(settings: TrainSettings) -> dict[str, Any]:
    """Return settings as plain values, with only the file's name of a path."""
    others = set(settings.model_extra or {}) - {settings.method}
    values = settings.model_dump(mode="json", exclude={"note", *others})
    for key in ("weights", "genes"):
        if isinstance(value := getattr(settings, key), Path):
            values[key] = value.name
    return values
