"""Measure the growth of memory over 500 pans of a followed view and 200 changes of the gene.

    python benchmarks/soak.py [--bundle BUNDLE] [--pans 500] [--genes 200] [-o soak.json]

The view moves along a closed path on a JPEG pyramid of the sample tissue, and is predicted wherever it stops.
After one lap all places are predicted and their pixels are in napari's cache, which is kept small here; from
then on memory should not grow. The resident memory during the run is printed, and its growth after the laps
for warming up. Needs a display, as under ``xvfb-run -a -s "-screen 0 1600x1000x24"``.
"""

from __future__ import annotations

import gc
import json
import math
import os
import tempfile
from pathlib import Path
from typing import Annotated

import napari
import psutil
import typer
from napari.utils import resize_dask_cache
from pyramids import sample_pyramid
from rich.console import Console
from rich.table import Table
from windows import not_none, wait_until_idle

from napari_chrep.background.prediction_engine import PredictionEngine
from napari_chrep.state.session import Session
from napari_chrep.state.viewers import kept_for

REPOSITORY = Path(__file__).resolve().parent.parent
SIDE, STOPS, WARM = 20_000, 10, 2
CACHE_BYTES = 100_000_000
GROWTH_MB = 50.0


def resident_mb() -> float:
    """Return the memory of this process in MB, after garbage collection."""
    gc.collect()
    return float(psutil.Process().memory_info().rss) / 1e6


def main(
    bundle: Annotated[Path, typer.Option()] = REPOSITORY / "sample_data" / "SYNTHETIC_demo.chrep",
    pans: Annotated[int, typer.Option()] = 500,
    genes: Annotated[int, typer.Option()] = 200,
    out: Annotated[Path | None, typer.Option("-o")] = None,
) -> None:
    """Pan, switch genes, and weigh."""
    os.environ["CHREP_CACHE"] = tempfile.mkdtemp()
    viewer = napari.Viewer(show=True)
    resize_dask_cache(CACHE_BYTES)  # after the viewer, which sets it to a quarter of the memory
    viewer.window.resize(1440, 900)
    _, explorer = viewer.window.add_plugin_dock_widget("napari-chrep", "Slide explorer")
    viewer.window.add_plugin_dock_widget("napari-chrep", "Genes")
    session, engine = kept_for(viewer, Session), kept_for(viewer, PredictionEngine)

    engine.load_bundle(bundle)
    wait_until_idle(engine)
    with tempfile.TemporaryDirectory() as folder:
        slide = sample_pyramid(Path(folder), SIDE)
        (layer,) = viewer.open(slide, plugin="napari-chrep")
        wait_until_idle(engine)
        middle = float(layer.extent.world.mean(axis=0)[-1])
        viewer.scene.camera.zoom = 0.5
        explorer.run.follow.setChecked(True)
        seen: list[tuple[str, float]] = []
        for pan in range(pans):
            angle = 2 * math.pi * (pan % STOPS) / STOPS
            viewer.scene.camera.center = (
                middle + 2000 * math.sin(angle), middle + 2000 * math.cos(angle)
            )  # fmt: skip
            # A view is only followed once it stands still.
            wait_until_idle(engine, 300 if pan < WARM * STOPS else 30)
            if (pan + 1) % max(1, pans // 10) == 0:
                seen.append((f"{pan + 1} pans", resident_mb()))
        for number in range(genes):
            known = not_none(session.bundle).genes
            session.show_gene(known[number % len(known)])
            wait_until_idle(engine, 20)
            if (number + 1) % max(1, genes // 4) == 0:
                seen.append((f"{number + 1} genes", resident_mb()))
        tiles = len(not_none(session.prediction))
        viewer.close()
    grown = seen[-1][1] - seen[0][1]
    table = Table("after", "resident MB")
    for name, megabytes in seen:
        table.add_row(name, f"{megabytes:.0f}")
    Console().print(table)
    print(f"{tiles} tiles predicted; grown by {grown:.0f} MB since {seen[0][0]} (bar {GROWTH_MB:.0f} MB)")
    if out is not None:
        out.write_text(json.dumps({"resident_mb": dict(seen), "tiles": tiles, "grown_mb": grown}, indent=2))
    raise typer.Exit(0 if grown <= GROWTH_MB else 1)


if __name__ == "__main__":
    typer.run(main)
