"""Compare the speed of a LocalCluster of processes with that of one process, on the same slides and model.

    python benchmarks/cluster.py [--slides 8] [--side 6000] [--processes 2] [--rounds 3] [-o cluster.json]

Slides are JPEG pyramids made of the sample tissue, every other one of half the side; the model is the sample
bundle. Both variants write h5ad files, start from an empty store of embeddings, and run with one thread per
process, as the workers of distributed do. They run alternately. The first round, in which models are loaded,
is printed separately; of the others the medians are printed. The written files are compared.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import anndata
import numpy as np
import typer
from distributed import Client, LocalCluster
from pyramids import SAMPLE, sample_pyramid
from rich.console import Console
from rich.table import Table

from chrep_model.batch.cluster import loads, predict_slides
from chrep_model.batch.slides import BatchSettings, SlideOutcome, attempt, load
from chrep_model.bundle import load_bundle
from chrep_model.cli.console import one_line

BUNDLE = SAMPLE.parent / "SYNTHETIC_demo.chrep"


def make_slides(folder: Path, count: int, side: int) -> list[Path]:
    """Write slides of slightly different sizes, so that their contents differ."""
    return [sample_pyramid(folder, (side if i % 2 == 0 else side // 2) + i) for i in range(count)]


class Bench:
    """Runs of both variants on the same slides, each into an empty folder with an empty store."""

    def __init__(self, slides: list[Path], folder: Path) -> None:
        self.slides, self.folder, self.bundle = slides, folder, load_bundle(BUNDLE)
        self.predictor: Any = None

    def begin(self, name: str) -> tuple[BatchSettings, dict[Path, Path]]:
        """Create an empty folder; return the settings of a run and the output file of each slide."""
        out = self.folder / name
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        job = BatchSettings(
            bundle=BUNDLE, bundle_hash=self.bundle.hash, cache=out / "cache", genes=(), rect=None,
            mpp=None, stride=1.0, format="h5ad", device="cpu", batch_size=32, precision="fp32",
            keeps_records=True,
        )  # fmt: skip
        return job, {slide: out / f"{slide.stem}.h5ad" for slide in self.slides}

    def single(self) -> list[SlideOutcome]:
        """Predict the slides one after the other; the model is loaded in the first run."""
        job, targets = self.begin("single")
        if self.predictor is None:
            self.predictor = load(job, self.bundle)
        self.predictor.cache_dir = job.cache
        return [attempt(job, self.predictor, *pair, one_line) for pair in targets.items()]

    def cluster(self, address: str) -> list[SlideOutcome]:
        """Predict the slides on a running cluster."""
        job, targets = self.begin("cluster")
        return list(dict(predict_slides(address, job, targets, one_line)).values())

    def largest_difference(self) -> float:
        """Return the largest difference between the files of the two variants."""
        apart = []
        for slide in self.slides:
            one, other = (
                anndata.read_h5ad(self.folder / side / f"{slide.stem}.h5ad").layers
                for side in ("single", "cluster")
            )
            apart += [float(np.abs(one[name] - other[name]).max()) for name in one]
        return max(apart)


def timed(work: Callable[[], list[SlideOutcome]]) -> tuple[float, int]:
    """Return the seconds of a run, and the number of tiles that it predicted."""
    started = time.perf_counter()
    outcomes = work()
    return time.perf_counter() - started, sum(outcome.record.tiles or 0 for outcome in outcomes)


def measure(bench: Bench, client: Client, rounds: int) -> dict[str, Any]:
    """Run both variants alternately, and return their speeds."""
    address = client.scheduler_info()["address"]
    work = {"single": bench.single, "cluster": lambda: bench.cluster(address)}
    seconds: dict[str, list[float]] = {key: [] for key in work}
    tiles = 0
    for _ in range(rounds + 1):
        for key, run in work.items():
            passed, tiles = timed(run)
            seconds[key].append(passed)
    warm = {key: float(np.median(each[1:])) for key, each in seconds.items()}
    return {
        "slides": len(bench.slides), "tiles": tiles, "seconds": seconds,
        "tiles_per_s": {key: tiles / value for key, value in warm.items()},
        "ratio": warm["single"] / warm["cluster"],
        "loads": list(client.run(loads).values()), "largest_difference": bench.largest_difference(),
    }  # fmt: skip


def main(
    slides: Annotated[int, typer.Option()] = 8,
    side: Annotated[int, typer.Option()] = 6000,
    processes: Annotated[int, typer.Option()] = 2,
    rounds: Annotated[int, typer.Option()] = 3,
    out: Annotated[Path | None, typer.Option("-o")] = None,
) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(make_slides(Path(name), slides, side), Path(name))
        with (
            LocalCluster(n_workers=processes, threads_per_worker=1, dashboard_address=None) as started,
            Client(started, set_as_default=False) as client,
        ):
            found = measure(bench, client, rounds) | {"processes": processes}
    rate = found["tiles_per_s"]
    table = Table(
        "processes", "slides", "tiles", "one process, tiles/s", "cluster", "ratio", "loads", "apart"
    )
    table.add_row(
        str(processes), str(slides), f"{found['tiles']:,}", f"{rate['single']:.0f}", f"{rate['cluster']:.0f}",
        f"{found['ratio']:.2f}", " ".join(map(str, found["loads"])), f"{found['largest_difference']:.1e}",
    )  # fmt: skip
    Console().print(table)
    first = ", ".join(f"{key} {each[0]:.1f} s" for key, each in found["seconds"].items())
    Console().print(f"first round, with loading the model: {first}")
    if out is not None:
        out.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    typer.run(main)
