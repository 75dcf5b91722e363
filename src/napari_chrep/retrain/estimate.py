"""How long a job will take, worked out beside the viewer: the slides have to be looked at for that."""

from __future__ import annotations

from typing import Any

from napari.qt.threading import create_worker
from psygnal import Signal

from chrep_model.bundle import Bundle
from chrep_model.cache import default_cache
from chrep_model.cohorts.cohort import Cohort
from chrep_model.errors import ChrepError
from napari_chrep.retrain.effort import Rates, effort_of, in_words
from napari_chrep.retrain.request import RetrainRequest


def estimated(job: RetrainRequest, cohort: Cohort, in_use: Bundle) -> str:
    """Say how long a job will take; looks at slides and at the store of embeddings."""
    effort, rates = effort_of(job, cohort, in_use.card), Rates.load()
    tiles = _tiles(job, cohort, in_use)
    name = job.encoder_of(in_use.card)
    return in_words(rates.seconds(effort, job.preset, name, tiles), effort, tiles)


def _tiles(job: RetrainRequest, cohort: Cohort, in_use: Bundle) -> int:
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
        self._worker: Any = None
        self._asked: tuple[RetrainRequest, Cohort, Bundle] | None = None

    def ask(self, job: RetrainRequest, cohort: Cohort, in_use: Bundle) -> None:
        """Ask; what was asked before is dropped."""
        self._asked = (job, cohort, in_use)
        if self._worker is None:
            self._next()

    def forget(self) -> None:
        """Answer nothing that was asked."""
        self._asked = None

    def _next(self) -> None:
        asked = self._asked
        if asked is None:
            return
        self._worker = worker = create_worker(_answered, *asked, _start_thread=False)
        worker.returned.connect(lambda answer: self._on_answer(asked, answer))
        worker.finished.connect(lambda: self._on_finished(asked))
        worker.start()

    def _on_answer(self, asked: Any, answer: str) -> None:
        if asked is self._asked:
            self.said.emit(answer)

    def _on_finished(self, asked: Any) -> None:
        self._worker = None
        if asked is not self._asked:
            self._next()


def _answered(job: RetrainRequest, cohort: Cohort, in_use: Bundle) -> str:
    import matplotlib.figure  # noqa: F401  (the curves need it soon, and loading it takes a while)

    try:
        return estimated(job, cohort, in_use)
    except ChrepError as error:
        return str(error)
