"""``chrep predict``: slides in turn, with the model loaded once."""

from __future__ import annotations

import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chrep_model.cli import console, options
from chrep_model.errors import Cancelled, PredictionError, SettingsError

if TYPE_CHECKING:
    from chrep_model.geometry import Rect
    from chrep_model.inference.predictor import Predictor
    from chrep_model.slides.slide import Slide


EXAMPLE = options.example(
    "chrep predict slide.svs -b breast.chrep -o predictions",
    "chrep predict *.svs -b breast.chrep -o out --genes ERBB2,CD3E --format geojson",
    "chrep predict scan.jpg --mpp 0.5 -b breast.chrep -o out --region 2000,1000,6000,4000",
)


Region = Annotated[
    str | None, typer.Option(metavar="X,Y,W,H", help="Only this rectangle, in pixels of the full resolution.")
]
SlideMpp = Annotated[
    float | None,
    typer.Option(help="µm per pixel at full resolution, where the file does not say it or says it wrongly."),
]
Stride = Annotated[
    float, typer.Option(help="Distance of tiles as a share of a tile: 0.5 half overlapping, 2 a coarse look.")
]
OnlyGenes = Annotated[str | None, typer.Option(metavar="A,B", help="Write these genes only.  [default: all]")]
FileFormat = Annotated[
    str,
    typer.Option(
        "--format",
        help="h5ad, zarr, spatialdata, csv, parquet; with --genes also ome-zarr or geojson (QuPath).",
    ),
]
Shard = Annotated[
    str | None, typer.Option(metavar="I/N", help="Every Nth slide, from the Ith on; I is 1 to N.")
]


def predict(
    ctx: typer.Context,
    slides: Annotated[list[Path], typer.Argument(metavar="SLIDE...", help="One slide or several.")],
    bundle: Annotated[Path, typer.Option("-b", "--bundle", metavar="BUNDLE", help="A trained model.")],
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="DIR", help="Folder; each slide becomes DIR/NAME.h5ad.")
    ],
    region: Region = None,
    mpp: SlideMpp = None,
    stride: Stride = 1.0,
    genes: OnlyGenes = None,
    format: FileFormat = "h5ad",
    shard: Shard = None,
    device: options.Device = "auto",
    batch_size: options.BatchSize = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Predict gene expression on slides.

    A slide that fails does not stop the others. A prediction that is there already is replaced once the new
    one is complete.
    """
    rect = None if region is None else options.rect(region)
    part = (1, 1) if shard is None else options.shard(shard)
    if stride <= 0:
        raise SettingsError(f"a stride of {stride} tiles leads nowhere", remedy="It has to be above zero.")
    from chrep_model.bundle import load_bundle

    loaded = load_bundle(bundle)
    wanted = options.names(genes) or loaded.genes
    with options.naming(bundle):
        loaded.panel.indices(wanted)
    targets = _targets(slides, out, format, len(wanted))
    mine = list(targets.items())[part[0] - 1 :: part[1]]
    from chrep_model.inference.predictor import Predictor

    predictor = Predictor(loaded, device=device, batch_size=batch_size or 32)
    results = []
    for slide, target in mine:
        try:
            results.append(_one(predictor, slide, target, wanted, rect, mpp, stride, format))
        except Cancelled:
            raise
        except Exception as error:
            if options.wants_debug(ctx):
                traceback.print_exc()
            console.complain(error)
            results.append({"slide": slide, "error": console.one_line(error)})
    _summary(results, as_json)
    if any("error" in result for result in results):
        raise typer.Exit(1)


def _targets(slides: list[Path], out: Path, format: str, n_genes: int) -> dict[Path, Path]:
    """Where each slide's prediction goes; whatever stands against writing it is said now."""
    from chrep_model.cohorts.cohort import slide_stem
    from chrep_model.inference import export, files
    from chrep_model.slides.slide import slide_name

    export.check_format(format, n_genes)
    targets: dict[Path, Path] = {}
    owner: dict[Path, Path] = {}
    for slide in slides:
        name = slide_name(slide) if slide.is_dir() else slide_stem(slide.name) or slide.stem
        target = export.output_path(out, name, format)
        if owner.setdefault(target, slide) != slide:
            raise SettingsError(
                f"{owner[target]} and {slide} would both be written to {target}",
                remedy="Predict them into different folders.",
            )
        export.check_target(target)
        targets[slide] = target
    files.make_writable(out)
    return targets


def _one(
    predictor: Predictor,
    path: Path,
    target: Path,
    genes: tuple[str, ...],
    rect: Rect | None,
    mpp: float | None,
    stride: float,
    format: str,
) -> dict[str, Any]:
    from chrep_model.inference.export import write_prediction
    from chrep_model.slides.slide import open_slide

    started = time.perf_counter()
    with open_slide(path, mpp=mpp) as slide, console.progress() as (tell, report):
        _check_region(slide, rect)
        prediction = predictor.predict(slide, rect, stride=stride, progress=tell)
        report(f"writing {target.name}")
        write_prediction(prediction, target, format, genes)
    if prediction.is_unlike:
        sys.stderr.write(
            f"chrep: {path}: the slide is unlike the training slides ({prediction.unlike_share():.0%} of its "
            "tiles lie farther from the training spots than 5% of tiles should). Do not rely on its values.\n"
        )
    seconds = time.perf_counter() - started
    return {
        "slide": path, "tiles": len(prediction), "genes": len(genes), "seconds": seconds,
        "unlike_share": prediction.unlike_share(), "file": target,
    }  # fmt: skip


def _check_region(slide: Slide, rect: Rect | None) -> None:
    from chrep_model.geometry import Rect

    rows, cols = slide.shape
    if rect is not None and rect.intersection(Rect(0, 0, cols, rows)) is None:
        raise PredictionError(
            f"the region lies outside of the slide, which has {cols} x {rows} px",
            path=slide.path,
            remedy="Give X,Y,WIDTH,HEIGHT in pixels of the full resolution.",
        )


def _summary(results: list[dict[str, Any]], as_json: bool) -> None:
    done = [result for result in results if "error" not in result]
    if as_json:
        console.say_json(results)
    elif len(results) == 1:
        for result in done:
            counts = f"{result['tiles']} tiles, {result['genes']} genes"
            console.say(f"{result['file']}: {counts}, {result['seconds']:.0f} s")
    elif results:
        header = ("slide", "tiles", "seconds", "file")
        rows = [
            (str(r["slide"]), str(r.get("tiles", "")), f"{r['seconds']:.0f}" if "seconds" in r else "",
             str(r.get("file", "failed")))
            for r in results
        ]  # fmt: skip
        console.table(rows, header)
        console.say(f"{len(done)} of {len(results)} slides predicted")
    else:
        sys.stderr.write("chrep: no slide falls into this shard\n")
