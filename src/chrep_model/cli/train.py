"""``chrep train`` and ``chrep calibrate``: train a model, and adapt it to a new site."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chrep_model.cli import console, options
from chrep_model.methods.registry import names

if TYPE_CHECKING:
    from chrep_model.bundle import Bundle


TRAIN_EXAMPLE = options.example(
    "chrep train cohort/ -o breast.chrep --genes 785",
    "chrep train cohort/ -o breast.chrep --encoder mobilenetv2_100 --weights weights.safetensors --finetune",
    "chrep train sample_data -o demo.chrep --config sample_data/SYNTHETIC_demo.yaml",
)
CALIBRATE_EXAMPLE = options.example("chrep calibrate breast.chrep new_site/ -o breast_new_site.chrep")


def train(
    cohort: options.CohortArgument,
    out: options.BundleOut,
    method: Annotated[
        str | None,
        typer.Option(
            help="chrep, or one to compare with: "
            f"{', '.join(name for name in names() if name != 'chrep')}.  [default: chrep]"
        ),
    ] = None,
    encoder: options.Encoder = None,
    weights: options.Weights = None,
    genes: options.Genes = None,
    tile_um: options.TileUm = None,
    mpp: options.TileMpp = None,
    context_um: options.ContextUm = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random.  [default: 0]", min=0)] = None,
    exclude_sections: Annotated[
        str | None, typer.Option(metavar="A,B", help="Sections that must not be looked at.")
    ] = None,
    finetune: Annotated[
        bool, typer.Option("--finetune", help="Fine-tune the encoder on these sections first.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a training that was interrupted or killed.")
    ] = False,
    note: Annotated[str | None, typer.Option(help="Goes on the bundle's card.")] = None,
    config: options.Config = None,
    device: options.Device = "auto",
    batch_size: options.BatchSize = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Train a model on measured sections.

    The result is a bundle: a folder that holds everything to predict with. An older bundle of this name is
    replaced once the new one is complete. Until then half-finished networks are kept beside it, in
    BUNDLE.partial-training.

    Fine-tuning needs a timm encoder and a method with a network of its own, such as chrep; its settings stand
    under `finetune:` in the YAML file. On four GPUs: torchrun --nproc-per-node 4 --no-python chrep train ...
    """
    from chrep_model.bundle import check_place

    check_place(out)
    values = options.merged(
        config, method=method, encoder=encoder, weights=weights, genes=genes, tile_um=tile_um, mpp=mpp,
        context_um=context_um, seed=seed, exclude_sections=options.names(exclude_sections) or None, note=note,
        batch_size=batch_size,
    )  # fmt: skip
    if finetune and not values.get("finetune"):
        values["finetune"] = {}
    from chrep_model import pipeline
    from chrep_model.cli.cohorts import checked_cohort
    from chrep_model.config import validated

    settings = validated(pipeline.TrainSettings, values, path=config)
    started = time.perf_counter()
    listed = settings.genes if isinstance(settings.genes, Path) else None
    with console.progress() as progress, options.naming(listed):
        bundle = pipeline.train(
            checked_cohort(cohort, settings.exclude_sections, progress=progress), settings, out,
            device=device, resume=resume, progress=progress,
        )  # fmt: skip
    if os.environ.get("RANK", "0") == "0":  # torchrun starts several processes, and only the first prints
        _print_bundle(bundle, time.perf_counter() - started, as_json)


def calibrate(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle of the method chrep.")],
    cohort: options.CohortArgument,
    out: options.BundleOut,
    device: options.Device = "auto",
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Fit a bundle to a new site by its measured sections.

    Gallery, corrector and their combination are made anew; encoder and heads stay as they are.
    """
    from chrep_model.bundle import check_place

    check_place(out)
    from chrep_model import pipeline
    from chrep_model.bundle import load_bundle
    from chrep_model.cli.cohorts import checked_cohort

    started = time.perf_counter()
    with console.progress() as progress:
        old = load_bundle(bundle)
        sections = checked_cohort(cohort, progress=progress)
        new = pipeline.calibrate(old, sections, out, device=device, progress=progress)
    _print_bundle(new, time.perf_counter() - started, as_json)


def _print_bundle(bundle: Bundle, seconds: float, as_json: bool) -> None:
    from chrep_model.bundle import describe

    if as_json:
        console.say_json({"bundle": bundle.path, "seconds": round(seconds, 1), **bundle.card.model_dump()})
        return
    for line in describe(bundle.card):
        console.say(line)
    console.say(f"{bundle.path} ({console.size_of(bundle.path)}, {seconds:.0f} s)")
