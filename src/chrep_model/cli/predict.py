"""``chrep predict``: predict slides one after the other, on several GPUs or on a cluster."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chrep_model.cache import default_cache
from chrep_model.cli import console, options
from chrep_model.errors import SettingsError

if TYPE_CHECKING:
    from chrep_model.batch.slides import BatchSettings, SlideOutcome
    from chrep_model.bundle import Bundle


EXAMPLE = options.example(
    "chrep predict slide.svs -b breast.chrep -o predictions",
    "chrep predict *.svs -b breast.chrep -o out --genes ERBB2,CD3E --format geojson",
    "chrep predict scan.jpg --mpp 0.5 -b breast.chrep -o out --region 2000,1000,6000,4000",
    "chrep predict *.svs -b breast.chrep -o out --scheduler tcp://head:8786",
)


_NO_FILE_NAME = re.compile(r'[\\/:*?"<>|\x00-\x1f]')

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
Scheduler = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS", help="Predict on a running dask.distributed cluster; see docs/cluster.md."
    ),
]
Again = Annotated[bool, typer.Option("--again", help="Also predict slides that are predicted already.")]


def predict(
    ctx: typer.Context,
    slides: Annotated[list[Path], typer.Argument(metavar="SLIDE...", help="One slide or several.")],
    bundle: Annotated[Path, typer.Option("-b", "--bundle", metavar="BUNDLE", help="A trained model.")],
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            metavar="DIR",
            help="Folder; each slide becomes DIR/NAME.h5ad, with --scene DIR/NAME SCENE.h5ad.",
        ),
    ],
    region: Region = None,
    mpp: SlideMpp = None,
    scene: options.Scene = None,
    stride: Stride = 1.0,
    genes: options.OnlyGenes = None,
    format: FileFormat = "h5ad",
    shard: Shard = None,
    scheduler: Scheduler = None,
    again: Again = False,
    device: options.Device = "auto",
    batch_size: options.TunedBatchSize = None,
    precision: options.InPrecision = "fp32",
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Predict gene expression on slides.

    Of several slides, one that fails does not stop the others, and the same command given again predicts
    those only that are not there yet. A prediction that is there already is replaced once the new one is
    complete.
    """
    rect = None if region is None else options.rect(region)
    part = (1, 1) if shard is None else options.shard(shard)
    if stride <= 0:
        raise SettingsError(f"a stride of {stride} tiles leads nowhere", remedy="It has to be above zero.")
    from chrep_model.batch.slides import BatchSettings
    from chrep_model.bundle import load_bundle

    loaded = load_bundle(bundle)
    chosen = options.names(genes)
    with options.naming(bundle):
        loaded.panel.indices(chosen)
    targets = _targets(slides, scene, out, format, len(chosen or loaded.genes))
    mine = dict(list(targets.items())[part[0] - 1 :: part[1]])
    job = BatchSettings(
        bundle=bundle.absolute(), bundle_hash=loaded.hash, cache=default_cache().absolute(), genes=chosen,
        rect=rect, mpp=mpp, scene=scene, stride=stride, format=format, device=device, batch_size=batch_size,
        precision=options.precision(precision), keeps_records=len(slides) > 1,
    )  # fmt: skip
    if scheduler is None:
        ended = _predict_here(job, loaded, mine, again, options.wants_debug(ctx))
    else:
        ended = _predict_on_cluster(scheduler, job, mine, again)
    outcomes = dict(ended)
    results = [_result(outcomes[slide], len(chosen or loaded.genes)) for slide in mine]
    _print_summary(results, as_json)
    if any("error" in result for result in results):
        raise typer.Exit(1)


def _targets(slides: list[Path], scene: str | None, out: Path, format: str, n_genes: int) -> dict[Path, Path]:
    """Return each slide's output path, after checking that it can be written."""
    from chrep_model import files
    from chrep_model.cohorts.slide_names import slide_stem
    from chrep_model.export import writing as export
    from chrep_model.slides.slide import slide_name

    export.check_format(format, n_genes)
    targets: dict[Path, Path] = {}
    owner: dict[Path, Path] = {}
    for slide in slides:
        name = slide_name(slide) if slide.is_dir() else slide_stem(slide.name) or slide.stem
        if scene is not None:  # without it the scenes of a slide would replace each other
            name = f"{name} {_NO_FILE_NAME.sub('_', scene)}"
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


