"""The Retrain widget: choose sections and settings, follow the training, and compare the new model.

It can also add the spots measured on the open slide to the gallery of the model in use.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

from napari.utils.notifications import show_error
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QProgressBar, QPushButton

from chrep_model.bundle import Bundle
from chrep_model.cohorts.cohort import Cohort
from chrep_model.cohorts.manifest import Manifest, ManifestSection
from chrep_model.cohorts.slide_names import slide_stem
from chrep_model.errors import ChrepError
from chrep_model.slides.slide import Slide
from napari_chrep.retrain.cohort_panel import CohortPanel
from napari_chrep.retrain.curves import Curves
from napari_chrep.retrain.estimate import Estimator
from napari_chrep.retrain.form import RetrainForm
from napari_chrep.retrain.messages import Curve, Message, StageBegun, Tiles
from napari_chrep.retrain.outcome import OutcomePanel
from napari_chrep.retrain.request import Preset, RetrainRequest, free_place
from napari_chrep.retrain.retrainer import Retrainer, State
from napari_chrep.state.settings import models_folder, preferences
from napari_chrep.state.viewers import kept_for, unwrapped
from napari_chrep.ui.dock_heights import TabWhenLow
from napari_chrep.ui.parts import heading, note, sentence, stack
from napari_chrep.ui.widgets import ScrollingWidget

_LEAST_HEIGHT = 420
#: Delay between the last change of an input and the estimate, in milliseconds.
_ESTIMATE_DELAY_MS = 500


class RetrainWidget(ScrollingWidget):
    """Dock widget for training a new model on measured sections; the one in use is not changed."""

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer)
        viewer = unwrapped(napari_viewer)
        self.retrainer = kept_for(viewer, Retrainer)
        self.estimator = Estimator()
        self.cohort, self.form = CohortPanel(viewer), RetrainForm()
        self.curves, self.outcome = Curves(), OutcomePanel()
        self.dialog: QFileDialog | None = None
        self._shown: State = "idle"
        self._build()
        self._estimate_timer = QTimer(self)
        self._estimate_timer.setSingleShot(True)
        self._estimate_timer.setInterval(_ESTIMATE_DELAY_MS)
        self._estimate_timer.timeout.connect(self._estimate)
        connections = self.connections
        connections.add(self.session.bundle_changed, self._on_inputs)
        connections.add(self.session.slide_changed, self._on_slide)
        connections.add(self.cohort.changed, self._on_inputs)
        connections.add(self.form.changed, self._on_inputs)
        connections.add(self.estimator.estimated, self._on_estimate)
        connections.add(self.retrainer.changed, self._on_state)
        connections.add(self.retrainer.message_received, self._on_message)
        connections.add(self.outcome.used, self.retrainer.use)
        connections.add(self.outcome.saved, self._on_save)
        connections.add(self.outcome.discarded, self.retrainer.discard)
        # Without this widget the user could not stop a job; its files are kept, so it can be resumed.
        self.destroyed.connect(partial(_interrupt, self.retrainer))
        TabWhenLow(self, _LEAST_HEIGHT)
        self._on_inputs()
        self._on_slide()
        self._on_state()

    def _build(self) -> None:
        column = self.add_column(12)
        self.estimate, self.status, self.about_spots = note(), note(), note()
        self.start, self.cancel, self.resume = (QPushButton(t) for t in ("Start", "Cancel", "Resume"))
        self.start.clicked.connect(self._on_start)
        self.cancel.setToolTip("Stop; everything is as it was")
        self.cancel.clicked.connect(self._on_cancel)
        self.resume.setToolTip("Go on with the run that was interrupted")
        self.resume.clicked.connect(self._on_resume)
        self.enough = QPushButton("Stop early, keep best")
        self.enough.setToolTip(
            "End the training of the encoder here, at its best epoch; the run goes on with it"
        )
        self.enough.clicked.connect(self._on_enough)
        self.progress = QProgressBar()
        self.progress.setTextVisible(False)
        self.progress.setFixedHeight(6)
        self.add_spots = QPushButton("Add the open section's measured spots")
        self.add_spots.clicked.connect(self._on_add_spots)
        self.undo = QPushButton("Back to the former model")
        self.undo.clicked.connect(self.retrainer.undo)
        column.addLayout(stack(heading("Measured sections"), self.cohort))
        column.addLayout(stack(heading("What is learned anew"), self.form, self.estimate))
        buttons = QHBoxLayout()
        for button in (self.start, self.resume, self.enough, self.cancel):
            buttons.addWidget(button)
        column.addLayout(buttons)
        column.addLayout(stack(self.progress, self.status))
        column.addWidget(self.curves)
        column.addWidget(self.outcome)
        column.addWidget(self.undo)
        column.addLayout(stack(heading("Correct on the open slide"), self.about_spots, self.add_spots))
        column.addStretch(1)

    def _on_inputs(self) -> None:
        self.form.show_model(self.session.bundle)
        reason = self._missing()
        self.start.setEnabled(not reason and self.retrainer.state in ("idle", "interrupted"))
        self.start.setToolTip(reason or "Make the new model; the one in use stays until you say otherwise")
        self.estimator.cancel()
        self.estimate.setText(reason or "Working out how long it will take…")
        self._estimate_timer.start()
        self._on_slide()

    def _missing(self) -> str:
        """Return a text on what the user has to do before a job can start; empty if it can start."""
        cohort = self.cohort.cohort
        if self.session.bundle is None:
            return "Choose a model in the slide explorer first: it is what the new one is compared with."
        if cohort is None:
            return "Add sections: slides with their measured counts."
        if len(cohort) < 2:
            return "Add a second section: learning holds sections out in turn."
        if self.form.job(in_use=Path(), out=Path()) is None:
            return "Correct the value that is marked."
        return ""

    def _job(self, preset: Preset) -> tuple[RetrainRequest, Bundle] | None:
        """Return the job with the current settings, and the model in use; None if there is none."""
        bundle = self.session.bundle
        if bundle is None:
            return None
        set_to = preferences()
        out = free_place(Path(bundle.path), preset, _folder_for(Path(bundle.path)))
        others: dict[str, Any] = {"in_use": Path(bundle.path).absolute(), "out": out}
        others |= {"device": set_to.device, "cache": set_to.cache}
        job = RetrainRequest(preset="add", **others) if preset == "add" else self.form.job(**others)
        return None if job is None else (job, bundle)

    def _estimate(self) -> None:
        """Request an estimate of the time that the job will take."""
        cohort = self.cohort.cohort
        if self._missing() or cohort is None:
            return
        if self.retrainer.busy:  # an estimate would slow the job down, and is not about it
            self.estimate.setText("")
            return
        found = self._job(self.form.preset)
        if found is not None:
            self.estimator.request(found[0], cohort, found[1])

    def _on_estimate(self, answer: str) -> None:
        warning = ""
        if self.form.preset == "finetune":
            warning = " On a computer without a GPU this is a matter of hours, and seldom worth them."
        self.estimate.setText(sentence(answer) + warning)

    def _on_start(self) -> None:
        cohort, found = self.cohort.cohort, self._job(self.form.preset)
        if cohort is not None and found is not None:
            self._begin(found[0], cohort)

    def _on_add_spots(self) -> None:
        found, measured = self._job("add"), self._measured()
        if found is not None and measured is not None:
            self._begin(found[0], measured)

    def _begin(self, job: RetrainRequest, cohort: Cohort | Manifest) -> None:
        """Start a job, or show the error if it cannot start."""
        self.curves.clear()
        try:
            self.retrainer.start(job, cohort)
        except (ChrepError, OSError) as error:
            show_error(sentence(str(error)))
            self.status.setText(sentence(str(error)))

    def _on_cancel(self) -> None:
        self.retrainer.cancel()

    def _on_enough(self) -> None:
        self.enough.setEnabled(False)
        self.retrainer.stop_early()

    def _on_resume(self) -> None:
        self.curves.clear()
        try:
            self.retrainer.resume()
        except ChrepError as error:
            show_error(sentence(str(error)))

    def _measured(self) -> Cohort | Manifest | None:
        """Return the open slide with its counts, from the list or the h5ad of the same name beside it."""
        slide, cohort = self.session.slide, self.cohort.cohort
        if slide is None:
            return None
        listed = [s.name for s in cohort or () if s.slide_path.absolute() == slide.path.absolute()]
        if cohort is not None and listed:
            return cohort.only(listed[:1])
        counts = _counts_beside(slide)
        if counts is None:
            return None
        scale = slide.mpp.value if slide.mpp is not None and slide.mpp.source == "user" else None
        pair = ManifestSection(slide=str(slide.path.absolute()), counts=str(counts), um_per_px=scale)
        return Manifest(sections=[pair])

    def _on_slide(self) -> None:
        bundle, slide = self.session.bundle, self.session.slide
        if slide is None or self._measured() is None:
            text = "Open a slide that has an h5ad of its name beside it, or is listed above."
        elif bundle is None or bundle.card.method != "chrep":
            text = "The model in use is none of CHRep: it takes no further spots."
        else:
            text = (
                f"The spots measured on {slide.name} join the gallery; tiles like them are predicted from "
                "them. It takes seconds, and can be undone."
            )
        ready = text.startswith("The spots") and self.retrainer.state in ("idle", "interrupted")
        self.about_spots.setText(text)
        self.add_spots.setEnabled(ready)

    def _on_state(self) -> None:
        retrainer = self.retrainer
        state, busy = retrainer.state, retrainer.busy
        self.status.setText(retrainer.status)
        self.progress.setVisible(busy)
        self.cancel.setVisible(busy)
        self.cancel.setEnabled(state == "running")
        self.cancel.setText("Cancelling…" if state == "cancelling" else "Cancel")
        self.resume.setVisible(state == "interrupted")
        self.start.setVisible(not busy)
        self.start.setEnabled(not self._missing() and state in ("idle", "interrupted"))
        self.enough.setVisible(state == "running" and retrainer.job is not None
                               and retrainer.job.preset == "finetune")  # fmt: skip
        self.curves.setVisible(bool(self.curves.lines))
        self.outcome.setVisible(state in ("outcome", "moving"))
        self.outcome.setEnabled(state == "outcome")
        if state == "outcome" and retrainer.comparison is not None:
            self.outcome.show_comparison(retrainer.comparison)
        if state != self._shown:  # only on a new state: the user may have scrolled elsewhere
            if state in ("running", "idle", "interrupted"):
                self._estimate_timer.start()
            self._shown = state
            QTimer.singleShot(0, self._scroll_there)
        self.undo.setVisible(retrainer.former is not None and not busy)
        self._on_slide()

    def _scroll_there(self) -> None:
        """Scroll to the part of the panel that shows the new state."""
        where = {"running": self.status, "interrupted": self.status, "outcome": self.outcome.use}
        if self._shown in where:
            self.scroll_area.ensureWidgetVisible(where[self._shown])

    def _on_message(self, message: Message) -> None:
        if isinstance(message, Curve):
            self.curves.add(message)
            self.curves.setVisible(True)
            self.enough.setEnabled(message.part == "encoder" and message.number < message.of)
        elif isinstance(message, StageBegun):
            self.progress.setRange(0, message.of)
            self.progress.setValue(message.number - 1)
        elif isinstance(message, Tiles) and self.retrainer.state == "running":
            self.status.setText(f"{sentence(message.what)}: {message.done:,} of {message.total:,}")

    def _on_save(self) -> None:
        job = self.retrainer.job
        if job is None:
            return
        self.dialog = dialog = QFileDialog(self, "Save the new model as")
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setOption(QFileDialog.Option.DontConfirmOverwrite)
        dialog.setNameFilter("Bundle (*.chrep)")
        dialog.setDirectory(str(job.out.parent))
        dialog.selectFile(job.out.name)
        dialog.fileSelected.connect(lambda name: self.retrainer.save_as(Path(name)))
        dialog.finished.connect(dialog.deleteLater)
        dialog.open()


def _interrupt(retrainer: Retrainer, _destroyed: Any = None) -> None:
    retrainer.interrupt()


def _counts_beside(slide: Slide) -> Path | None:
    stem = slide_stem(slide.path.name)
    counts = slide.path.with_name(f"{stem}.h5ad").absolute()
    return counts if stem is not None and counts.is_file() else None


def _folder_for(bundle: Path) -> Path:
    """Return the folder for new models: that of the model in use if writable, else the user's own."""
    if os.access(bundle.parent, os.W_OK):
        return bundle.parent.absolute()
    return models_folder()
