"""How long a job will take, worked out beside the viewer: the slides have to be looked at for that."""

from __future__ import annotations

from collections.abc import Callable

from psygnal import Signal

from chrep_model.bundle import Bundle
from chrep_model.cache import default_cache
from chrep_model.cohorts.cohort import Cohort
from chrep_model.errors import Cancelled
from napari_chrep.background.runner import TaskRunner
from napari_chrep.background.runner import in_words as error_in_words
from napari_chrep.retrain.effort import Rates, effort_of, in_words
from napari_chrep.retrain.request import RetrainRequest


def estimated(job: RetrainRequest, cohort: Cohort, in_use: Bundle, cancelled: Callable[[], bool]) -> str:
    """Say how long a job will take; looks at slides and at the store of embeddings.

    Raises
    ------
    ChrepError
        A slide cannot be read; or it was cancelled, which is looked for before each section.
    """
    import matplotlib.figure  # noqa: F401  (the curves need it soon, and loading it takes a while)

    effort, rates = effort_of(job, cohort, in_use.card), Rates.load()
    tiles = _tiles(job, cohort, in_use, cancelled)
    name = job.encoder_of(in_use.card)
    return in_words(rates.seconds(effort, job.preset, name, tiles), effort, tiles)


def _tiles(job: RetrainRequest, cohort: Cohort, in_use: Bundle, cancelled: Callable[[], bool]) -> int:
    """Tiles that an encoder has to see: those not in the store, and all of them by a new encoder."""
    from chrep_model.embeddings import SlideEmbeddings
    from chrep_model.pipeline import TrainSettings

    encoder, context = in_use.encoder("cpu"), in_use.context_um
    if job.encoder_of(in_use.card) != in_use.card.encoder:
        settings = TrainSettings()
        encoder, context = settings.open("cpu"), settings.context_um
    cache = job.cache or default_cache()
    missing = everything = 0
    for section in cohort:
        if cancelled():
            raise Cancelled("The estimate was cancelled")
        with section.open_slide() as slide:
            missing += SlideEmbeddings(slide, encoder, cache=cache).missing(section.xy, context)
            if job.preset == "finetune":
                everything += SlideEmbeddings(slide, encoder, cache=None).missing(section.xy, context)
    return missing + everything * (1 + bool(job.groups))


class Estimator:
    """Works out one estimate at a time; of several questions only the newest is answered.

    Attributes
    ----------
    said : Signal(str)
        The answer, or why there is none.
    """

    said = Signal(str)

    def __init__(self) -> None:
        self._tasks = TaskRunner()

    def ask(self, job: RetrainRequest, cohort: Cohort, in_use: Bundle) -> None:
        """Ask; what was asked before is dropped."""
        self._tasks.run(
            lambda task: estimated(job, cohort, in_use, task.cancelled),
            on_result=self.said.emit,
            on_error=lambda error: self.said.emit(error_in_words(error)),
        )

    def forget(self) -> None:
        """Answer nothing that was asked."""
        self._tasks.drop()
