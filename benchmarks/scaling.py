"""Measure time per tile and peak memory of predictions on small to huge slides, each in a separate process.

    python benchmarks/scaling.py [--tiles 1000,5000,20000,80000] [--huge 100000]
        [--encoder mobilenetv3_small_100] [-o scaling.json]

A model is trained on the sample data, with random weights of a fast encoder, so that the time of the other
steps is visible. Slides are JPEG pyramids of the sample tissue with the given numbers of tiles, all of which
are predicted and kept in a new store; of the huge slide, of 100,000 px a side, as many tiles in its middle as
of the second largest. The smallest slide is measured first and last, and its time is the mean of both. The
time starts after the slide is prepared, and is divided by the tiles that are encoded after that. The exit
code is 1 if a tile of the largest slide takes more than 1.15 times as long as one of the smallest, or if the
peak memory of the largest or the huge slide is more than 400 MB above that of the smallest. The benchmark
needs Linux, because the peak is read from /proc.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from pyramids import sample_pyramid
from rich.console import Console
from rich.table import Table
from safetensors.torch import save_file

from chrep_model import pipeline
from chrep_model.bundle import load_bundle
from chrep_model.cohorts.cohort import open_cohort
from chrep_model.device import share_one_arena
from chrep_model.embeddings import SAMPLE
from chrep_model.encoders.torchvision_compat import ensure_torchvision
from chrep_model.geometry import Rect
from chrep_model.prediction.prediction import Prediction
from chrep_model.prediction.predictor import Predictor
from chrep_model.slides.slide import open_slide

COHORT = Path(__file__).resolve().parent.parent / "sample_data"
MPP, PX = 0.7, 224
MOST_TIME, MOST_MEMORY_MB = 1.15, 400.0


def trained(folder: Path, encoder: str) -> Path:
    """Train a model on an encoder with random weights, and return its path."""
    ensure_torchvision()
    import timm

    torch.manual_seed(0)
    weights = folder / "random.safetensors"
    save_file(timm.create_model(encoder, num_classes=0).state_dict(), weights, {"input_size": f"3,{PX},{PX}"})
    settings = pipeline.TrainSettings(encoder=encoder, weights=weights, genes=50, mpp=MPP, seed=0)
    return pipeline.train(open_cohort(COHORT), settings, folder / "model.chrep").path


def predict(bundle: Path, path: Path, most: int, cache: Path) -> dict[str, Any]:
    """Predict a square of tiles in the middle of a slide, and return its time and peak memory."""
    share_one_arena()  # as the command line does
    predictor = Predictor(load_bundle(bundle), device="cpu", cache_dir=cache, whole_slides=True)
    with open_slide(path) as slide:
        context = predictor.prepare(slide)
        rows, cols = slide.shape
        side = (math.isqrt(most) - 1) * context.grid.tile_px
        square = Rect.around(cols / 2, rows / 2, side, side)
        indices = context.grid.scan_order(context.tiles(square))
        prediction = Prediction(predictor.bundle, context.grid, slide)
        before = context.embeddings.missing(context.grid.centres(indices), (), on_grid=True)
        started = time.perf_counter()
        for part in predictor.stream(context, indices):
            prediction.add(part)
        seconds = time.perf_counter() - started
        finite = bool(np.isfinite(prediction.gene(prediction.genes[0])).all())
    status = Path("/proc/self/status").read_text(encoding="ascii")  # ru_maxrss would include the parent's
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1000
    return {
        "side": cols, "tiles": len(prediction), "encoded": before, "seconds": seconds, "finite": finite,
        "ms_per_tile": 1000 * seconds / max(1, before), "peak_mb": peak,
    }  # fmt: skip


def in_own_process(bundle: Path, folder: Path, side: int, most: int) -> dict[str, Any]:
    """Write a slide of `side` px, and predict it in a new process."""
    path = sample_pyramid(folder, side, MPP)
    with (
        tempfile.TemporaryDirectory() as cache,
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool,
    ):
        found = pool.submit(predict, bundle, path, most, Path(cache)).result()
    path.unlink()
    return found


def main(
    tiles: Annotated[str, typer.Option(help="Ascending.")] = "1000,5000,20000,80000",
    huge: Annotated[int, typer.Option(help="Side of the huge slide, in px.")] = 100_000,
    encoder: Annotated[str, typer.Option()] = "mobilenetv3_small_100",
    out: Annotated[Path | None, typer.Option("-o")] = None,
) -> None:
    """Measure, print and judge."""
    counts = [int(count) for count in tiles.split(",")]
    sides = [PX * (math.isqrt(count + SAMPLE) + 1) for count in counts]
    with tempfile.TemporaryDirectory() as folder:
        bundle = trained(Path(folder), encoder)
        runs = [*zip(sides, counts, strict=True), (huge, counts[-2]), (sides[0], counts[0])]
        found = [in_own_process(bundle, Path(folder), side, count) for side, count in runs]
    first, last, largest, vast = found[0], found[-1], found[len(counts) - 1], found[-2]
    per_tile = largest["ms_per_tile"] / ((first["ms_per_tile"] + last["ms_per_tile"]) / 2)
    grown = max(largest["peak_mb"], vast["peak_mb"]) - first["peak_mb"]
    table = Table("slide, px", "tiles", "encoded", "seconds", "ms per tile", "peak, MB")
    for run in found:
        table.add_row(
            f"{run['side']:,}", f"{run['tiles']:,}", f"{run['encoded']:,}", f"{run['seconds']:.1f}",
            f"{run['ms_per_tile']:.2f}", f"{run['peak_mb']:.0f}",
        )  # fmt: skip
    console = Console()
    console.print(table)
    console.print(f"a tile of the largest takes {per_tile:.2f} x that of the smallest (at most {MOST_TIME})")
    console.print(f"the peak grows by {grown:.0f} MB (at most {MOST_MEMORY_MB:.0f})")
    if out is not None:
        out.write_text(json.dumps({"runs": found, "per_tile": per_tile, "grown_mb": grown}, indent=2))
    holds = per_tile <= MOST_TIME and grown <= MOST_MEMORY_MB and all(run["finite"] for run in found)
    raise typer.Exit(0 if holds else 1)


if __name__ == "__main__":
    typer.run(main)
