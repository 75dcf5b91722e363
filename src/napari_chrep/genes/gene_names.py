"""Look up other names of a model's genes in a table that the user opened.

The table is stored, so that it is available for every model and in later sessions.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from psygnal import Signal

from chrep_model.cohorts.aliases import Aliases, GeneNames
from chrep_model.cohorts.gene_panel import GenePanel
from napari_chrep.background.runner import TaskRunner
from napari_chrep.state.session import Session
from napari_chrep.state.settings import gene_names_file
from napari_chrep.state.viewers import kept_for


def read_names(path: Path, kept: Path, panel: GenePanel | None) -> Iterator[Aliases | GeneNames]:
    """Read a table of gene names, store it, and look up a model's genes; yield the table, then the names.

    Parameters
    ----------
    path : Path
        The table to read.
    kept : Path
        Where the table is stored.
    panel : GenePanel or None
        Genes of the model; None without a model, and then only the table is yielded.

    Raises
    ------
    ChrepError
        The table cannot be read or stored.
    """
    aliases = Aliases.read(path)
    if path != kept:
        aliases.write(kept)
    yield aliases
    if panel is not None:
        yield GeneNames(panel.genes, panel.ids, aliases)


class GeneNameTable:
    """The user's table of gene names, which names the session's genes whenever the model changes.

    Parameters
    ----------
    viewer : napari.Viewer
        Its session receives the names.

    Attributes
    ----------
    known : int
        Number of genes in the stored table; 0 before it is read.
    changed : Signal
        Emitted when `known` or `busy` changes.
    """

    changed = Signal()

    def __init__(self, viewer: Any) -> None:
        self.session = session = kept_for(viewer, Session)
        self.known = 0
        self._tasks = TaskRunner()
        session.bundle_changed.connect(self._on_bundle)
        self._on_bundle()

    @property
    def busy(self) -> bool:
        """Whether a table is being read."""
        return self._tasks.busy

    def _on_bundle(self) -> None:
        kept = gene_names_file()
        if kept.exists():
            self.open(kept)

    def open(self, path: Path) -> None:
        """Read a downloaded table of gene names, and store it for later sessions."""
        bundle, kept = self.session.bundle, gene_names_file()
        panel = None if bundle is None else bundle.panel
        self._tasks.run(
            lambda _task: read_names(path, kept, panel), on_result=self._on_read, on_end=self.changed.emit
        )
        self.changed.emit()

    def _on_read(self, result: Aliases | GeneNames) -> None:
        if isinstance(result, Aliases):
            self.known = len(result.names)
            self.changed.emit()
        else:
            self.session.set_names(result)
