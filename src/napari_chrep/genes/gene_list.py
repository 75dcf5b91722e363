"""Ask the user for a list of genes, which is then shown as one map."""

from __future__ import annotations

from pathlib import Path

from napari.utils.notifications import show_error
from qtpy.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QTextEdit,
    QVBoxLayout,
    QWidget,
)

from chrep_model.analysis.signature import read_names, split_names
from chrep_model.errors import GeneError
from napari_chrep.genes.gene_names import GeneNameTable
from napari_chrep.ui.parts import Connections, note

#: Name of a list for which the user entered no name.
UNNAMED = "Signature"


class GeneListDialog(QDialog):
    """Dialog for the name and the genes of a list, typed, pasted or read from a text file.

    Parameters
    ----------
    parent : QWidget
        The window above which the dialog opens.
    gene_names : GeneNameTable
        Reads a table of gene names if the user opens one.
    """

    def __init__(self, parent: QWidget, gene_names: GeneNameTable) -> None:
        super().__init__(parent)
        self.gene_names = gene_names
        self.setWindowTitle("Genes as one map")
        layout = QVBoxLayout(self)
        about = note(
            "The map shows the mean of the genes, each in standard deviations above its average over the "
            "training spots. Case does not matter, and names like HER2 or CD20 are understood."
        )
        layout.addWidget(about)
        row = QHBoxLayout()
        row.addWidget(QLabel("Name"))
        self.name = QLineEdit()
        self.name.setPlaceholderText(UNNAMED)
        row.addWidget(self.name, 1)
        layout.addLayout(row)
        self.text = QTextEdit()
        self.text.setPlaceholderText("Paste genes here, separated by blanks, commas or lines")
        self.text.setAcceptRichText(False)
        self.text.setTabChangesFocus(True)
        layout.addWidget(self.text, 1)
        self.known = note()
        self.table = QPushButton("Names…")
        self.table.setToolTip(
            "Open a table of gene names once, and aliases, former names and Ensembl ids are found: "
            "HGNC's hgnc_complete_set.txt or NCBI's gene_info, as downloaded"
        )
        self.table.clicked.connect(self._on_table)
        row = QHBoxLayout()
        row.addWidget(self.known, 1)
        row.addWidget(self.table)
        layout.addLayout(row)
        self.browse = QPushButton("Open a text file…")
        self.browse.clicked.connect(self._on_browse)
        self.buttons = QDialogButtonBox(
            QDialogButtonBox.StandardButton.Ok | QDialogButtonBox.StandardButton.Cancel
        )
        self.buttons.accepted.connect(self.accept)
        self.buttons.rejected.connect(self.reject)
        row = QHBoxLayout()
        row.addWidget(self.browse)
        row.addStretch(1)
        row.addWidget(self.buttons)
        layout.addLayout(row)
        self.resize(420, 340)
        connections = Connections(self)
        connections.add(gene_names.changed, self._on_names)
        self._on_names()

    @property
    def names(self) -> tuple[str, ...]:
        """The genes in the text field, as the user wrote them."""
        return split_names(self.text.toPlainText())

    @property
    def title(self) -> str:
        """Name of the list."""
        return self.name.text().strip() or UNNAMED

    def load(self, path: Path) -> None:
        """Fill the dialog with the genes of a text file, named after the file.

        If the file cannot be read, an error is shown and nothing changes.
        """
        try:
            names = read_names(path)
        except GeneError as error:
            show_error(str(error))
            return
        self.text.setPlainText("\n".join(names))
        self.name.setText(path.stem)

    def _on_table(self) -> None:
        path, _ = QFileDialog.getOpenFileName(
            self,
            "Open a table of gene names",
            "",
            "Tables of names (*.txt *.tsv *.gz *.gene_info);;All files (*)",
        )
        if path:
            self.gene_names.open(Path(path))

    def _on_names(self) -> None:
        known, busy = self.gene_names.known, self.gene_names.busy
        kept = f"Other names of {known:,} genes are known." if known else "Other names: the best-known only."
        self.known.setText("Reading names…" if busy else kept)
        self.table.setEnabled(not busy)

    def _on_browse(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Open a list of genes", "", "Text (*.txt *.csv *.tsv *)")
        if path:
            self.load(Path(path))
