"""Collect the sections to train on: find pairs of slide and h5ad, check them, and exclude wrong ones."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from napari.utils.notifications import show_error
from psygnal import Signal
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from chrep_model.cohorts.cohort import Cohort
from chrep_model.cohorts.pair_check import PairCheck
from chrep_model.cohorts.pairing import Pair, Suggestions
from chrep_model.cohorts.slide_names import MANIFEST_SUFFIXES
from chrep_model.errors import ChrepError
from chrep_model.slides.slide import slide_name
from napari_chrep.retrain.pair_checker import PairChecker
from napari_chrep.retrain.pair_table import PairTable
from napari_chrep.retrain.pair_view import PairView
from napari_chrep.state.session import Session, slide_of
from napari_chrep.state.viewers import kept_for
from napari_chrep.ui.parts import Connections, note, sentence

HINT = "Drop slides with their h5ad files here, or a folder of pairs NAME.<image> + NAME.h5ad."
#: Maximum number of reasons that are written out; the tooltip lists all.
_MAX_REASONS = 3


class CohortPanel(QWidget):
    """Panel for the pairs of a cohort, which are checked in the background.

    A pair with an error stays in the list with the reason, but is not part of the cohort.

    Parameters
    ----------
    viewer : napari.Viewer
        Its slides can be added, and its model's genes are compared with those of the pairs. Only a weak
        reference is kept.

    Attributes
    ----------
    changed : Signal()
        Emitted when `cohort` may have changed.
    dialog : QFileDialog or None
        The last file dialog that was opened.
    """

    changed = Signal()

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self._viewer = weakref.ref(viewer)
        self.session, self.checker = kept_for(viewer, Session), PairChecker()
        self.dialog: QFileDialog | None = None
        self._name = "cohort"
        self._ignored: tuple[str, ...] = ()  # why files that were added last belong to no pair
        self._build()
        self.setAcceptDrops(True)
        connections = Connections(self)
        connections.add(self.checker.found, self._on_found)
        connections.add(self.checker.checked, self._on_checked)
        connections.add(self.checker.changed, self._summarise)
        connections.add(self.checker.saved, self._on_saved)
        connections.add(self.session.bundle_changed, self._on_bundle)
        self.destroyed.connect(partial(_stop, self.checker))
        self._on_bundle()

    def _build(self) -> None:
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        self.add_folder = QPushButton("Add folder…")
        self.add_folder.setToolTip("Add all pairs NAME.<image> + NAME.h5ad of a folder and its subfolders")
        self.add_pair = QPushButton("Add pair…")
        self.add_pair.setToolTip("Choose a slide and its h5ad (any names), several pairs, or a saved cohort")
        self.from_slides = QPushButton("Open slides")
        self.from_slides.setToolTip("Add the slides of this window that have an h5ad of the same name beside")
        self.remove, self.save = QPushButton("Remove"), QPushButton("Save cohort…")
        self.remove.setToolTip("Take the selected pairs out of the list; no file is touched")
        self.save.setToolTip("Write the pairs that can be used as a YAML manifest, for `chrep train` as well")
        self.message, self.table, self.view = note(HINT), PairTable(), PairView()
        column.addLayout(_row(self.add_folder, self.add_pair, self.from_slides))
        column.addWidget(self.table)
        column.addLayout(_row(self.remove, self.save))
        column.addWidget(self.message)
        column.addWidget(self.view)
        self.add_folder.clicked.connect(self._on_add_folder)
        self.add_pair.clicked.connect(self._on_add_pair)
        self.from_slides.clicked.connect(self._on_from_slides)
        self.remove.clicked.connect(self._on_remove)
        self.save.clicked.connect(self._on_save)
        pairs, selection = self.table.pairs, self.table.selectionModel()
        pairs.corrected.connect(self.checker.check)
        pairs.judged.connect(self._on_judged)
        assert selection is not None  # noqa: S101  (a table with a model has one)
        selection.selectionChanged.connect(self._show_chosen)

    @property
    def cohort(self) -> Cohort | None:
        """Cohort of the pairs without an error; None if there are none."""
        rows = self.table.pairs.rows
        sections = tuple(
            row.check.section
            for row in rows
            if row.check is not None and row.check.section is not None and row.verdict != "error"
        )
        return Cohort(sections[0].counts_path.parent, self._name, sections) if sections else None

    def add(self, paths: Sequence[str | Path]) -> None:
        """Find the pairs among files, folders and manifests, and check them."""
        self.checker.find_pairs([Path(path) for path in paths])

    def _on_found(self, found: Suggestions) -> None:
        pairs = self.table.pairs
        known = {row.pair.counts.absolute() for row in pairs.rows}
        new = [pair for pair in found.pairs if pair.counts.absolute() not in known]
        if new and not known:
            self._name = new[0].counts.parent.name
        self._ignored = found.unpaired
        if not found.pairs and not found.unpaired:
            self._ignored = ("No pair of a slide and an h5ad was found there.",)
        for pair in new:
            named = replace(pair, name=self._free_name(pair))
            pairs.add(named)
            self.checker.check(named)
        if new and not self.table.chosen:
            self.table.selectRow(0)
        self._summarise()

    def _free_name(self, pair: Pair) -> str:
        """Return a name for a pair that no other pair in the list has."""
        wanted = pair.name or slide_name(pair.slide)
        taken = {row.pair.name for row in self.table.pairs.rows}
        numbers = (f"{wanted} ({number})" for number in range(2, len(taken) + 3))
        return wanted if wanted not in taken else next(name for name in numbers if name not in taken)

    def _on_checked(self, check: PairCheck) -> None:
        self.table.pairs.set_check(check)

    def _on_judged(self) -> None:
        self._show_chosen()
        self._summarise()
        self.changed.emit()

    def _on_bundle(self) -> None:
        bundle = self.session.bundle
        self.table.pairs.set_model_genes(() if bundle is None else tuple(bundle.genes))

    def _show_chosen(self, *_: Any) -> None:
        chosen = self.table.chosen
        self.view.show_row(self.table.pairs.rows[chosen[0]] if chosen else None)
        self.remove.setEnabled(bool(chosen))

    def _summarise(self, remark: str = "") -> None:
        """Show how many pairs can be used, which files were ignored and why, and at first a hint."""
        rows, cohort = self.table.pairs.rows, self.cohort
        self.save.setEnabled(cohort is not None)
        lines = [] if rows or self.checker.busy else [HINT]
        if rows:
            usable = f"{0 if cohort is None else len(cohort)} of {len(rows)} pairs can be used"
            if cohort is not None:
                usable += f": {sum(map(len, cohort)):,} spots, {_count(len(cohort.patients), 'patient')}"
            waiting = sum(row.check is None for row in rows)
            lines.append(f"{usable}." + (f" Reading {waiting} more…" if waiting else ""))
        elif self.checker.busy:
            lines.append("Looking for pairs…")
        lines += self._ignored[:_MAX_REASONS]
        if len(self._ignored) > _MAX_REASONS:
            lines.append(f"… and {len(self._ignored) - _MAX_REASONS} more.")
        self.message.setText("\n".join([*lines, remark]).strip())
        self.message.setToolTip("\n".join(self._ignored))

    def _on_remove(self) -> None:
        places = self.table.chosen
        for place in places:
            self.checker.forget(self.table.pairs.rows[place].pair)
        self._ignored = ()
        self.table.pairs.remove(places)

    def _on_from_slides(self) -> None:
        viewer = self._viewer()
        slides = [] if viewer is None else [slide_of(layer) for layer in viewer.layers]
        paths = [slide.path for slide in slides if slide is not None]
        if paths:
            self.add(list(dict.fromkeys(paths)))
        else:
            self._ignored = ("No slide is open in this window.",)
            self._summarise()

    # Dialogs are opened without waiting for them, so that the viewer does not block.

    def _on_add_folder(self) -> None:
        dialog = self._file_dialog("Add the pairs of a folder")
        dialog.setFileMode(QFileDialog.FileMode.Directory)
        dialog.filesSelected.connect(self.add)
        dialog.open()

    def _on_add_pair(self) -> None:
        dialog = self._file_dialog("Choose a slide together with its h5ad")
        dialog.setFileMode(QFileDialog.FileMode.ExistingFiles)
        dialog.filesSelected.connect(self.add)
        dialog.open()

    def _on_save(self) -> None:
        dialog = self._file_dialog("Save the cohort as a manifest")
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setNameFilter("Cohort (*.yaml)")
        dialog.setDefaultSuffix("yaml")
        dialog.selectFile(f"{self._name}.yaml")
        dialog.fileSelected.connect(self.save_as)
        dialog.open()

    def _file_dialog(self, title: str) -> QFileDialog:
        self.dialog = dialog = QFileDialog(self, title)
        dialog.finished.connect(dialog.deleteLater)
        return dialog

    def save_as(self, name: str | Path) -> None:
        """Save the pairs that can be used as a manifest."""
        path, cohort = Path(name), self.cohort
        if path.suffix.lower() not in MANIFEST_SUFFIXES:
            path = path.with_name(f"{path.name}.yaml")
        if cohort is not None:
            self.checker.save(cohort, path)

    def _on_saved(self, outcome: Path | ChrepError) -> None:
        if isinstance(outcome, ChrepError):
            show_error(sentence(str(outcome)))
        self._summarise(sentence(str(outcome)) if isinstance(outcome, ChrepError) else f"Saved to {outcome}.")

    def dragEnterEvent(self, event: QDragEnterEvent | None) -> None:  # noqa: N802
        """Accept files and folders that are dragged over the panel."""
        data = None if event is None else event.mimeData()
        if event is not None and data is not None and data.hasUrls():
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent | None) -> None:  # noqa: N802
        """Add the pairs among the dropped files and folders."""
        data = None if event is None else event.mimeData()
        paths = [] if data is None else [url.toLocalFile() for url in data.urls() if url.isLocalFile()]
        if event is not None and paths:
            event.acceptProposedAction()
            self.add(paths)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _row(*buttons: QPushButton) -> QHBoxLayout:
    row = QHBoxLayout()
    row.setSpacing(4)
    for button in buttons:
        row.addWidget(button)
    return row


def _stop(checker: PairChecker, _destroyed: Any = None) -> None:
    checker.stop()
