"""``chrep predict``: slides in turn, with the model loaded once."""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chrep_model import __version__
from chrep_model.cli import console, options
from chrep_model.errors import Cancelled, ChrepError, PredictionError, SettingsError

if TYPE_CHECKING:
    from chrep_model.bundle import Bundle
    from chrep_model.geometry import Rect
    from chrep_model.inference.predictor import Predictor
    from chrep_model.inference.records import Record
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
Again = Annotated[bool, typer.Option("--again", help="Also predict slides that are predicted already.")]


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
    again: Again = False,
    device: options.Device = "auto",
    batch_size: options.BatchSize = None,
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
    from chrep_model.bundle import load_bundle

    loaded = load_bundle(bundle)
    wanted = options.names(genes) or loaded.genes
    with options.naming(bundle):
        loaded.panel.indices(wanted)
    targets = _targets(slides, out, format, len(wanted))
    mine = list(targets)[part[0] - 1 :: part[1]]
    job = _Job(loaded, wanted, rect, mpp, stride, format, keeps_records=len(slides) > 1)
    there = {} if again else {slide: found for slide in mine if (found := _found(job, slide, targets[slide]))}
    todo = [slide for slide in mine if slide not in there]
    made = {}
    if todo:
        from chrep_model.inference.predictor import Predictor

        predictor = Predictor(loaded, device=device, batch_size=batch_size or 32)
        debug = options.wants_debug(ctx)
        made = {slide: _attempt(job, predictor, slide, targets[slide], debug) for slide in todo}
    results = [
        _result(there[s], job, already_there=True) if s in there else _result(made[s], job) for s in mine
    ]
    _summary(results, as_json)
    if any("error" in result for result in results):
        raise typer.Exit(1)


@dataclass(frozen=True)
class _Job:
    """What is done to every slide, and whether a record of it is kept."""

    bundle: Bundle
    genes: tuple[str, ...]
    rect: Rect | None
    mpp: float | None
    stride: float
    format: str
    keeps_records: bool

    def request(self, slide: Slide) -> str:
        """Return a digest of all that the prediction of a slide depends on."""
        from chrep_model.inference.records import digest

        return digest(
            slide=slide.fingerprint, mpp=slide.mpp and slide.mpp.value, bundle=self.bundle.hash,
            genes=self.genes, region=self.rect, stride=self.stride, format=self.format, version=__version__,
        )  # fmt: skip


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


def _found(job: _Job, path: Path, target: Path) -> Record | None:
    """Return the record of the very prediction that is asked for, where it is there."""
    from chrep_model.inference import records
    from chrep_model.slides.slide import open_slide

    record = records.read(target) if job.keeps_records else None
    if record is None or record.state == "failed":
        return None
    try:
        with open_slide(path, mpp=job.mpp) as slide:
            return record if record.serves(job.request(slide)) else None
    except ChrepError:  # told of when it is predicted
        return None


def _attempt(job: _Job, predictor: Predictor, path: Path, target: Path, debug: bool) -> Record:
    """Predict a slide, or say why that cannot be."""
    from chrep_model.inference import records
    from chrep_model.slides.slide import open_slide

    former = records.read(target) if job.keeps_records else None
    request = ""
    try:
        with open_slide(path, mpp=job.mpp) as slide:
            request = job.request(slide)
            outcome = _predict(job, predictor, slide, target)
    except Cancelled:
        raise
    except Exception as error:
        if debug:
            traceback.print_exc()
        console.complain(error)
        outcome = {"state": "failed", "error": console.one_line(error)}
    attempts = former.attempts + 1 if former is not None and former.request == request else 1
    record = records.Record(slide=str(path), file=str(target), request=request, attempts=attempts, **outcome)
    if job.keeps_records:
        try:
            records.write(target, record)
        except ChrepError as error:  # costs no more than predicting the slide again
            console.complain(error)
    return record


def _predict(job: _Job, predictor: Predictor, slide: Slide, target: Path) -> dict[str, Any]:
    from chrep_model.inference.export import write_prediction

    started = time.perf_counter()
    with console.progress() as (tell, report):
        _check_region(slide, job.rect)
        prediction = predictor.predict(slide, job.rect, stride=job.stride, progress=tell)
        report(f"writing {target.name}")
        write_prediction(prediction, target, job.format, job.genes)
    if prediction.is_unlike:
        console.warn(
            f"{slide.path}: the slide is unlike the training slides ({prediction.unlike_share():.0%} of its "
            "tiles lie farther from the training spots than 5% of tiles should). Do not rely on its values."
        )
    return {
        "state": "done", "tiles": len(prediction), "seconds": time.perf_counter() - started,
        "unlike_share": prediction.unlike_share(),
    }  # fmt: skip


def _result(record: Record, job: _Job, *, already_there: bool = False) -> dict[str, Any]:
    if record.state == "failed":
        return {"slide": record.slide, "error": record.error, "attempts": record.attempts}
    return {
        "slide": record.slide, "tiles": record.tiles, "genes": len(job.genes), "seconds": record.seconds,
        "unlike_share": record.unlike_share, "file": record.file, "attempts": record.attempts,
        "already_there": already_there,
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
