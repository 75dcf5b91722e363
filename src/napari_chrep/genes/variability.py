"""Compute Moran's I of each gene's predicted map, in the background while no prediction runs.

Moran's I tells genes that form regions on the slide from genes that vary at random.
"""

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

#: Delay between the end of a run and the start of the computation, in milliseconds.
REST_MS = 500


class SpatialVariability:
    """Moran's I of the genes in the current prediction, updated in the background.

    It is computed after a run that predicted new tiles, never during a run, and only while a widget shows it.
    A short delay comes first, because a run that follows the view is soon succeeded by another one.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer with the session and the prediction engine.

    Attributes
    ----------
    moran : dict
        Moran's I by gene, for the genes computed so far; emptied when the prediction is replaced.
    changed : Signal
        Emitted when `moran` or `busy` changes.
    """

    changed = Signal()

    def __init__(self, viewer: Any) -> None:
        self.session = session = kept_for(viewer, Session)
        self.engine = engine = kept_for(viewer, PredictionEngine)
        self.moran: dict[str, float] = {}
        self._tasks, self._task = TaskRunner(), Task()
        self._delay = QTimer()
        self._delay.setSingleShot(True)
        self._delay.setInterval(REST_MS)
        self._delay.timeout.connect(self._start)
        self._done_for: tuple[Prediction | None, int] = (None, 0)  # prediction and number of tiles
        self._widgets = 0
        session.prediction_changed.connect(self.refresh)
        engine.state_changed.connect(self.refresh)

    @property
    def busy(self) -> bool:
        """Whether a computation is running or scheduled."""
        return self._tasks.busy or self._delay.isActive()

    def attach(self, widget: QWidget) -> None:
        """Compute Moran's I as long as this widget exists."""
        self._widgets += 1
        widget.destroyed.connect(self._detach)
        self.refresh()

    def _detach(self, _destroyed: Any = None) -> None:
        self._widgets -= 1
        if not self._widgets:
            self._task.cancel()

    def refresh(self, _state: str = "") -> None:
        """Start or stop the computation, depending on the state of session and engine."""
        prediction = self.session.prediction
        if prediction is not self._done_for[0]:
            self._drop(prediction)
        if self.engine.state == "predicting":
            self._delay.stop()
            self._task.cancel()
        elif (
            prediction is not None
            and self._widgets
            and self._done_for[1] != len(prediction)
            and not self.busy
        ):
            self._delay.start()

    def _drop(self, prediction: Prediction | None) -> None:
        """Drop the results, because the prediction was replaced."""
        self._task.cancel()
        self._done_for = prediction, 0
        if self.moran:
            self.moran = {}
            self.changed.emit()

    def _start(self) -> None:
        """Start the computation for the current prediction."""
        prediction = self.session.prediction
        if prediction is None or not self._widgets:
            return
        self._done_for = prediction, len(prediction)
        self._task = self._tasks.run(
            lambda task: variability(prediction, progress=task.progress),
            on_result=self._on_result,
            on_end=self._on_end,
        )

    def _on_result(self, result: Variability) -> None:
        if not self._task.cancelled():  # a cancelled task used another prediction or fewer tiles
            self.moran |= dict(zip(result.genes, map(float, result.moran), strict=True))
            self.changed.emit()

    def _on_end(self) -> None:
        if self._task.cancelled() and not self._task.cancelled_by_napari:
            self._done_for = self._done_for[0], 0  # the prediction has changed: compute it again
            self.refresh()
        self.changed.emit()
