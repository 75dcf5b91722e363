"""Show the pairs of slide and counts of a new cohort in a table, one row each."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from psygnal import Signal
from qtpy.QtCore import QModelIndex, QObject, Qt
from qtpy.QtWidgets import QHeaderView

from chrep_model.cohorts.checks.names import compare_genes
from chrep_model.cohorts.findings import Finding, Level, worst
from chrep_model.cohorts.matching import matched
from chrep_model.cohorts.pair_check import PairCheck
from chrep_model.cohorts.pairing import Pair
from chrep_model.cohorts.section import Section
from napari_chrep.ui.tables import RIGHT, Column, RowModel, RowTable

SECTION, PATIENT, SPOTS, TISSUE, SCALE = range(5)
_COLUMNS = (
    Column("Section", "Name of the section, and whether it can be used"),
    Column(
        "Patient",
        "Whose tissue it is; double click to change it. Sections of one patient are held out together.",
    ),
    Column("Spots", "Measured spots"),
    Column("Tissue", "Share of the spots that lie on tissue"),
    Column("µm/px", "µm per px of the full-resolution image; double click to change it"),
)
#: Texts for the levels of findings, with signs instead of colours to tell them apart.
VERDICTS: dict[Level | None, str] = {
    "ok": "✓ good",
    "warning": "▲ check",
    "error": "✗ left out",
    None: "… reading",
}
_ROW_PX = 40


@dataclass
class PairRow:
    """One pair, the result of its check, and findings from comparing it with the others.

    Attributes
    ----------
    pair : Pair
        Slide and counts.
    check : PairCheck or None
        Result of the check; None while the pair is being read.
    beside : tuple of Finding
        Findings from comparing the pair with the other pairs and with the model in use.
    """

    pair: Pair
    check: PairCheck | None = None
    beside: tuple[Finding, ...] = ()

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings on the pair."""
        return (*self.beside, *(() if self.check is None else self.check.findings))

    @property
    def verdict(self) -> Level | None:
        """Worst level of the findings; None while the pair is being read."""
        return None if self.check is None else worst(self.findings)


