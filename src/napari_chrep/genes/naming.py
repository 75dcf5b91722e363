"""Other names of genes: a table that the user opened once is kept, and read in a worker for each model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from napari.qt.threading import create_worker
from napari.utils.notifications import show_error
from psygnal import Signal
from qtpy.QtCore import QSettings

from chrep_model.cohorts.aliases import Aliases, GeneNames
from chrep_model.cohorts.gene_panel import GenePanel
from chrep_model.errors import ChrepError
from napari_chrep.state.session import PerViewer, Session, sessions


def names_path() -> Path:
    """Where the table is kept, beside the settings of this user."""
    settings = QSettings(QSettings.Format.IniFormat, QSettings.Scope.UserScope, "napari-chrep", "genes")
    return Path(settings.fileName()).with_name("gene_names.parquet")


def reading(path: Path, kept: Path, panel: GenePanel | None) -> Iterator[Aliases | GeneNames | ChrepError]:
    """Read a table of names, keep it, and put it to a model's genes; yields each, or why that cannot be."""
    try:
        aliases = Aliases.read(path)
        if path != kept:
            aliases.write(kept)
        yield aliases
        if panel is not None:
            yield GeneNames(panel.genes, panel.ids, aliases)
    except ChrepError as error:
        yield error


class Naming:
    """Gives a session the names of its genes from the kept table, whenever the model changes.

    Parameters
    ----------
    session : Session
        Gets the names.

    Attributes
    ----------
    known : int
        How many genes the kept table lists, once it was read.
    busy : bool
        Whether a table is being read.
    changed : Signal
        Either of them did.
    """

    changed = Signal()

    def __init__(self, session: Session) -> None:
        self.session = session
        self.known, self.busy = 0, False
        self._generation = 0
        session.bundle_changed.connect(self._on_bundle)
        self._on_bundle()

    def open(self, path: Path) -> None:
        """Read a table as it is downloaded, and keep what it says for the next time."""
        self._read(path)

    def _on_bundle(self) -> None:
        kept = names_path()
        if kept.exists():
            self._read(kept)

    def _read(self, path: Path) -> None:
        bundle, kept = self.session.bundle, names_path()
        self._generation += 1
        generation = self._generation
        worker = create_worker(
            reading, path, kept, None if bundle is None else bundle.panel, _start_thread=False
        )

        def on_yielded(result: Aliases | GeneNames | ChrepError) -> None:
            if generation != self._generation:
                return  # of another model, or another table
            if isinstance(result, ChrepError):
                show_error(str(result))
            elif isinstance(result, Aliases):
                self.known = len(result.names)
                self.changed.emit()
            else:
                self.session.know(result)

        def on_finished() -> None:
            if generation == self._generation:
                self.busy = False
                self.changed.emit()

        worker.yielded.connect(on_yielded)
        worker.finished.connect(on_finished)
        self.busy = True
        self.changed.emit()
        worker.start()


def _naming(viewer: Any) -> Naming:
    return Naming(sessions.of(viewer))


#: What gives the names of each viewer's genes: ``namings.of(viewer)``.
namings: PerViewer[Naming] = PerViewer(_naming)
