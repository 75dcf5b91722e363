"""How much each gene varies over the slide on show, computed in the background while nothing else is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psygnal import Signal
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QWidget

from chrep_model.analysis.variability import Variability, variability
from napari_chrep.background.prediction_engine import PredictionEngine
from napari_chrep.background.runner import Task, TaskRunner
from napari_chrep.state.session import Session
from napari_chrep.state.viewers import kept_for

if TYPE_CHECKING:
    from chrep_model.prediction.prediction import Prediction


#: So long nothing has run before it is computed, in milliseconds.
REST_MS = 500


class SpatialVariability:
    """Keeps Moran's I of the genes in step with the prediction on show.

    It is computed when a run has ended and left other tiles than before, never during one, and only while a
    widget shows it; after a moment of rest, as whoever follows the view starts the next run at once.

    Parameters
    ----------
    viewer : napari.Viewer
        Its session's prediction is looked at; while its engine runs, nothing is computed.

    Attributes
    ----------
    moran : dict
        Gene -> Moran's I, of those that are computed by now; emptied once it speaks of another prediction.
    changed : Signal
        There is more, or less, of it.
    """

    changed = Signal()

    def __init__(self, viewer: Any) -> None:
        self.session = session = kept_for(viewer, Session)
        self.engine = engine = kept_for(viewer, PredictionEngine)
        self.moran: dict[str, float] = {}
        self._tasks, self._task = TaskRunner(), Task()
        self._rest = QTimer()
        self._rest.setSingleShot(True)
        self._rest.setInterval(REST_MS)
        self._rest.timeout.connect(self._start)
        self._of: tuple[Prediction | None, int] = (None, 0)  # and how many tiles it had
        self._shown_by = 0
        session.prediction_changed.connect(self.refresh)
        engine.state_changed.connect(self.refresh)

    @property
    def busy(self) -> bool:
        """Whether it is computed, or about to be."""
        return self._tasks.busy or self._rest.isActive()

    def attach(self, widget: QWidget) -> None:
        """Compute as long as this widget lives."""
        self._shown_by += 1
        widget.destroyed.connect(self._detach)
        self.refresh()

    def _detach(self, _destroyed: Any = None) -> None:
        self._shown_by -= 1
        if not self._shown_by:
            self._task.cancel()

    def refresh(self, _state: str = "") -> None:
        """Begin, go on or stop, as the session and the engine stand now."""
        prediction = self.session.prediction
        if prediction is not self._of[0]:
            self._drop(prediction)
        if self.engine.state == "predicting":
            self._rest.stop()
            self._task.cancel()
        elif prediction is not None and self._shown_by and self._of[1] != len(prediction) and not self.busy:
            self._rest.start()

    def _drop(self, prediction: Prediction | None) -> None:
        self._task.cancel()
        self._of = prediction, 0
        if self.moran:
            self.moran = {}
            self.changed.emit()

    def _start(self) -> None:
        prediction = self.session.prediction
        if prediction is None or not self._shown_by:
            return
        self._of = prediction, len(prediction)
        self._task = self._tasks.run(
            lambda task: variability(prediction, progress=task.progress),
            on_result=self._on_result,
            on_end=self._on_end,
        )

    def _on_result(self, result: Variability) -> None:
        if not self._task.cancelled():  # else of another prediction, or of fewer tiles
            self.moran |= dict(zip(result.genes, map(float, result.moran), strict=True))
            self.changed.emit()

    def _on_end(self) -> None:
        if self._task.cancelled() and not self._task.cancelled_by_napari:
            self._of = self._of[0], 0  # it was overtaken: do it again for what there is now
            self.refresh()
        self.changed.emit()