class PairModel(RowModel):
    """Table model of the pairs and their checks; patient and scale can be edited.

    Attributes
    ----------
    corrected : Signal(Pair)
        Emitted with a pair that the user edited, and that has to be checked again.
    judged : Signal()
        Emitted when the set of pairs that can be used may have changed.
    """

    corrected = Signal(object)
    judged = Signal()

    columns = _COLUMNS
    rows: list[PairRow]

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.rows = []
        self._model_genes: tuple[str, ...] = ()
        # Results of comparing a section's genes with another section's or (None) the model's. They are kept,
        # because comparing tens of thousands of names for every new pair would be slow.
        self._compared: dict[tuple[Section, Section | None], Finding | None] = {}

    def add(self, pair: Pair) -> None:
        """Append a row for a pair that is not checked yet."""
        place = len(self.rows)
        self.beginInsertRows(QModelIndex(), place, place)
        self.rows.append(PairRow(pair))
        self.endInsertRows()

    def remove(self, places: Collection[int]) -> None:
        """Remove the rows with these indices."""
        for place in sorted(places, reverse=True):
            self.beginRemoveRows(QModelIndex(), place, place)
            del self.rows[place]
            self.endRemoveRows()
        self._judge()

    def set_check(self, check: PairCheck) -> None:
        """Set the result of a check in its pair's row, unless the pair was removed meanwhile."""
        for row in self.rows:
            if row.pair == check.pair:
                row.check = check
                self._judge()

    def set_model_genes(self, genes: tuple[str, ...]) -> None:
        """Compare the genes of all pairs with those of a model."""
        self._model_genes, self._compared = genes, {}
        self._judge()

    def _judge(self) -> None:
        """Compare each pair's gene names with the most common naming among the pairs, and the model's."""
        sections = [row.check.section for row in self.rows if row.check and row.check.section]
        self._compared = {
            key: finding
            for key, finding in self._compared.items()
            if key[0] in sections and (key[1] is None or key[1] in sections)
        }
        alike: list[list[Section]] = []
        for section in sections:
            group = next((group for group in alike if self._compare(section, group[0]) is None), None)
            if group is None:
                alike.append([section])
            else:
                group.append(section)
        most = max(alike, key=len, default=[])
        for row in self.rows:
            this = None if row.check is None else row.check.section
            found = () if this is None else (self._compare(this, most[0]), self._compare(this, None))
            row.beside = tuple(finding for finding in found if finding is not None)
        self.refresh_columns(0, len(_COLUMNS) - 1)
        self.judged.emit()

    def _compare(self, section: Section, other: Section | None) -> Finding | None:
        """Compare the genes of a section with another section's, or with the model's if `other` is None."""
        if section is other or (other is None and not self._model_genes):
            return None
        key = (section, other)
        if key not in self._compared:
            self._compared[key] = (
                self._compare_names(section, self._model_genes, None, "the model in use", "warning")
                if other is None
                else self._compare_names(
                    section, other.genes, other.gene_ids, f"section {other.name}", "error"
                )
            )
        return self._compared[key]

    @staticmethod
    def _compare_names(
        section: Section, genes: tuple[str, ...], ids: tuple[str, ...] | None, whose: str, level: Level
    ) -> Finding | None:
        return compare_genes(matched(section, genes, ids, whose).genes, genes, whose, level=level)

    # Methods that Qt calls.

    def flags(self, index: QModelIndex) -> Qt.ItemFlag:
        """Return a cell's flags; patient and scale can be edited."""
        flags = super().flags(index)
        return flags | Qt.ItemFlag.ItemIsEditable if index.column() in (PATIENT, SCALE) else flags

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return a cell's content for a role."""
        row, column = self.rows[index.row()], index.column()
        if role == Qt.ItemDataRole.DisplayRole:
            return _text(row, column)
        if role == Qt.ItemDataRole.EditRole:
            return _text(row, column).replace("–", "")
        if role == Qt.ItemDataRole.TextAlignmentRole and column >= SPOTS:
            return RIGHT
        if role == Qt.ItemDataRole.ToolTipRole:
            return f"{row.pair.slide}\n{row.pair.counts}\n{_COLUMNS[column].tip}"
        return None

    def setData(self, index: QModelIndex, value: Any, role: int = Qt.ItemDataRole.EditRole) -> bool:  # noqa: N802
        """Change the patient or scale of a pair, which is checked again if needed."""
        row, text = self.rows[index.row()], str(value).strip()
        if not text or text == self.data(index, Qt.ItemDataRole.EditRole):
            return False
        if index.column() == PATIENT:
            row.pair = replace(row.pair, patient=text)
            if row.check is None:
                self.corrected.emit(row.pair)
            else:
                row.check = row.check.of_patient(text)
                self._judge()
            return True
        try:
            um_per_px = float(text.replace(",", "."))
        except ValueError:
            return False
        row.pair, row.check = replace(row.pair, um_per_px=um_per_px), None
        self._judge()
        self.corrected.emit(row.pair)
        return True


def _text(row: PairRow, column: int) -> str:
    check, section = row.check, None if row.check is None else row.check.section
    if column == SECTION:
        return f"{row.pair.name}\n{VERDICTS[row.verdict]}"
    if column == PATIENT:
        return row.pair.patient or ("–" if section is None else section.patient)
    if column == SCALE:
        given = row.pair.um_per_px if section is None else section.mpp
        return "–" if given is None else f"{given:.3g}"
    if check is None or check.overlay is None or check.on_tissue is None:
        return "–"
    return f"{len(check.overlay.xy):,}" if column == SPOTS else f"{check.on_tissue:.0%}"


class PairTable(RowTable):
    """Table view of the pairs of a cohort."""

    def __init__(self) -> None:
        self.pairs = PairModel()
        super().__init__(self.pairs, _ROW_PX)
        self.scroll_smoothly()
        self.setMinimumSize(340, 4 * _ROW_PX)
        self.across.setMinimumSectionSize(30)
        self.across.setSectionResizeMode(PATIENT, QHeaderView.ResizeMode.Interactive)
        self.across.resizeSection(PATIENT, 84)

    @property
    def chosen(self) -> list[int]:
        """Indices of the selected rows, in ascending order."""
        selection = self.selectionModel()
        return [] if selection is None else sorted(index.row() for index in selection.selectedRows())
