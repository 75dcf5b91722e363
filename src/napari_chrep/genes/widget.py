"""The Genes widget: search for a gene, show its maps, or show a list of genes as one map.

Showing another gene never runs the model, because a prediction holds the values of all genes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from napari.utils.notifications import show_error
from qtpy.QtCore import QEvent, QModelIndex, QObject, QSize, Qt
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QLineEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)
from superqt import QFlowLayout

from chrep_model.analysis.signature import split_names
from chrep_model.bundle import Bundle
from chrep_model.cohorts.aliases import GeneNames
from chrep_model.errors import GeneError
from napari_chrep.canvas.maps import BLEND
from napari_chrep.genes.gene_list import UNNAMED, GeneListDialog
from napari_chrep.genes.gene_names import GeneNameTable
from napari_chrep.genes.gene_table import (
    BLEND_KEYS,
    FAVOURITE,
    FAVOURITE_KEYS,
    GENE,
    Gene,
    GeneModel,
    GeneTable,
)
from napari_chrep.genes.map_panel import MapPanel
from napari_chrep.genes.variability import SpatialVariability
from napari_chrep.state.settings import RememberedGenes
from napari_chrep.state.viewers import kept_for, unwrapped
from napari_chrep.ui.dock_heights import LeaveRoom
from napari_chrep.ui.parts import heading, note, sentence
from napari_chrep.ui.widgets import ViewerWidget

_ENTER = (Qt.Key.Key_Return, Qt.Key.Key_Enter)


class GenesWidget(ViewerWidget):
    """Dock widget with the search field, the table of genes and the buttons for their maps."""

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer)
        viewer = unwrapped(napari_viewer)
        self.maps = MapPanel(viewer)
        self.remembered = RememberedGenes()
        self._genes: dict[str, Gene] = {}
        self.variability = kept_for(viewer, SpatialVariability)
        self.list_dialog = GeneListDialog(self, kept_for(viewer, GeneNameTable))
        self.list_dialog.accepted.connect(self._on_list)
        self._build()
        connections = self.connections
        connections.add(self.session.bundle_changed, self._on_bundle)
        connections.add(self.session.names_changed, self._on_bundle)
        connections.add(self.session.gene_changed, self._on_gene)
        connections.add(self.variability.changed, self._on_variability)
        self.variability.attach(self)
        LeaveRoom(self)
        self._on_bundle()

    def _build(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 8, 8, 8)
        layout.setSpacing(6)
        self.current = heading("", larger=True)
        self.advice = note()
        row = QHBoxLayout()
        row.addWidget(self.current, 1)
        row.addWidget(self.maps.side_by_side)
        layout.addLayout(row)
        layout.addWidget(self.advice)
        layout.addWidget(self.maps)
        self.search = QLineEdit()
        self.search.setClearButtonEnabled(True)
        self.search.textChanged.connect(self._on_typed)
        self.search.returnPressed.connect(self._on_return)
        self.search.installEventFilter(self)
        self.list_button = QPushButton("List…")
        self.list_button.setToolTip("Show several genes as one map: paste them, or open a text file")
        self.list_button.clicked.connect(self.list_dialog.open)
        row = QHBoxLayout()
        row.addWidget(self.search, 1)
        row.addWidget(self.list_button)
        layout.addLayout(row)
        self.recent = QWidget()
        self._recent_row = QFlowLayout(self.recent)
        self._recent_row.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.recent)
        self.message = note()
        layout.addWidget(self.message)
        self._build_table()
        layout.addWidget(self.view, 1)

    def _build_table(self) -> None:
        self.table = GeneModel()
        self.view = view = GeneTable(self.table)
        view.clicked.connect(self._on_clicked)
        view.installEventFilter(self)
        self.table.modelReset.connect(self._select_current)
        view.setContextMenuPolicy(Qt.ContextMenuPolicy.ActionsContextMenu)
        for text, keys, slot in (
            ("Favourite, or no more", FAVOURITE_KEYS, self._toggle_favourite),
            ("Blend with the gene on show", BLEND_KEYS, self._blend),
        ):
            action = self.addAction(text)
            if action is not None:
                action.setShortcut(keys)
                action.setShortcutContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
                action.triggered.connect(partial(self._on_gene_under_cursor, slot))
                view.addAction(action)

    def sizeHint(self) -> QSize:  # noqa: N802
        """Return a size with room for a dozen genes, which leaves enough room for the slide explorer."""
        return QSize(280, 480)

    def minimumSizeHint(self) -> QSize:  # noqa: N802
        """Return a fixed size, or the docks would jump whenever a text changes; see `LeaveRoom`."""
        return QSize(220, 310)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:  # noqa: N802
        """Move between search field and table with the arrow keys; show the selected gene on Enter."""
        if isinstance(event, QKeyEvent) and event.type() == QEvent.Type.KeyPress:
            key = event.key()
            if watched is self.search and key == Qt.Key.Key_Down and self.table.rowCount():
                self.view.setFocus()
                if not self.view.currentIndex().isValid() or self.search.text():
                    self.view.setCurrentIndex(self.table.index(0, GENE))
                return True
            if watched is self.view and key == Qt.Key.Key_Up and self.view.currentIndex().row() <= 0:
                self.search.setFocus()
                return True
            if watched is self.view and key in _ENTER and self.view.currentIndex().isValid():
                self._show(self.table.gene(self.view.currentIndex().row()).name)
                return True
        return super().eventFilter(watched, event)

    def _on_bundle(self) -> None:
        bundle = self.session.bundle
        self.search.setEnabled(bundle is not None)
        self.list_button.setEnabled(bundle is not None)
        known = 0 if bundle is None else len(bundle.genes)
        self.search.setPlaceholderText(f"Type one of {known:,} genes…" if known else "No genes yet")
        self.table.set_favourites(self.remembered.favourites)
        names = self.session.names
        genes = [] if bundle is None or names is None else genes_of(bundle, names)
        genes.sort(key=lambda gene: gene.name.upper())
        self._genes = {gene.name: gene for gene in genes}
        self.table.set_genes(genes)
        self._on_typed(self.search.text())
        self._on_gene()
        self._on_variability()

    def _on_variability(self) -> None:
        self.table.set_moran(self.variability.moran, complete=not self.variability.busy)

    def _on_gene(self) -> None:
        gene = self._genes.get(self.session.gene or "")
        self.current.setText("No gene yet" if gene is None else gene.name)
        self.advice.setText("" if gene is None else gene.advice)
        self._select_current()
        self._list_recent()

    def _list_recent(self) -> None:
        """Add one button for each recently shown gene."""
        while item := self._recent_row.takeAt(0):
            button = item.widget()
            if button is not None:
                button.deleteLater()
        recent = self.remembered.recent
        names = [name for name in recent if name in self._genes and name != self.session.gene]
        for name in names:
            button = QPushButton(name)
            button.setToolTip("Shown before")
            button.clicked.connect(partial(self._show, name))
            self._recent_row.addWidget(button)
        self.recent.setVisible(bool(names))

    def _select_current(self) -> None:
        """Select the best match of the search text, or without a text the current gene."""
        names = self.table.names()
        if self.search.text().strip() and names:
            self.view.setCurrentIndex(self.table.index(0, GENE))
        elif self.session.gene in names:
            index = self.table.index(names.index(self.session.gene), GENE)
            self.view.setCurrentIndex(index)
            self.view.scrollTo(index, QAbstractItemView.ScrollHint.PositionAtCenter)

    def _on_typed(self, text: str) -> None:
        self.table.set_needle(text)
        bundle, several = self.session.bundle, split_names(text)
        if bundle is None:
            self._show_text("Choose a model in the slide explorer.")
        elif len(several) > 1:
            self._show_text(f"Enter shows these {len(several):,} genes as one map.")
        elif self.table.rowCount() == 0 and (meant := self._meant(text)) is not None:
            self._show_text(f"Enter shows {meant}.")
        elif self.table.rowCount() == 0:
            self._show(text.strip())  # reports that the gene is unknown, with similar names
        else:
            found, known = self.table.rowCount(), len(bundle.genes)
            self._show_text("" if found == known else f"{found:,} of {known:,} genes")

    def _meant(self, text: str) -> str | None:
        """Return the gene that a text refers to by another spelling, such as an id with its version."""
        return None if self.session.names is None else self.session.names.find(text.strip())

    def _show_text(self, text: str) -> None:
        self.message.setText(text)
        self.message.setVisible(bool(text))

    def _on_return(self) -> None:
        """Show the first gene of the table, which is the best match; several names as one map."""
        text = self.search.text().strip()
        several = split_names(text)
        if len(several) > 1:
            self.show_list(UNNAMED, several)
            return
        names = self.table.names()
        self._show(names[0] if names else self._meant(text) or text)

    def _on_clicked(self, index: QModelIndex) -> None:
        gene = self.table.gene(index.row())
        if index.column() == FAVOURITE:
            self._toggle_favourite(gene.name)
        else:
            self._show(gene.name)

    def _on_gene_under_cursor(self, slot: Callable[[str], None], _checked: bool = False) -> None:
        index = self.view.currentIndex()
        if index.isValid():
            slot(self.table.gene(index.row()).name)

    def _toggle_favourite(self, name: str) -> None:
        self.remembered.toggle_favourite(name)
        self.table.set_favourites(self.remembered.favourites)

    def _show(self, name: str) -> None:
        """Show the maps of a gene, or the error if the model does not know it."""
        former = self.session.gene
        try:
            self.session.show_gene(name)
        except GeneError as error:
            self._show_text(sentence(str(error)))
            return
        for shown in (former, name):
            if shown is not None:
                self.remembered.add_recent(shown)
        self._list_recent()
        self.maps.bring_up_gene()

    def _blend(self, name: str) -> None:
        """Blend a gene with the current one."""
        self.session.set_second_gene(name)
        self.maps.bring_up(*BLEND)

    def show_list(self, title: str, names: Sequence[str]) -> None:
        """Show the mean of several genes as one map.

        If none of the genes is known, an error is shown and nothing changes.
        """
        try:
            self.session.show_signature(title, names)
        except GeneError as error:
            show_error(str(error))
            return
        signature = self.session.signature
        self._show_text("" if signature is None else signature.remark)
        self.maps.bring_up("signature")

    def _on_list(self) -> None:
        self.show_list(self.list_dialog.title, self.list_dialog.names)


def genes_of(bundle: Bundle, names: GeneNames) -> list[Gene]:
    """Return the genes of a bundle with their expected accuracy and their other names."""
    trust = bundle.trust
    if trust is None:
        return [Gene(name, others=others) for name, others in zip(bundle.genes, names.others, strict=True)]
    rows = zip(bundle.genes, trust.accuracy.tolist(), trust.predictable.tolist(), names.others, strict=True)
    return [Gene(*row) for row in rows]
