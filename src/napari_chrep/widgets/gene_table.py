"""The table of genes: what is typed filters it, a header sorts it; thousands of rows keep up with typing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, QObject, Qt
from qtpy.QtGui import QColor

GENE, ACCURACY, FAVOURITE = range(3)
FAVOURITE_KEYS, BLEND_KEYS = "Ctrl+D", "Ctrl+B"
_HEADERS = ("Gene", "Accuracy", "★")
_HEADER_TIPS = (
    "The genes of the model; those in grey cannot be predicted",
    "Correlation to expect on a new section: the mean over training sections that were held out",
    f"Your favourites, kept for all models; {FAVOURITE_KEYS} marks a gene, and so does a click",
)
_BLEND_TIP = f"{BLEND_KEYS}, or a right click, blends it with the gene on show."
# Halfway between napari's dark and light backgrounds, so it reads as greyed out on both.
_GREY = QColor(128, 128, 128)


@dataclass(frozen=True)
class Gene:
    """One row of the table.

    Attributes
    ----------
    name : str
        As the model spells it.
    accuracy : float
        Correlation to expect on a new section; NaN where the model does not say.
    predictable : bool
        Whether that lies above zero by more than chance.
    """

    name: str
    accuracy: float = math.nan
    predictable: bool = True

    @property
    def advice(self) -> str:
        """Say how far to trust it."""
        if not self.predictable:
            return "Cannot be predicted: it did not follow the measurement on held-out sections."
        if math.isnan(self.accuracy):
            return "Accuracy unknown: the model does not say."
        return f"Correlation to expect: {self.accuracy:.2f}."


class GeneTable(QAbstractTableModel):
    """Genes that contain what was typed; those that begin with it come first.

    Filtered and sorted here rather than by a proxy: Python then sorts a list of numbers, where Qt would call
    back for every comparison.
    """

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._genes: list[Gene] = []
        self._upper: list[str] = []
        self._favourites: frozenset[str] = frozenset()
        self._needle = ""
        self._column, self._descending = -1, False  # as given
        self._rows: list[int] = []

    def set_genes(self, genes: Sequence[Gene]) -> None:
        """Take other genes, in the order in which they are listed."""
        self._genes = list(genes)
        self._upper = [gene.name.upper() for gene in genes]
        self._arrange()

    def set_needle(self, text: str) -> None:
        """Filter by what was typed; case does not matter."""
        self._needle = text.strip().upper()
        self._arrange()

    def set_favourites(self, names: Iterable[str]) -> None:
        """Mark these genes; rows move at the next sort only, or they would slip away under the mouse."""
        self._favourites = frozenset(names)
        if self._rows:
            self.dataChanged.emit(self.index(0, FAVOURITE), self.index(len(self._rows) - 1, FAVOURITE))

    def gene(self, row: int) -> Gene:
        """Return the gene in a row."""
        return self._genes[self._rows[row]]

    def names(self) -> list[str]:
        """Return the listed genes from top to bottom."""
        return [self._genes[i].name for i in self._rows]

    def _arrange(self) -> None:
        self.beginResetModel()
        needle = self._needle
        rank = [0 if name.startswith(needle) else 1 if needle in name else 2 for name in self._upper]
        rows = [i for i, r in enumerate(rank) if r < 2]
        if self._column >= 0:
            rows.sort(key=self._sort_key(), reverse=self._descending)
        rows.sort(key=rank.__getitem__)
        self._rows = rows
        self.endResetModel()

    def _sort_key(self) -> Callable[[int], Any]:
        if self._column == GENE:
            return self._upper.__getitem__
        if self._column == FAVOURITE:
            return lambda i: self._genes[i].name in self._favourites
        return lambda i: -math.inf if math.isnan(self._genes[i].accuracy) else self._genes[i].accuracy

    # What Qt asks for.

    def rowCount(self, parent: QModelIndex | None = None) -> int:  # noqa: N802
        """Return the number of genes that are listed."""
        return 0 if parent is not None and parent.isValid() else len(self._rows)

    def columnCount(self, parent: QModelIndex | None = None) -> int:  # noqa: N802
        """Return the number of columns."""
        return 0 if parent is not None and parent.isValid() else len(_HEADERS)

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """Sort by a column; what begins with the typed text stays on top."""
        self._column, self._descending = column, order == Qt.SortOrder.DescendingOrder
        self._arrange()

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return what a cell shows."""
        gene = self.gene(index.row())
        if role == Qt.ItemDataRole.DisplayRole:
            if index.column() == GENE:
                return gene.name
            if index.column() == ACCURACY:
                return "–" if math.isnan(gene.accuracy) else f"{gene.accuracy:.2f}"
            return "★" if gene.name in self._favourites else "☆"
        if role == Qt.ItemDataRole.ToolTipRole:
            return _HEADER_TIPS[FAVOURITE] if index.column() == FAVOURITE else f"{gene.advice}\n{_BLEND_TIP}"
        if role == Qt.ItemDataRole.ForegroundRole and not gene.predictable:
            return _GREY
        if role == Qt.ItemDataRole.TextAlignmentRole and index.column() != GENE:
            return Qt.AlignmentFlag.AlignCenter
        return None

    def headerData(  # noqa: N802
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        """Return the title of a column; accuracy and favourites are sorted from the top first."""
        if orientation != Qt.Orientation.Horizontal:
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return _HEADERS[section]
        if role == Qt.ItemDataRole.ToolTipRole:
            return _HEADER_TIPS[section]
        if role == Qt.ItemDataRole.InitialSortOrderRole:
            return Qt.SortOrder.AscendingOrder if section == GENE else Qt.SortOrder.DescendingOrder
        return None
