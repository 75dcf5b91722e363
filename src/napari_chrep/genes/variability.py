"""How much each gene varies over the slide on show, computed in the background while nothing else is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from napari.qt.threading import create_worker
from napari.utils.notifications import show_error
from psygnal import Signal
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QWidget

from chrep_model.analysis.variability import Variability, variability
from chrep_model.errors import Cancelled, ChrepError
from napari_chrep.background.engine import Engine, engines
from napari_chrep.background.jobs import Stop
from napari_chrep.state.session import PerViewer, Session, sessions

if TYPE_CHECKING:
    from chrep_model.prediction.prediction import Prediction


#: So long nothing has run before it is computed, in milliseconds.
REST_MS = 500


def computing(prediction: Prediction, stop: Stop) -> Iterator[Variability | ChrepError]:
    """Compute Moran's I; yields for some genes after the other, or why that cannot be."""
    try:
        yield from variability(prediction, progress=stop.progress)
    except Cancelled:
        return
    except ChrepError as error:
        yield error


class SpatialVariability:
    """Keeps Moran's I of the genes in step with the prediction on show.

    It is computed when a run has ended and left other tiles than before, never during one, and only while a
    widget shows it; after a moment of rest, as whoever follows the view starts the next run at once.

    Parameters
    ----------
    session : Session
        Whose prediction is looked at.
    engine : Engine
        While it runs, nothing is computed.

    Attributes
    ----------
    moran : dict
        Gene -> Moran's I, of those that are computed by now; emptied once it speaks of another prediction.
    changed : Signal
        There is more, or less, of it.
    """

    changed = Signal()

    def __init__(self, session: Session, engine: Engine) -> None:
        self.session, self.engine = session, engine
        self.moran: dict[str, float] = {}
        self._computing = False
        self._rest = QTimer()
        self._rest.setSingleShot(True)
        self._rest.setInterval(REST_MS)
        self._rest.timeout.connect(self._start)
        self._of: tuple[Prediction | None, int] = (None, 0)  # and how many tiles it had
        self._stop = Stop()
        self._shown_by = 0
        session.prediction_changed.connect(self.refresh)
        engine.state_changed.connect(self.refresh)

    @property
    def busy(self) -> bool:
        """Whether it is computed, or about to be."""
        return self._computing or self._rest.isActive()

    def attach(self, widget: QWidget) -> None:
        """Compute as long as this widget lives."""
        self._shown_by += 1
        widget.destroyed.connect(self._detach)
        self.refresh()

    def _detach(self, _destroyed: Any = None) -> None:
        self._shown_by -= 1
        if not self._shown_by:
            self._stop.request()

    def refresh(self, _state: str = "") -> None:
        """Begin, go on or stop, as the session and the engine stand now."""
        prediction = self.session.prediction
        if prediction is not self._of[0]:
            self._drop(prediction)
        if self.engine.state == "predicting":
            self._rest.stop()
            self._stop.request()
        elif prediction is not None and self._shown_by and self._of[1] != len(prediction) and not self.busy:
            self._rest.start()

    def _drop(self, prediction: Prediction | None) -> None:
        self._stop.request()
        self._of = prediction, 0
        if self.moran:
            self.moran = {}
            self.changed.emit()

    def _start(self) -> None:
        prediction = self.session.prediction
        if prediction is None or not self._shown_by:
            return
        self._of = prediction, len(prediction)
        self._stop = stop = Stop()
        worker = create_worker(computing, prediction, stop, _start_thread=False)
        stop.worker, self._computing = worker, True

        def on_yielded(result: Variability | ChrepError) -> None:
            if stop.requested():
                return  # of another prediction, or of fewer tiles
            if isinstance(result, ChrepError):
                show_error(str(result))
                return
            self.moran |= dict(zip(result.genes, map(float, result.moran), strict=True))
            self.changed.emit()

        worker.yielded.connect(on_yielded)
        worker.finished.connect(self._on_finished)
        worker.start()

    def _on_finished(self) -> None:
        self._computing = False
        if self._stop.requested() and not self._stop.worker.abort_requested:
            self._of = self._of[0], 0  # it was overtaken: do it again for what there is now
            self.refresh()
        self.changed.emit()


def _variability(viewer: Any) -> SpatialVariability:
    return SpatialVariability(sessions.of(viewer), engines.of(viewer))


#: The Moran's I of each viewer's genes: ``variabilities.of(viewer)``.
variabilities: PerViewer[SpatialVariability] = PerViewer(_variability)
