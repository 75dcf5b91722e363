"""Estimate in the background how long a retraining will take.

The slides have to be opened to count the tiles that are not encoded yet.
"""

from __future__ import annotations

from psygnal import Signal

from chrep_model.bundle import Bundle
from chrep_model.cache import default_cache
from chrep_model.cohorts.cohort import Cohort
from chrep_model.progress import Progress
from napari_chrep.background.runner import TaskRunner
from napari_chrep.background.runner import in_words as error_in_words
from napari_chrep.retrain.effort import Rates, effort_of, in_words
from napari_chrep.retrain.request import RetrainRequest


def estimate_in_words(job: RetrainRequest, cohort: Cohort, in_use: Bundle, progress: Progress) -> str:
    """Return a text on how long a job will take, from the cohort's slides and the cached embeddings.

    Raises
    ------
    ChrepError
        A slide cannot be read, or the task was cancelled, which is checked before each section.
    """
    import matplotlib.figure  # noqa: F401  (slow to import, and the curves need it soon)

    effort, rates = effort_of(job, cohort, in_use.card), Rates.load()
    tiles = _tiles(job, cohort, in_use, progress)
    name = job.encoder_of(in_use.card)
    return in_words(rates.seconds(effort, job.preset, name, tiles), effort, tiles)


def _tiles(job: RetrainRequest, cohort: Cohort, in_use: Bundle, progress: Progress) -> int:
    """Return the number of tiles to encode: those not in the cache, or all with a fine-tuned encoder."""
    from chrep_model.embeddings import SlideEmbeddings
    from chrep_model.pipeline import TrainSettings

    encoder, context = in_use.encoder("cpu"), in_use.context_um
    if job.encoder_of(in_use.card) != in_use.card.encoder:
        settings = TrainSettings()
        encoder, context = settings.open("cpu"), settings.context_um
    cache = job.cache or default_cache()
    missing = everything = 0
    for section in cohort:
        progress.raise_if_cancelled()
        with section.open_slide() as slide:
            missing += SlideEmbeddings(slide, encoder, cache=cache).missing(section.xy, context)
            if job.preset == "finetune":
                everything += SlideEmbeddings(slide, encoder, cache=None).missing(section.xy, context)
    return missing + everything * (1 + bool(job.groups))


class Estimator:
    """Background estimator of durations, which answers only the newest request.

    Attributes
    ----------
    estimated : Signal(str)
        Emitted with the estimate in words, or the reason why there is none.
    """

    estimated = Signal(str)

    def __init__(self) -> None:
        self._tasks = TaskRunner()

    def request(self, job: RetrainRequest, cohort: Cohort, in_use: Bundle) -> None:
        """Request an estimate; an earlier request is dropped."""
        self._tasks.run(
            lambda task: estimate_in_words(job, cohort, in_use, task.progress),
            on_result=self.estimated.emit,
            on_error=lambda error: self.estimated.emit(error_in_words(error)),
        )

    def cancel(self) -> None:
        """Drop the request."""
        self._tasks.drop()
