"""Show in words and numbers how a tile's predicted value is computed from its terms."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QGridLayout, QLabel, QVBoxLayout, QWidget

from chrep_model.analysis.explanation import AdjustableSettings, Explanation
from chrep_model.prediction.prediction import LOWEST
from napari_chrep.ui.parts import heading, note

#: Title and tooltip of each term of an explanation.
_TERMS = {
    "head": ("Head", "What the network reads from the picture alone: the raw map"),
    "estimate": ("Estimate", "The weighted mean of what was measured at the neighbours"),
    "correction": ("Correction", "The estimate plus what a network adds, which learned what it misses"),
    "linear": ("Linear", "Ridge regression on the same features of the picture"),
    "trees": ("Trees", "A forest on the same features of the picture"),
    "site": ("Site", "What all of these are off by at the site where the model was calibrated"),
    "ridge": ("Ridge regression", "Linear in the features of the picture"),
    "mean": ("Training mean", "The same for every tile"),
    "hage_like": ("Network", "Genes that read the picture by attention"),
}
_COLUMNS = ("", "says", "× weight", "adds")


class Arithmetic(QWidget):
    """Panel with a sentence on a tile's value, and a table of the terms that add up to it."""

    def __init__(self) -> None:
        super().__init__()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(heading("How it adds up"))
        self.words = note()
        layout.addWidget(self.words)
        self._table = QWidget()
        self._grid = QGridLayout(self._table)
        self._grid.setContentsMargins(2, 2, 2, 2)
        self._grid.setHorizontalSpacing(10)
        self._grid.setVerticalSpacing(1)
        self._grid.setColumnStretch(0, 1)
        layout.addWidget(self._table)
        self.cells: list[list[QLabel]] = []

    def show_explanation(self, why: Explanation, fitted: AdjustableSettings | None, shown: float) -> None:
        """Show the sentence and the terms of an explanation.

        Parameters
        ----------
        why : Explanation
            The explanation, computed with the k and temperature that the user chose.
        fitted : AdjustableSettings or None
            The model's own k and temperature; None if it has none.
        shown : float
            The value on the heatmap, computed with the model's own k and temperature.
        """
        self.words.setText(" ".join([in_words(why), *tried_in_words(why, fitted, shown)]))
        rows: list[tuple[str, ...]] = [_COLUMNS, ("Mean of the gene", "", "", number(why.mean))]
        tips = ["", "Over all training spots"]
        for term in why.terms:
            name, tip = _TERMS.get(term.name, (term.name.capitalize(), ""))
            rows.append((name, number(term.answer), number(term.weight), signed(term.contribution)))
            tips.append(tip)
        if why.total < LOWEST:
            rows.append(("Sum", "", "", number(why.total)))
            tips.append("No expression is below 0: the heatmap has 0 instead")
        rows.append((why.variant.capitalize(), "", "", number(why.value)))
        tips.append("The value of the heatmap, log10-spot")
        self._fill(rows, tips)

    def text(self) -> list[list[str]]:
        """Return the text of the table's cells, row by row."""
        return [[cell.text() for cell in row] for row in self.cells]

    def _fill(self, rows: list[tuple[str, ...]], tips: list[str]) -> None:
        while len(self.cells) > len(rows):
            for cell in self.cells.pop():
                self._grid.removeWidget(cell)
                cell.deleteLater()
        while len(self.cells) < len(rows):
            self.cells.append([self._cell(len(self.cells), column) for column in range(len(_COLUMNS))])
        for place, (row, tip) in enumerate(zip(rows, tips, strict=True)):
            for cell, text in zip(self.cells[place], row, strict=True):
                cell.setText(text)
                cell.setToolTip(tip)
                cell.setStyleSheet("font-weight: bold;" if place == len(rows) - 1 else "")

    def _cell(self, row: int, column: int) -> QLabel:
        label = QLabel()
        label.setTextFormat(Qt.TextFormat.PlainText)
        side = Qt.AlignmentFlag.AlignLeft if column == 0 else Qt.AlignmentFlag.AlignRight
        self._grid.addWidget(label, row, column, side)
        return label


def in_words(why: Explanation) -> str:
    """Return a sentence or two on where a tile's value comes from."""
    if not why.from_neighbours:
        return (
            f"{why.method} computes this value from the picture alone: it does not come from neighbours. "
            "The training spots that look most alike are listed for comparison only."
        )
    count = len(why.neighbours)
    if len(why.terms) == 1:
        return (
            f"The value is the weighted mean of what was measured at {count} training spots that look alike."
        )
    return (
        "The value is the gene's mean, plus what each part takes it above or below that mean times its "
        f"weight. Estimate and correction come from {count} training spots that look alike."
    )


def tried_in_words(why: Explanation, fitted: AdjustableSettings | None, shown: float) -> list[str]:
    """Return a sentence on k and temperature if they differ from the model's, else an empty list."""
    if fitted is None or (why.k, why.temperature) == (fitted.k, fitted.temperature):
        return []
    return [
        f"This is with k = {why.k} and temperature {why.temperature:g}; the heatmap keeps the model's own, "
        f"k = {fitted.k} and {fitted.temperature:g}, and says {number(shown)}."
    ]


def number(value: float) -> str:
    """Return a number as text with three decimals and a true minus sign."""
    return f"{value:.3f}".replace("-", "−")


def signed(value: float) -> str:
    """Return a contribution as text with three decimals, always with its sign."""
    return f"{value:+.3f}".replace("-", "−")