def _predict_here(
    job: BatchSettings, bundle: Bundle, targets: dict[Path, Path], again: bool, debug: bool
) -> Iterator[tuple[Path, SlideOutcome]]:
    """Predict slides one after the other in this process, or on several GPUs with a process each."""
    from chrep_model.batch import slides as many
    from chrep_model.batch.cluster import one_worker_each

    def describe(error: BaseException) -> str:
        if debug:
            traceback.print_exc()
        return console.one_line(error)

    there = {} if again else {s: o for s, t in targets.items() if (o := many.found(job, bundle, s, t))}
    yield from there.items()
    todo = [slide for slide in targets if slide not in there]
    if not todo:
        return
    if len(todo) > 1 and job.device == "auto" and (places := _several_gpus()):
        with one_worker_each(places) as address:
            yield from _predict_on_cluster(address, job, {slide: targets[slide] for slide in todo}, again)
        return
    predictor = many.load(job, bundle)
    if bundle.recall < 1:
        console.warn(f"neighbours are looked for in an index, which finds {bundle.recall:.1%} of the nearest")
    for slide in todo:
        with console.progress() as progress:
            outcome = many.attempt(job, predictor, slide, targets[slide], describe, progress)
        _print_warnings(outcome)
        yield slide, outcome


def _several_gpus() -> list[str]:
    """Return the names of the GPUs if several can be used, with a process each; else an empty list."""
    from importlib.util import find_spec

    from chrep_model.device import gpus

    places = gpus()
    if len(places) > 1 and find_spec("distributed") is None:
        console.warn(f'one of {len(places)} GPUs is used; for all: pip install "napari-chrep[cluster]"')
        return []
    return places if len(places) > 1 else []


def _predict_on_cluster(
    address: str, job: BatchSettings, targets: dict[Path, Path], again: bool
) -> Iterator[tuple[Path, SlideOutcome]]:
    """Predict slides on a cluster, and yield results in the order in which they are done."""
    from chrep_model.batch.cluster import predict_slides

    with console.progress() as progress:
        progress.message(f"waiting for {address}")
        ended = predict_slides(address, job, targets, console.one_line, again=again)
        for done, (slide, outcome) in enumerate(ended, 1):
            progress.advance(done, len(targets), "slides")
            _print_warnings(outcome)
            yield slide, outcome


def _print_warnings(outcome: SlideOutcome) -> None:
    """Print the error and the warnings of a slide, if there are any."""
    from chrep_model.calibration.trust import UNLIKE_SHARE

    record = outcome.record
    if record.error:
        console.warn(record.error)
    if outcome.unkept:
        console.warn(outcome.unkept)
    share = record.unlike_share or 0.0
    if share > UNLIKE_SHARE and not outcome.already_there:
        console.warn(
            f"{record.slide}: the slide is unlike the training slides ({share:.0%} of its "
            "tiles lie farther from the training spots than 5% of tiles should). Do not rely on its values."
        )


def _result(outcome: SlideOutcome, n_genes: int) -> dict[str, Any]:
    record = outcome.record
    if record.state == "failed":
        return {"slide": record.slide, "error": record.error, "attempts": record.attempts}
    return {
        "slide": record.slide, "tiles": record.tiles, "genes": n_genes, "seconds": record.seconds,
        "unlike_share": record.unlike_share, "file": record.file, "attempts": record.attempts,
        "already_there": outcome.already_there,
    }  # fmt: skip


def _print_summary(results: list[dict[str, Any]], as_json: bool) -> None:
    done = [result for result in results if "error" not in result]
    if as_json:
        console.say_json(results)
    elif len(results) == 1:
        for result in done:
            counts = f"{result['tiles']} tiles, {result['genes']} genes"
            console.say(f"{result['file']}: {counts}, {result['seconds']:.0f} s")
    elif results:
        header = ("slide", "state", "attempts", "tiles", "seconds", "file")
        console.table([_row(result) for result in results], header)
        there = sum(result["already_there"] for result in done)
        known = f", {there} of them before" if there else ""
        console.say(f"{len(done)} of {len(results)} slides predicted{known}")
    else:
        console.warn("no slide falls into this shard")


def _row(result: dict[str, Any]) -> tuple[str, ...]:
    slide, attempts = result["slide"], str(result["attempts"])
    if "error" in result:
        return slide, "failed", attempts, "", "", ""
    state = "already there" if result["already_there"] else "predicted"
    return slide, state, attempts, str(result["tiles"]), f"{result['seconds']:.0f}", result["file"]
