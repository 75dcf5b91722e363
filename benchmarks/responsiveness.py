"""Measure the time until the first map, and until the map of another gene, in a real window.

    python benchmarks/responsiveness.py [--bundle BUNDLE] [--tiles 50000] [-o responsiveness.json]

The slide is a JPEG pyramid of the sample tissue. Measured in one run:

- *first map*: time from the request until a heat map has a value, with the model in memory; for a slide that
  is prepared, as the explorer does before the first request, and for a new one. The unit is the time of five
  batches of the encoder alone, on tiles in memory, with the same number of threads. Medians over several
  places of the slide.
- *gene switch*: time from the choice of another gene until both of its maps are updated, for all predicted
  tiles, as a share of the time in which those tiles were predicted.

Needs a display, as under ``xvfb-run -a -s "-screen 0 1600x1000x24"``.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import napari
import numpy as np
import torch
import typer
from pyramids import sample_pyramid
from rich.console import Console
from rich.table import Table
from windows import not_none, process_events, wait_until, wait_until_idle

from chrep_model.geometry import Rect
from napari_chrep.background.prediction_engine import PredictionEngine
from napari_chrep.canvas.heatmaps import Heatmaps
from napari_chrep.state.session import Session
from napari_chrep.state.viewers import kept_for

REPOSITORY = Path(__file__).resolve().parent.parent
MPP, BATCHES, PLACES = 0.5, 5, 5


def holds_values(maps: Heatmaps) -> bool:
    """Return whether a heat map has a value."""
    layer = maps.layer("calibrated") or maps.layer("raw")
    return layer is not None and bool(np.isfinite(layer.data).any())


def shows(maps: Heatmaps, gene: str) -> bool:
    """Return whether all maps show a gene."""
    return all(not_none(maps.layer(kind)).name.startswith(gene) for kind in maps.variants)


def encoder_alone(predictor: Any, context: Any) -> float:
    """Return the median seconds of a batch of the encoder on tiles in memory, with the viewer's threads."""
    embeddings = context.embeddings
    tiles = embeddings.reader.read(context.grid.centres(context.tiles()[: predictor.batch_size]))
    state, seconds = embeddings._prepared[0], []
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, (os.cpu_count() or 2) - 1))
    for _ in range(10):
        started = time.perf_counter()
        predictor.encoder.encode(tiles, state)
        seconds.append(time.perf_counter() - started)
    torch.set_num_threads(threads)
    return float(np.median(seconds))


def first_maps(viewer: Any, bundle: Path, slide: Path, *, prepared: bool) -> list[float]:
    """Return the times from a request to the first value, at several places, each on a newly opened slide."""
    engine, maps = kept_for(viewer, PredictionEngine), kept_for(viewer, Heatmaps)
    session = kept_for(viewer, Session)
    seconds: list[float] = []
    for place in range(PLACES):
        os.environ["CHREP_CACHE"] = tempfile.mkdtemp()
        engine.load_bundle(bundle)
        wait_until_idle(engine)
        (layer,) = viewer.open(slide, plugin="napari-chrep")
        session.set_slide_layer(layer)
        if prepared:
            engine.prepare_slide()
        else:
            engine.cancel()
        wait_until_idle(engine)
        side = 3000 / MPP  # a view of 3 mm
        rows, cols = not_none(session.slide).shape
        engine.predict(Rect((place + 0.5) * (cols - side) / PLACES, (rows - side) / 2, side, side))
        seconds.append(wait_until(lambda: holds_values(maps)))
        engine.cancel()
        wait_until_idle(engine)
        batch = encoder_alone(session.predictor, session.context)
        print(f"{'prepared' if prepared else 'new'} slide: {seconds[-1]:.2f} s, batch {batch:.3f} s")
        viewer.layers.clear()
        process_events(200)
        seconds[-1] /= BATCHES * batch
    return seconds


def switches(viewer: Any, bundle: Path, slide: Path) -> dict[str, float]:
    """Predict all tissue, then measure the time to show other genes."""
    engine, maps = kept_for(viewer, PredictionEngine), kept_for(viewer, Heatmaps)
    session = kept_for(viewer, Session)
    os.environ["CHREP_CACHE"] = tempfile.mkdtemp()
    engine.load_bundle(bundle)
    wait_until_idle(engine)
    (layer,) = viewer.open(slide, plugin="napari-chrep")
    session.set_slide_layer(layer)
    engine.prepare_slide()
    wait_until_idle(engine)
    started = time.perf_counter()
    engine.predict(None)
    wait_until_idle(engine)
    run = time.perf_counter() - started
    seconds = []
    for gene in not_none(session.bundle).genes[1 : 1 + 2 * PLACES]:
        started = time.perf_counter()
        session.show_gene(gene)
        wait_until(partial(shows, maps, gene))
        seconds.append(time.perf_counter() - started)
    return {"tiles": len(not_none(session.prediction)), "run_s": run, "switch_s": float(np.median(seconds)),
            "slowest_switch_s": max(seconds), "share": float(np.median(seconds)) / run}  # fmt: skip


def main(
    bundle: Annotated[Path, typer.Option()] = REPOSITORY / "sample_data" / "SYNTHETIC_demo.chrep",
    tiles: Annotated[int, typer.Option(help="To be predicted before genes are switched.")] = 50_000,
    out: Annotated[Path | None, typer.Option("-o")] = None,
) -> None:
    """Measure and print."""
    from chrep_model.bundle import load_bundle

    viewer = napari.Viewer(show=True)
    viewer.window.resize(1440, 900)
    kept_for(viewer, Heatmaps)
    side = math.ceil(math.sqrt(tiles) * load_bundle(bundle).spec.um / MPP)
    with tempfile.TemporaryDirectory() as folder:
        slide = sample_pyramid(Path(folder), side, MPP)
        ready = first_maps(viewer, bundle, slide, prepared=True)
        new = first_maps(viewer, bundle, slide, prepared=False)
        found = switches(viewer, bundle, slide)
    viewer.close()
    table = Table("figure", "is", "bar")
    table.add_row("first map, slide prepared / five batches", f"{np.median(ready):.2f}", "< 1")
    table.add_row("first map, slide new / five batches", f"{np.median(new):.2f}", "")
    table.add_row(f"gene switch / run of {found['tiles']:,} tiles", f"{found['share']:.2%}", "< 2 %")
    table.add_row(
        "gene switch, median and slowest", f"{found['switch_s']:.2f} s, {found['slowest_switch_s']:.2f} s"
    )
    Console().print(table)
    if out is not None:
        out.write_text(json.dumps({"first_map": ready, "first_map_new_slide": new, **found}, indent=2))
    raise typer.Exit(0 if np.median(ready) < 1 and found["share"] < 0.02 else 1)


if __name__ == "__main__":
    typer.run(main)
