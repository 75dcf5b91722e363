"""``chrep demo``: train, predict and draw figures once, on the SYNTHETIC sample data."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Annotated

import typer

from chrep_model.cli import console, doctor, options
from chrep_model.processes import start_python
from chrep_model.progress import Progress
from chrep_model.samples import SLIDE, sample_folder

NOTE = "SYNTHETIC: trained on sections drawn by a program. No patient and no measurement is behind it."
ALL_GENES = 1000
FIGURE_GENES = ("ERBB2", "COL1A1", "CD3E")

EXAMPLE = options.example("chrep demo -o demo --no-gui")


def demo(
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="DIR", help="Where everything is written.")
    ] = Path("chrep-demo"),
    gui: Annotated[bool, typer.Option("--gui/--no-gui", help="Open napari where there is a display.")] = True,
    device: options.Device = "auto",
    debug: options.Debug = False,
) -> None:
    """Try everything once, on the SYNTHETIC sample data.

    Trains on the sample sections, predicts the sample slide, draws figures, and opens napari. Takes a few
    minutes; a second run finds the embeddings in the cache.
    """
    from chrep_model import files
    from chrep_model.export import writing as export

    files.make_writable(out)
    started = time.perf_counter()
    sample = sample_folder()
    bundle, slide = out / "SYNTHETIC_demo.chrep", sample / SLIDE
    prediction = export.output_path(out, "SYNTHETIC_slide", "h5ad")
    from chrep_model.bundle import check_place

    check_place(bundle)
    export.check_target(prediction)
    _train(sample, bundle, device)
    figures = _predict(slide, bundle, prediction, device)
    seconds = time.perf_counter() - started
    console.say("SYNTHETIC data: drawn by a program; no patient and no measurement is behind them.")
    console.table(
        [
            ("cohort", str(sample)),
            ("slide", str(slide)),
            ("bundle", f"{bundle} ({console.size_of(bundle)})"),
            ("prediction", str(prediction)),
            *(("figure", str(figure)) for figure in figures),
        ]
    )
    console.say(f"done in {seconds:.0f} s")
    if gui:
        _open_viewer(slide, bundle, out)


def _train(sample: Path, bundle: Path, device: str) -> None:
    from chrep_model import pipeline
    from chrep_model.cohorts.cohort import open_cohort

    settings = pipeline.TrainSettings(genes=ALL_GENES, note=NOTE)
    with console.progress() as progress:
        quiet = Progress(
            progress.message, progress.advance
        )  # without warnings, which name options that `demo` does not have
        pipeline.train(open_cohort(sample), settings, bundle, device=device, progress=quiet)


def _predict(slide_path: Path, bundle_path: Path, target: Path, device: str) -> list[Path]:
    """Predict a slide, write the h5ad and a figure for each chosen gene, and return the figures' paths."""
    from chrep_model.bundle import load_bundle
    from chrep_model.export.figure import write_figure
    from chrep_model.export.writing import write_prediction
    from chrep_model.prediction.predictor import Predictor
    from chrep_model.slides.slide import open_slide

    bundle = load_bundle(bundle_path)
    figures = []
    with open_slide(slide_path) as slide, console.progress() as progress:
        prediction = Predictor(bundle, device=device).predict(slide, progress=progress)
        progress.message("writing the prediction and the figures")
        write_prediction(prediction, target)
        for gene in [gene for gene in FIGURE_GENES if gene in bundle.genes] or bundle.genes[:3]:
            figure = target.parent / f"{slide.name}_{gene}.png"
            write_figure(prediction, gene, figure)
            figures.append(figure)
    return figures


def _open_viewer(slide: Path, bundle: Path, out: Path) -> None:
    """Start napari with the result, in a separate process that continues after this one."""
    if not doctor.has_display() or not doctor.has_viewer():
        missing = "a display" if not doctor.has_display() else "napari with Qt: install napari-chrep[gui]"
        console.say(f"To look at it in napari this machine needs {missing}.")
        return
    arguments = (slide, "--bundle", bundle, "--gene", FIGURE_GENES[0])
    log = out / "napari.log"
    with log.open("wb") as stream:
        start_python(
            "napari_chrep",
            *arguments,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    console.say(f"napari opens in a moment; what it says goes to {log}")
