"""Panel with the buttons that start and cancel predictions, and their progress."""

from __future__ import annotations

from typing import Any

from napari.utils.notifications import show_error
from qtpy.QtCore import QTimer
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QProgressBar, QPushButton, QVBoxLayout, QWidget

from chrep_model.errors import ChrepError, ScaleError
from chrep_model.geometry import Rect
from chrep_model.prediction.stored import StoredBundle
from chrep_model.slides.region import Region
from napari_chrep.background.prediction_engine import PredictionEngine
from napari_chrep.canvas.drawing import Drawing
from napari_chrep.canvas.viewport import Viewport
from napari_chrep.explorer.advice import is_too_coarse
from napari_chrep.state.session import Session
from napari_chrep.state.settings import preferences
from napari_chrep.state.viewers import kept_for
from napari_chrep.ui.parts import Connections, heading, note, sentence

VIEW_SHORTCUT = "Ctrl+Return"
TISSUE_SHORTCUT = "Ctrl+Shift+Return"
#: Delay of the progress after the tiles, in milliseconds: the window draws them in separate frames.
PROGRESS_DELAY_MS = 140
LOADING, PREPARING, READY = "Loading the model…", "Preparing the slide", "Ready."


class RunPanel(QWidget):
    """Panel to start predictions, follow their progress and cancel them.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer whose view is predicted; its engine predicts in the background.
    """

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self.session = session = kept_for(viewer, Session)
        self.engine = engine = kept_for(viewer, PredictionEngine)
        self.viewport = Viewport(viewer)
        self.drawing = kept_for(viewer, Drawing)
        self._area: Rect | Region | None = None  # of the last prediction; None for the whole slide
        self._followed = False  # whether that was started because the view moved
        self._preparation_timer = QTimer(self)  # polls the preparation, which sends no signals
        self._preparation_timer.setInterval(200)
        self._preparation_timer.timeout.connect(self._on_preparation_timer)
        self._last_progress = (0, 0, 0.0)
        self._progress_timer = QTimer(self)
        self._progress_timer.setSingleShot(True)
        self._progress_timer.setInterval(PROGRESS_DELAY_MS)
        self._progress_timer.timeout.connect(self._show_progress)
        self._build()
        for keys, button in ((VIEW_SHORTCUT, self.predict_view), (TISSUE_SHORTCUT, self.predict_tissue)):
            button.setShortcut(QKeySequence(keys))
        connections = Connections(self)
        connections.add(self.viewport.moved, self._on_moved)
        connections.add(self.drawing.changed, self._on_drawing)
        connections.add(session.slide_changed, self._on_inputs)
        connections.add(session.bundle_changed, self._on_inputs)
        connections.add(engine.state_changed, self._on_state)
        connections.add(engine.progressed, self._on_progress)
        connections.add(engine.over_budget, self._on_refused)
        connections.add(engine.nothing_to_do, self._on_nothing)
        connections.add(engine.failed, self._on_failed)
        # Without this widget the user could not stop a run or the following of the view.
        self.destroyed.connect(engine.cancel)
        self.destroyed.connect(self.viewport.disconnect)
        self._on_state(engine.state)
        self._on_inputs()

    def _build(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self.follow = QCheckBox("Follow view")
        self.follow.setToolTip("Predict whatever comes into view, once the view stands still")
        self.follow.toggled.connect(self._on_moved)
        row = QHBoxLayout()
        row.addWidget(heading("Predict"), 1)
        row.addWidget(self.follow)
        layout.addLayout(row)
        self.predict_view, self.predict_region, self.predict_tissue = (
            QPushButton(what) for what in ("View", "Region", "All tissue")
        )
        self.predict_view.setToolTip(
            _with_shortcut("Predict the tissue that is in view, from its centre outwards", VIEW_SHORTCUT)
        )
        self.predict_view.clicked.connect(self._on_predict_view)
        self.predict_region.clicked.connect(self._on_predict_region)
        self.predict_tissue.setToolTip(_with_shortcut("Predict all tissue of the slide", TISSUE_SHORTCUT))
        self.predict_tissue.clicked.connect(self._on_predict_tissue)
        row = QHBoxLayout()
        row.setSpacing(4)
        for button in (self.predict_view, self.predict_region, self.predict_tissue):
            row.addWidget(button, 1)
        layout.addLayout(row)
        self.status = note()
        layout.addWidget(self.status)
        self.anyway = QPushButton("Predict them all")
        self.anyway.clicked.connect(self._on_anyway)
        self.anyway.hide()
        layout.addWidget(self.anyway)
        self.progress = QProgressBar()
        self.progress.setTextVisible(False)
        self.cancel = QPushButton("Cancel")
        self.cancel.setToolTip("Stop; the tiles predicted so far stay")
        self.cancel.clicked.connect(self.engine.cancel)
        for widget in (self.progress, self.cancel):  # so that nothing jumps when a run starts
            policy = widget.sizePolicy()
            policy.setRetainSizeWhenHidden(True)
            widget.setSizePolicy(policy)
        row = QHBoxLayout()
        row.addWidget(self.progress, 1)
        row.addWidget(self.cancel)
        layout.addLayout(row)

    def _on_predict_view(self) -> None:
        slide = self.session.slide
        rect = None if slide is None else self.viewport.rect(slide)
        if rect is None:
            self._warn("No part of the slide is in view. Bring it back with the house button, then predict.")
        else:
            self._predict(rect)

    def _on_predict_region(self) -> None:
        if self.session.slide is None:
            return
        try:
            self._predict(self.drawing.region(self.session.slide))
        except ChrepError as error:
            self._warn(sentence(str(error)))

    def _on_predict_tissue(self) -> None:
        self._predict(None)

    def _on_anyway(self) -> None:
        self._predict(self._area, limited=False)

    def _predict(self, area: Rect | Region | None, *, limited: bool = True) -> None:
        self._area, self._followed = area, False
        self.anyway.hide()
        self.engine.predict(area, budget=preferences().tile_budget if limited else None)

    def _on_moved(self, _checked: bool = False) -> None:
        slide = self.session.slide
        if not self.follow.isChecked() or slide is None or self.engine.is_predicting_area or self._missing():
            return
        rect = self.viewport.rect(slide)
        self._area, self._followed = rect, True
        self.anyway.hide()
        self.engine.follow_view(rect, budget=preferences().tile_budget)

    def _missing(self) -> str:
        """Return the text about the first input that is missing for a prediction; empty if none is."""
        session = self.session
        if session.bundle is None:
            return "Choose a model to begin."
        if isinstance(session.bundle, StoredBundle):
            return "These maps come from a file. Choose a model to predict more."
        if session.slide is None:
            return "Open a slide: drop it on the window, or take File › Open Sample › CHRep."
        try:
            mpp = session.slide.require_mpp()
        except ScaleError as error:
            return f"{sentence(error.what)}. Type it in above: the model needs it."
        return "The slide is too coarse for this model." if is_too_coarse(mpp, session.bundle) else ""

    def _on_inputs(self) -> None:
        missing = self._missing()
        for button in (self.predict_view, self.predict_tissue, self.follow):
            button.setEnabled(not missing)
        self._on_drawing()
        self._show_status(missing or (LOADING if self.engine.state == "loading" else READY))
        if not missing:
            self._on_moved()
            self.engine.prepare_slide()

    def _on_drawing(self) -> None:
        layer = self.drawing.layer
        self.predict_region.setEnabled(layer is not None and not self._missing())
        self.predict_region.setToolTip(
            "Select a Shapes layer with a polygon, rectangle or ellipse: napari draws them"
            if layer is None
            else f"Predict the tissue inside the shapes of {layer.name}"
        )

    def _on_state(self, state: str) -> None:
        working = state != "idle"
        self.progress.setVisible(working)
        self.cancel.setVisible(working)
        self.cancel.setEnabled(working and state != "cancelling")
        self.cancel.setText("Cancelling…" if state == "cancelling" else "Cancel")
        if state in ("loading", "preparing"):
            self.progress.setRange(0, 0)
            self._show_status(LOADING if state == "loading" else f"{PREPARING}…")
        elif state == "idle":
            if self.status.text().startswith((LOADING, PREPARING)):
                self._show_status(self._missing() or READY)
            if not self._missing():
                self.engine.prepare_slide()
        if state == "preparing":
            self._preparation_timer.start()
        else:
            self._preparation_timer.stop()

    def _on_preparation_timer(self) -> None:
        done, total = self.engine.preparation_progress
        if total:
            self.progress.setRange(0, total)
            self.progress.setValue(done)
            self._show_status(f"{PREPARING}: {done:,} of {total:,} sample tiles")

    def _on_progress(self, done: int, total: int, rate: float) -> None:
        self._last_progress = done, total, rate
        if not self._progress_timer.isActive():
            self._progress_timer.start()

    def _show_progress(self) -> None:
        done, total, rate = self._last_progress
        self.progress.setRange(0, total)
        self.progress.setUpdatesEnabled(False)  # otherwise the whole window is painted at once
        self.progress.setValue(done)
        self.progress.setUpdatesEnabled(True)
        predictor = self.session.predictor
        speed = f"{rate:.0f} tiles/s" + (f" on {predictor.device}" if predictor is not None else "")
        if done >= total:
            self._show_status(f"{done:,} tiles predicted, {speed}.")
        elif rate > 0:
            left = _duration((total - done) / rate)
            self._show_status(f"{done:,} of {total:,} tiles, {speed}, {left} left")
        else:
            self._show_status(f"0 of {total:,} tiles: a rough map first")

    def _on_refused(self, tiles: int) -> None:
        if self._followed:
            self._show_status(f"In view are {tiles:,} more tiles to predict. Zoom in, or go ahead:")
        else:
            what, most = f"{sentence(self._where())} are {tiles:,} tiles", preferences().tile_budget
            self._show_status(f"{what} to predict, more than {most:,}. Choose less, or go ahead:")
        self.anyway.show()

    def _on_nothing(self, tissue_tiles: int) -> None:
        where = self._where()
        if tissue_tiles:
            self._show_status(f"All {tissue_tiles:,} tissue tiles {where} are predicted.")
        elif self._followed:
            self._show_status(f"No tissue {where}.")
        else:
            self._warn(f"No tissue {where}. Move to the stained tissue, or zoom out, then predict.")

    def _where(self) -> str:
        if self._followed or isinstance(self._area, Rect):
            return "in view"
        return "on the slide" if self._area is None else "in the region"

    def _on_failed(self, message: str) -> None:
        self._show_status(message)

    def _warn(self, text: str) -> None:
        """Show as an error and as status why a request cannot be fulfilled."""
        show_error(text)
        self._show_status(text)

    def _show_status(self, text: str) -> None:
        self._progress_timer.stop()  # the progress of a run that has ended
        self.status.setText(text)
        self.anyway.hide()


def _with_shortcut(text: str, keys: str) -> str:
    return f"{text} ({QKeySequence(keys).toString(QKeySequence.SequenceFormat.NativeText)})"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
