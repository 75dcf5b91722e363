"""Show a model's genes in a table that can be searched and sorted.

It is fast enough to filter thousands of genes at every key press.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qtpy.QtCore import QModelIndex, QObject, Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QHeaderView

from napari_chrep.ui.tables import Column, RowModel, RowTable

GENE, ACCURACY, MORAN, FAVOURITE = range(4)
FAVOURITE_KEYS, BLEND_KEYS = "Ctrl+D", "Ctrl+B"
_COLUMNS = (
    Column("Gene", "The genes of the model; those in grey cannot be predicted"),
    Column(
        "Accur.",
        "Correlation to expect on a new section: the mean over training sections that were held out",
    ),
    Column(
        "Moran",
        "Moran's I of the predicted map on this slide, between neighbouring tiles: near 0 as if at random, "
        "near 1 in regions. Computed in the background once a run has ended.",
    ),
    Column("★", f"Your favourites, kept for all models; {FAVOURITE_KEYS} marks a gene, and so does a click"),
)
# Rank of a gene that does not match the search text.
_NO_MATCH = 5
# Maximum number of other names in a tooltip.
_MAX_NAMES = 8
_ROW_PADDING, _COLUMN_PADDING = 8, 16
_BLEND_TIP = f"{BLEND_KEYS}, or a right click, blends it with the gene on show."
# Grey halfway between napari's dark and light backgrounds, so that text looks disabled on both.
_GREY = QColor(128, 128, 128)


@dataclass(frozen=True)
class Gene:
    """One row of the table.

    Attributes
    ----------
    name : str
        Name of the gene in the model.
    accuracy : float
        Correlation to expect on a new section; NaN if the model does not say.
    predictable : bool
        Whether `accuracy` is above zero by more than chance.
    others : tuple of str
        Other names of the gene.
    """

    name: str
    accuracy: float = math.nan
    predictable: bool = True
    others: tuple[str, ...] = ()

    @property
    def advice(self) -> str:
        """A sentence on how far to trust the predicted values of the gene."""
        if not self.predictable:
            return "Cannot be predicted: it did not follow the measurement on held-out sections."
        if math.isnan(self.accuracy):
            return "Accuracy unknown: the model does not say."
        return f"Correlation to expect: {self.accuracy:.2f}."


class GeneModel(RowModel):
    """Table model of the genes that match the search text, the best matches first.

    It filters and sorts itself, because Qt's proxy model would call Python for every comparison.
    """

    columns = _COLUMNS
    rows: list[int]  # indices into all genes

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._genes: list[Gene] = []
        self._upper: list[str] = []
        self._others: list[str] = []  # per gene: its other names, each between line breaks
        self._moran: dict[str, float] = {}
        self._favourites: frozenset[str] = frozenset()
        self._needle = ""
        self._column, self._descending = -1, False  # -1: in the given order
        self.rows = []

    def set_genes(self, genes: Sequence[Gene]) -> None:
        """Replace the genes; they are listed in this order until a column is sorted."""
        self._genes = list(genes)
        self._upper = [gene.name.upper() for gene in genes]
        self._others = ["\n{}\n".format("\n".join(g.others)).upper() if g.others else "" for g in genes]
        self._arrange()

    def set_needle(self, text: str) -> None:
        """Show only genes with this text in one of their names; case does not matter."""
        self._needle = text.strip().upper()
        self._arrange()

    def set_favourites(self, names: Iterable[str]) -> None:
        """Mark these genes as favourites.

        The rows are not sorted at once, or they would move away under the mouse.
        """
        self._favourites = frozenset(names)
        self.refresh_columns(FAVOURITE, FAVOURITE)

    def set_moran(self, moran: Mapping[str, float], *, complete: bool) -> None:
        """Show Moran's I of the genes computed so far.

        A table sorted by it is sorted again only when it is `complete`.
        """
        self._moran = dict(moran)
        if complete and self._column == MORAN:
            self._arrange()
        else:
            self.refresh_columns(MORAN, MORAN)

    def other_name(self, row: int) -> str:
        """Return the other name by which a row matches the search text; empty if its own name matches."""
        place = self.rows[row]
        if not self._needle or self._needle in self._upper[place]:
            return ""
        matching = [name for name in self._genes[place].others if self._needle in name.upper()]
        return min(
            matching, key=lambda name: (not name.upper().startswith(self._needle), len(name)), default=""
        )

    def gene(self, row: int) -> Gene:
        """Return the gene in a row."""
        return self._genes[self.rows[row]]

    def names(self) -> list[str]:
        """Return the names of the listed genes, from top to bottom."""
        return [self._genes[i].name for i in self.rows]

    def _arrange(self) -> None:
        """Filter and sort the rows."""
        self.beginResetModel()
        needle = self._needle
        rank = self._ranks(needle)
        rows = [i for i, r in enumerate(rank) if r < _NO_MATCH]
        if self._column >= 0:
            rows.sort(key=self._sort_key(), reverse=self._descending)
        rows.sort(key=rank.__getitem__)
        self.rows = rows
        self.endResetModel()

    def _ranks(self, needle: str) -> list[int]:
        """Return the rank of each gene for a search text: 0 for an equal name, `_NO_MATCH` for no match.

        Between them come names that begin with the text and names that contain it, for each of the two the
        gene's own name before its other names.
        """
        if not needle:
            return [0] * len(self._genes)
        whole, begin = f"\n{needle}\n", f"\n{needle}"
        return [
            (0 if name == needle else 1)
            if name.startswith(needle)
            else (0 if whole in others else 2 if begin in others else 3 if needle in name else 4)
            if needle in others
            else 3
            if needle in name
            else _NO_MATCH
            for name, others in zip(self._upper, self._others, strict=True)
        ]

    def _sort_key(self) -> Callable[[int], Any]:
        """Return a function from index of a gene to its value in the sorted column."""
        if self._column == GENE:
            return self._upper.__getitem__
        if self._column == FAVOURITE:
            return lambda i: self._genes[i].name in self._favourites
        if self._column == MORAN:
            return lambda i: _sortable(self._moran.get(self._genes[i].name, math.nan))
        return lambda i: _sortable(self._genes[i].accuracy)

    # Methods that Qt calls.

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """Sort by a column; better matches of the search text stay on top."""
        self._column, self._descending = column, order == Qt.SortOrder.DescendingOrder
        self._arrange()

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return a cell's content for a role."""
        gene = self.gene(index.row())
        if role == Qt.ItemDataRole.DisplayRole:
            return self._text(gene, index)
        if role == Qt.ItemDataRole.ToolTipRole:
            return self._tip(gene, index.column())
        if role == Qt.ItemDataRole.ForegroundRole and not gene.predictable:
            return _GREY
        if role == Qt.ItemDataRole.TextAlignmentRole and index.column() != GENE:
            return Qt.AlignmentFlag.AlignCenter
        return None

    def _text(self, gene: Gene, index: QModelIndex) -> str:
        if index.column() == GENE:
            other = self.other_name(index.row())
            return f"{gene.name} ({other})" if other else gene.name
        if index.column() == ACCURACY:
            return "–" if math.isnan(gene.accuracy) else f"{gene.accuracy:.2f}"
        if index.column() == MORAN:
            moran = self._moran.get(gene.name)
            return "" if moran is None else "–" if math.isnan(moran) else f"{moran:.2f}".replace("-", "−")
        return "★" if gene.name in self._favourites else "☆"

    def _tip(self, gene: Gene, column: int) -> str:
        if column in (MORAN, FAVOURITE):
            return _COLUMNS[column].tip
        also = [f"Also {', '.join(gene.others[:_MAX_NAMES])}."] if gene.others else []
        return "\n".join([gene.advice, *also, _BLEND_TIP])

    def headerData(  # noqa: N802
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        """Return title, tooltip or initial sort order of a column; all but the names start descending."""
        if role == Qt.ItemDataRole.InitialSortOrderRole and orientation == Qt.Orientation.Horizontal:
            return Qt.SortOrder.AscendingOrder if section == GENE else Qt.SortOrder.DescendingOrder
        return super().headerData(section, orientation, role)


class GeneTable(RowTable):
    """Table view of the genes; a click on a header sorts it."""

    def __init__(self, genes: GeneModel) -> None:
        super().__init__(genes, padding=_ROW_PADDING)
        self.select_one()
        self.setTabKeyNavigation(False)  # Tab leaves the table, for users without a mouse
        self.setMinimumHeight(70)
        self.down.setMinimumSectionSize(self.down.defaultSectionSize())
        self.across.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)  # no room reserved for sort arrows
        self.across.setSectionResizeMode(GENE, QHeaderView.ResizeMode.Stretch)
        self.across.setMinimumSectionSize(_COLUMN_PADDING)
        for column in (ACCURACY, MORAN, FAVOURITE):
            width = self.across.fontMetrics().horizontalAdvance(_COLUMNS[column].title)
            self.across.resizeSection(column, width + _COLUMN_PADDING)
        self.across.setSortIndicator(GENE, Qt.SortOrder.AscendingOrder)
        self.setSortingEnabled(True)


def _sortable(value: float) -> float:
    """Return a value to sort by; NaN becomes minus infinity, the last in descending order."""
    return -math.inf if math.isnan(value) else value
