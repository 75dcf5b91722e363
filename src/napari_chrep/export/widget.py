"""The export widget, in which tiles, genes, file format and file are chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari.utils.notifications import show_error
from qtpy.QtCore import QEvent
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QRadioButton,
    QWidget,
)

from chrep_model.analysis.signature import Signature, split_names
from chrep_model.errors import ChrepError, GeneError, PredictionError
from chrep_model.geometry import Rect
from chrep_model.slides.region import Region
from napari_chrep.canvas.drawing import Drawing
from napari_chrep.canvas.viewport import rect_in_view
from napari_chrep.export.exporter import FILE_KINDS, Exporter, ExportRequest
from napari_chrep.state.settings import RememberedGenes
from napari_chrep.state.viewers import kept_for
from napari_chrep.ui.dock_heights import TabWhenLow
from napari_chrep.ui.parts import heading, note, sentence, stack
from napari_chrep.ui.widgets import ScrollingWidget

_LEAST_HEIGHT = 400


class ExportWidget(ScrollingWidget):
    """Widget to choose the content and the path of an export; `Exporter` writes it.

    Attributes
    ----------
    dialog : QFileDialog or None
        The file dialog, once it was opened.
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer)
        self.exporter, self.drawing = kept_for(napari_viewer, Exporter), kept_for(napari_viewer, Drawing)
        self.dialog: QFileDialog | None = None
        self._folder: Path | None = None
        self._pending_export: tuple[ExportRequest, str] | None = None
        self._build()
        connections = self.connections
        connections.add(self.session.slide_changed, self._refresh)
        connections.add(self.session.bundle_changed, self._refresh)
        connections.add(self.session.gene_changed, self._refresh)
        connections.add(self.session.prediction_changed, self._refresh)
        connections.add(self.session.prediction_grew, self._refresh)
        connections.add(self.drawing.changed, self._refresh)
        connections.add(self.exporter.changed, self._on_exporter)
        TabWhenLow(self, _LEAST_HEIGHT)
        self._on_kind()
        self._refresh()

    def _build(self) -> None:
        column = self.add_column(12)
        self.all_tiles, self.in_view, self.in_shapes = (QRadioButton() for _ in range(3))
        self.in_view.setText("In view")
        column.addWidget(_choice("Tiles", self.all_tiles, self.in_view, self.in_shapes))
        self.shown, self.favourites, self.listed, self.all_genes = (QRadioButton() for _ in range(4))
        self.listed.setText("A list")
        self.names = QLineEdit()
        self.names.setPlaceholderText("ERBB2, CD3E, …")
        self.names.setToolTip("Names of genes, separated by blanks or commas; case does not matter")
        self.names.textEdited.connect(self._on_names)
        column.addWidget(
            _choice("Genes", self.shown, self.favourites, self.all_genes, self.listed, self.names)
        )
        self.kind = QComboBox()
        for key, kind in FILE_KINDS.items():
            self.kind.addItem(f"{kind.title} ({kind.suffix})", key)
        self.kind.currentIndexChanged.connect(self._on_kind)
        self.about = note()
        column.addWidget(_choice("Format", self.kind, self.about))
        self.export = QPushButton("Export…")
        self.export.clicked.connect(self._on_export)
        self.progress = QProgressBar()
        self.progress.setRange(0, 0)
        self.progress.setTextVisible(False)
        self.progress.setFixedHeight(4)
        policy = self.progress.sizePolicy()
        policy.setRetainSizeWhenHidden(True)  # so that other widgets do not move
        self.progress.setSizePolicy(policy)
        self.progress.hide()
        self.status = note()
        column.addLayout(stack(self.export, self.progress, self.status))
        column.addStretch(1)
        self.all_tiles.setChecked(True)
        self.shown.setChecked(True)

    def event(self, event: QEvent | None) -> bool:
        """Update the texts when the widget is shown or pointed at, as no signal reports new favourites."""
        if event is not None and event.type() in (QEvent.Type.Show, QEvent.Type.Enter):
            self._refresh()
        return super().event(event)

    def _refresh(self, _event: Any = None) -> None:
        session, shapes = self.session, self.drawing.layer
        tiles = 0 if session.prediction is None else len(session.prediction)
        self.all_tiles.setText(f"All predicted so far ({tiles:,})")
        self.in_shapes.setText(
            "In the selected shapes" + (" (none)" if shapes is None else f" ({shapes.name})")
        )
        known = () if session.bundle is None else session.bundle.genes
        self.shown.setText("The one on show" + (f" ({session.gene})" if session.gene else ""))
        self.favourites.setText(f"Favourites ({sum(n in known for n in RememberedGenes().favourites):,})")
        self.all_genes.setText(f"All ({len(known):,})")
        exporter = self.exporter
        words = "Cancelling…" if exporter.cancelling else "Cancel"
        self.export.setText(words if exporter.busy else "Export…")
        self.export.setEnabled(not exporter.cancelling)

    def _on_names(self, _text: str) -> None:
        self.listed.setChecked(True)

    def _on_kind(self, _place: int = 0) -> None:
        self.about.setText(FILE_KINDS[self.kind.currentData()].about)

    def _on_export(self) -> None:
        if self.exporter.busy:
            self.exporter.cancel()
            return
        try:
            export, remark = self._chosen_export()
            export.check()
        except ChrepError as error:
            show_error(sentence(str(error)))
            self.status.setText(sentence(str(error)))
            return
        self._pending_export = export, remark
        self.status.setText(remark)
        self._ask_for_file(export)

    def _chosen_export(self) -> tuple[ExportRequest, str]:
        """Return the request that is chosen, and a remark on genes that are not exported."""
        bundle, prediction = self.session.bundle, self.session.prediction
        if bundle is None or prediction is None or self.session.gene is None:
            raise PredictionError(
                "nothing is predicted yet", remedy="Choose a model and a slide in the slide explorer."
            )
        remark, genes = "", bundle.genes
        if self.shown.isChecked():
            genes = (self.session.gene,)
        elif not self.all_genes.isChecked():
            favourite = self.favourites.isChecked()
            names = RememberedGenes().favourites if favourite else split_names(self.names.text())
            if favourite and not names:
                raise GeneError("there are no favourites", remedy="Mark genes with the star in their table.")
            found = Signature.match("", names, bundle.panel, self.session.names)
            genes, remark = found.genes, found.remark
            if found.unknown:
                remark = f"{remark}\nNot in the model: {', '.join(found.unknown)}.".strip()
        return ExportRequest(prediction, self._area(), genes, self.kind.currentData()), remark

    def _area(self) -> Rect | Region | None:
        viewer, slide = self._viewer(), self.session.slide
        if self.all_tiles.isChecked() or viewer is None or slide is None:
            return None
        if self.in_shapes.isChecked():
            return self.drawing.region(slide)
        rect = rect_in_view(viewer, slide)
        if rect is None:
            raise PredictionError("no part of the slide is in view", remedy="Move it into view.")
        return rect

    def _ask_for_file(self, export: ExportRequest) -> None:
        """Ask for the file, in a dialog that does not block the viewer."""
        kind, slide = FILE_KINDS[export.kind], export.prediction.slide
        part = "" if kind.most != 1 else "_" + "".join(c if c.isalnum() else "-" for c in export.genes[0])
        self.dialog = dialog = QFileDialog(self, "Export")
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setNameFilter(f"{kind.title} (*{kind.suffix})")
        dialog.setDirectory(str(self._folder or slide.path.parent))
        dialog.selectFile(f"{slide.name}_prediction{part}{kind.suffix}")
        dialog.fileSelected.connect(self._on_file)
        dialog.finished.connect(dialog.deleteLater)
        dialog.open()

    def _on_file(self, name: str) -> None:
        if self._pending_export is None or self.exporter.busy:
            return
        export, _ = self._pending_export
        suffix, path = FILE_KINDS[export.kind].suffix, Path(name)
        if not path.name.endswith(suffix):
            path = path.with_name(path.name + suffix)
            if path.exists():  # the dialog only checked the name as typed
                show_error(f"{path}: there is a file of this name. Give the whole name to replace it.")
                return
        self._folder = path.parent
        self.exporter.write(export, path)

    def _on_exporter(self, message: str) -> None:
        remark = self._pending_export[1] if self._pending_export is not None else ""
        self.status.setText(f"{sentence(message)}\n{remark}".strip())
        self.progress.setVisible(self.exporter.busy)
        self.scroll_area.ensureWidgetVisible(self.status)
        self._refresh()


def _choice(title: str, *widgets: QWidget) -> QWidget:
    """Put widgets under a heading; radio buttons among them exclude each other."""
    box = QWidget()
    box.setLayout(stack(heading(title), *widgets))
    return box
