"""Other names of genes: a table that the user opened once is kept, and read for each model."""

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
    """Read a table of names, keep it, and look a model's genes up in it; yields table and names.

    Raises
    ------
    ChrepError
        The table cannot be read or kept.
    """
    aliases = Aliases.read(path)
    if path != kept:
        aliases.write(kept)
    yield aliases
    if panel is not None:
        yield GeneNames(panel.genes, panel.ids, aliases)


class GeneNameTable:
    """The user's table of gene names; gives a session the names of its genes whenever the model changes.

    Parameters
    ----------
    viewer : napari.Viewer
        Its session gets the names.

    Attributes
    ----------
    known : int
        How many genes the kept table lists, once it was read.
    changed : Signal
        `known` or `busy` changed.
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
        """Read a table as it is downloaded, and keep what it says for the next time."""
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
