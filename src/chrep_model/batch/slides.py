"""Prediction of many slides: common settings, one attempt per slide, and its record."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chrep_model import __version__
from chrep_model.batch import records
from chrep_model.batch.records import Record
from chrep_model.errors import Cancelled, ChrepError, PredictionError
from chrep_model.export.writing import write_prediction
from chrep_model.geometry import Rect
from chrep_model.prediction import indexes
from chrep_model.progress import SILENT, Progress
from chrep_model.slides.slide import Slide, open_slide

if TYPE_CHECKING:
    from chrep_model.bundle import Bundle
    from chrep_model.encoders.encoder import Precision
    from chrep_model.prediction.predictor import Predictor

Describe = Callable[[BaseException], str]
"""Function that describes an error in one line."""


@dataclass(frozen=True)
class BatchSettings:
    """Settings for predicting many slides; only paths and plain values, so that they can be sent to workers.

    Attributes
    ----------
    bundle, bundle_hash
        Path of the model, and the hash that it must have.
    cache : Path
        Cache folder of the embeddings.
    genes : tuple of str
        Genes to write, in this order; empty for all.
    rect : Rect or None
        Rectangle to predict in level-0 px; None for the whole slide.
    mpp : float or None
        µm per px, for files that do not state it.
    scene : str or None
        Picture to use from a file that holds several; the largest if not given.
    stride : float
        Distance between neighbouring tiles, as a fraction of the tile.
    format : str
        See `chrep_model.export.writing`.
    device, batch_size, precision
        See `chrep_model.prediction.predictor.Predictor`.
    keeps_records : bool
        Whether a record of each slide is written.
    """

    bundle: Path
    bundle_hash: str
    cache: Path
    genes: tuple[str, ...]
    rect: Rect | None
    mpp: float | None
    stride: float
    format: str
    device: str
    batch_size: int | None
    precision: Precision
    keeps_records: bool
    scene: str | None = None

    def genes_of(self, bundle: Bundle) -> tuple[str, ...]:
        """Return the genes to write."""
        return self.genes or bundle.genes

    def request(self, slide: Slide, bundle: Bundle) -> str:
        """Return a digest of everything that a slide's prediction depends on."""
        index = indexes.kept(bundle, self.cache)
        return records.digest(
            slide=slide.fingerprint, mpp=slide.mpp and slide.mpp.value, bundle=self.bundle_hash,
            genes=self.genes_of(bundle), region=self.rect, stride=self.stride, format=self.format,
            precision=self.precision, version=__version__,
            **({} if index is None else {"index": index.model_dump()}),
        )  # fmt: skip


@dataclass(frozen=True)
class SlideOutcome:
    """Result of predicting one slide.

    Attributes
    ----------
    record : Record
        Record of the slide.
    already_there : bool
        Whether the prediction existed already.
    unkept : str
        Why the record could not be written; empty if it was written.
    """

    record: Record
    already_there: bool = False
    unkept: str = ""


def load(job: BatchSettings, bundle: Bundle) -> Predictor:
    """Load a job's model for prediction.

    Raises
    ------
    ChrepError
        The device or the bundle's encoder is not available.
    """
    from chrep_model.prediction.predictor import Predictor

    return Predictor(
        bundle, device=job.device, batch_size=job.batch_size, cache_dir=job.cache, precision=job.precision,
        whole_slides=job.rect is None,
    )  # fmt: skip


def found(job: BatchSettings, bundle: Bundle, path: Path, target: Path) -> SlideOutcome | None:
    """Return the earlier outcome of a slide if its prediction is exactly the requested one; else None."""
    record = records.read(target) if job.keeps_records else None
    if record is None or record.state == "failed":
        return None
    try:
        with open_slide(path, mpp=job.mpp, scene=job.scene) as slide:
            request = job.request(slide, bundle)
    except ChrepError:  # reported when the slide is predicted
        return None
    if not record.serves(request, target):
        return None
    here = record.model_copy(update={"slide": str(path), "file": str(target)})
    return SlideOutcome(here, already_there=True)


def attempt(
    job: BatchSettings,
    predictor: Predictor,
    path: Path,
    target: Path,
    describe: Describe,
    progress: Progress = SILENT,
) -> SlideOutcome:
    """Predict a slide and write its prediction, or record why that failed.

    Raises
    ------
    Cancelled
        `progress.cancelled` returned True.
    """
    request = ""
    try:
        with open_slide(path, mpp=job.mpp, scene=job.scene) as slide:
            request = job.request(slide, predictor.bundle)
            facts = _predict(job, predictor, slide, target, progress)
    except Cancelled:
        raise
    except Exception as error:
        return failed(job, path, target, request, describe(error))
    return _keep(job, target, {"slide": str(path), "request": request, "state": "done", **facts})


def failed(job: BatchSettings, path: Path, target: Path, request: str, error: str) -> SlideOutcome:
    """Record that a slide could not be predicted; `request` is empty if it could not be opened."""
    return _keep(job, target, {"slide": str(path), "request": request, "state": "failed", "error": error})


def _predict(
    job: BatchSettings, predictor: Predictor, slide: Slide, target: Path, progress: Progress
) -> dict[str, Any]:
    started = time.perf_counter()
    _check_region(slide, job.rect)
    prediction = predictor.predict(slide, job.rect, stride=job.stride, progress=progress)
    progress.advance(0, 1, f"writing {target.name}")
    write_prediction(prediction, target, job.format, job.genes_of(predictor.bundle))
    return {
        "tiles": len(prediction), "seconds": time.perf_counter() - started,
        "unlike_share": prediction.unlike_share(),
    }  # fmt: skip


def _keep(job: BatchSettings, target: Path, facts: dict[str, Any]) -> SlideOutcome:
    former = records.read(target) if job.keeps_records else None
    attempts = former.attempts + 1 if former is not None and former.request == facts["request"] else 1
    record = Record(file=str(target), attempts=attempts, **facts)
    unkept = ""
    if job.keeps_records:
        try:
            records.write(target, record)
        except ChrepError as error:  # without a record, the slide is only predicted again
            unkept = str(error)
    return SlideOutcome(record, unkept=unkept)


def _check_region(slide: Slide, rect: Rect | None) -> None:
    rows, cols = slide.shape
    if rect is not None and rect.intersection(Rect(0, 0, cols, rows)) is None:
        raise PredictionError(
            f"the region lies outside of the slide, which has {cols} x {rows} px",
            path=slide.path,
            remedy="Give X,Y,WIDTH,HEIGHT in pixels of the full resolution.",
        )
