"""Show the scores of the new model and the one in use, and ask which one to keep."""

from __future__ import annotations

from psygnal import Signal
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from chrep_model.evaluation.model_comparison import ModelComparison, Score, Seen
from napari_chrep.ui.parts import heading, note
from napari_chrep.ui.tables import Cell, Column, RowTable, TextModel

_COLUMNS = [Column(title) for title in ("Section", "Spots", "In use", "New", "Change")]
_ROW_PX = 24
_MAX_ROWS = 8
_SEEN = {
    "section": ("✱", "The model in use was trained on this section: its score flatters it"),
    "patient": ("~", "The model in use was trained on another section of this patient"),
    "no": ("", "The model in use has not seen this section or its patient"),
}
_LEGEND: dict[Seen, str] = {
    "section": "in use was trained on it",
    "patient": "in use was trained on the same patient",
}


class OutcomePanel(QWidget):
    """Panel with a table of scores, and buttons to use, save or discard the new model.

    Attributes
    ----------
    used, saved, discarded : Signal()
        Emitted when the user presses the button.
    """

    used = Signal()
    saved = Signal()
    discarded = Signal()

    def __init__(self) -> None:
        super().__init__()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        self.how, self.verdict = note(), note()
        self.scores = TextModel(_COLUMNS)
        self.table = RowTable(self.scores, _ROW_PX)
        self.table.setShowGrid(True)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        self.table.setToolTip(
            "Mean PCC over the genes that both models know; MSE in the tooltips of the cells"
        )
        self.use, self.save, self.discard = (QPushButton() for _ in range(3))
        self.use.setText("Use this model")
        self.use.setToolTip("It takes the place of the model in use, which stays on disk")
        self.save.setText("Save as…")
        self.save.setToolTip("Keep it on disk, and go on with the model in use")
        self.discard.setText("Discard")
        self.discard.setToolTip("Delete it; everything is as it was")
        buttons = QHBoxLayout()
        for button, signal in (
            (self.use, self.used),
            (self.save, self.saved),
            (self.discard, self.discarded),
        ):
            button.clicked.connect(lambda _checked=False, signal=signal: signal.emit())
            buttons.addWidget(button)
        column.addWidget(heading("New model against the one in use"))
        column.addWidget(self.table)
        column.addWidget(self.verdict)
        column.addWidget(self.how)
        column.addLayout(buttons)

    def show_comparison(self, comparison: ModelComparison) -> None:
        """Show the scores of both models per section, their means, and a verdict in words."""
        rows, mean = comparison.rows, comparison.mean()
        cells = []
        for row in rows:
            mark, why = _SEEN[row.seen]
            cells.append(_cells(f"{row.section} {mark}".strip(), row.spots, row.in_use, row.new, why))
        if mean:
            spots = sum(row.spots for row in rows)
            cells.append(_cells("Mean", spots, *mean, "Over the sections that have both scores"))
        self.scores.set_rows(cells)
        self.table.setVisible(bool(rows))
        self.table.setFixedHeight((min(len(cells), _MAX_ROWS) + 1) * _ROW_PX + 10)
        self.how.setText(_how(comparison))
        self.verdict.setText(_verdict(comparison))
        self.verdict.setVisible(bool(rows))


def _cells(name: str, spots: int, old: Score | None, new: Score, tip: str) -> list[Cell]:
    """Return a row of the table, for a section or the mean: spots, and scores of both models."""
    change = "" if old is None else f"{new.pcc - old.pcc:+.3f}"
    return [
        Cell(name, tip),
        Cell(f"{spots:,}"),
        Cell("–" if old is None else f"{old.pcc:.3f}", _mse(old)),
        Cell(f"{new.pcc:.3f}", _mse(new)),
        Cell(change, "PCC of the new model less that of the one in use"),
    ]


def _how(comparison: ModelComparison) -> str:
    """Return a text on how the scores were computed, and what the marks in the table mean."""
    genes = sorted({row.genes for row in comparison.rows})
    span = (
        f"{genes[0]:,}"
        if genes and genes[0] == genes[-1]
        else "–".join(f"{n:,}" for n in genes[:: len(genes) - 1 or 1])
    )
    told = f"Mean PCC over {span} genes that both know. " if genes else ""
    marks = {row.seen for row in comparison.rows}
    legend = " ".join(f"{_SEEN[mark][0]} {short}." for mark, short in _LEGEND.items() if mark in marks)
    return f"{told}{comparison.how} {legend}".strip()


def _verdict(comparison: ModelComparison) -> str:
    """Return a summary of the scores; on sections that the model in use has not seen, if there are any."""
    fair = comparison.mean(fair=True)
    mean = fair or comparison.mean()
    if mean is None:
        return ""
    old, new = mean
    better = sum(r.in_use is not None and r.new.pcc > r.in_use.pcc for r in comparison.rows)
    known = sum(r.in_use is not None for r in comparison.rows)
    where = (
        "On sections that the model in use has not seen"
        if fair
        else "On sections that the model in use has seen"
    )
    return (
        f"{where}, PCC goes from {old.pcc:.3f} to {new.pcc:.3f} and MSE from {old.mse:.3f} to {new.mse:.3f}. "
        f"The new one has the higher PCC on {better} of {known}."
    )


def _mse(score: Score | None) -> str:
    return "No gene in common" if score is None else f"MSE {score.mse:.4f} (log10-spot units)"
