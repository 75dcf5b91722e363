"""Measure the gain by fine-tuning the encoder on real sections, and its speed and memory.

    python benchmarks/finetuning.py COHORT --encoder NAME --weights FILE [--device cuda --test C5 --epochs 10]

Each section, or each named one, is held out in turn: CHRep is trained with the original encoder, and with the
same encoder fine-tuned on the training sections. The test section is not read before it is predicted.
"""

from __future__ import annotations

import resource
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from chrep_model.bundle import Bundle
from chrep_model.cohorts.cohort import Cohort, open_cohort
from chrep_model.cohorts.section import Section
from chrep_model.device import choose_device
from chrep_model.evaluation.metrics import scores
from chrep_model.pipeline import TrainSettings, train
from chrep_model.progress import Epoch, Progress
from chrep_model.training.features import section_features
from chrep_model.training.finetune import FinetuneSettings

METRICS = ("pcc_acg", "pcc_heg50", "mse")


class Clock:
    """Clock for the epochs of the encoder, without the first, which also reads the tiles."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def __call__(self, epoch: Epoch) -> None:
        """Record and print the end of an epoch."""
        if "encoder" in epoch.part:
            self.ends.append(time.perf_counter())
            print(f"  epoch {epoch.number}: loss {epoch.loss:.3f}, held-out PCC {epoch.held_out or 0:.3f}")

    def seconds(self) -> float:
        """Return the median seconds of an epoch."""
        return float(np.median(np.diff(self.ends))) if len(self.ends) > 1 else float("nan")


def scored(bundle: Bundle, test: Section, device: str) -> dict[tuple[str, str], float]:
    """Return the scores of the raw and of the calibrated prediction of a section."""
    encoder = bundle.encoder(device)
    features = section_features((test,), encoder, bundle.context_um)[test.name]
    model = bundle.model
    response, truth = model.respond(features), model.panel.expression(test)
    return {
        (variant, metric): value
        for variant in ("raw", "calibrated")
        for space, metric, value in scores(truth, model.read(response, variant), model.panel.sd)
        if space == "log10-spot" and metric in METRICS
    }


def peak_memory_gb(device: str) -> float:
    """Return the peak memory of the GPU if there is one, else of the process."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def compare(cohort: Cohort, name: str, settings: TrainSettings, device: str) -> None:
    """Print the scores of one test section with both encoders, and the speed of fine-tuning."""
    train_on, clock = cohort.without((name,)), Clock()
    spots = sum(
        len(s) for s in train_on.sections[:-1]
    )  # without the last one, which is used for early stopping
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("frozen", "fine-tuned"):
            changes = {} if kind == "fine-tuned" else {"finetune": None}
            own = settings.model_copy(update=changes)
            bundle = train(train_on, own, Path(folder) / kind, device=device, progress=Progress(epoch=clock))
            found = scored(bundle, cohort[name], device)
            for variant in ("raw", "calibrated"):
                cells = " | ".join(f"{found[variant, metric]:.4f}" for metric in METRICS)
                print(f"| {name} | {kind} | {variant} | {cells} |", flush=True)
    rate = spots / clock.seconds()
    print(f"| {name} | | {rate:.1f} images/s | {peak_memory_gb(device):.1f} GB on {device} | | |")


def main(
    cohort: Path,
    encoder: str = "mobilenetv2_100",
    weights: Path | None = None,
    device: str = "auto",
    epochs: int = 10,
    test: Annotated[list[str] | None, typer.Option(help="Test sections; all in turn unless named.")] = None,
) -> None:
    """Print the table."""
    opened = open_cohort(cohort)
    settings = TrainSettings(encoder=encoder, weights=weights, finetune=FinetuneSettings(epochs=epochs))
    print("| test section | encoder | variant | PCC(ACG) | PCC(HEG50) | MSE |\n|---|---|---|---|---|---|")
    for name in test or [s.name for s in opened]:
        compare(opened, name, settings, choose_device(device))


if __name__ == "__main__":
    typer.run(main)
