"""Predictions written to files, in a worker: the viewer goes on meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.qt.threading import create_worker
from napari.utils.notifications import show_error
from psygnal import Signal

from chrep_model.errors import Cancelled, ChrepError, PredictionError, SettingsError
from chrep_model.export.writing import MOST_GENES, SUFFIXES, write_prediction
from napari_chrep.background.jobs import Stop
from napari_chrep.state.session import PerViewer

if TYPE_CHECKING:
    from chrep_model.geometry import Rect
    from chrep_model.prediction.prediction import Prediction
    from chrep_model.slides.region import Region


@dataclass(frozen=True)
class FileKind:
    """One kind of file.

    Attributes
    ----------
    title : str
        Of the kind, in a list.
    suffix : str
        How its name ends.
    about : str
        What it holds and what reads it, in a sentence.
    most : int or None
        So many genes go into one file at most; None for any number.
    """

    title: str
    suffix: str
    about: str
    most: int | None = None


_FIGURE = "H&E, raw, calibrated and their difference, with scale bar and colour bars; one gene."

#: What can be written, the default first. The keys are those of `write_prediction`, and two figures.
FILE_KINDS = {
    "h5ad": FileKind("AnnData", SUFFIXES["h5ad"], "One table of tiles and genes, for scanpy and squidpy."),
    "spatialdata": FileKind(
        "SpatialData", SUFFIXES["spatialdata"], "A folder: the table, tied to the tiles as polygons."
    ),
    "ome-zarr": FileKind(
        "OME-Zarr",
        SUFFIXES["ome-zarr"],
        f"An image with a channel for each map, for QuPath, Fiji and napari; {MOST_GENES['ome-zarr']} genes "
        "at most.",
        MOST_GENES["ome-zarr"],
    ),
    "csv": FileKind("CSV", SUFFIXES["csv"], "One row for each tile, for spreadsheets and R."),
    "parquet": FileKind(
        "Parquet", SUFFIXES["parquet"], "The rows of the CSV, smaller and quicker, for pandas and R."
    ),
    "geojson": FileKind(
        "QuPath",
        SUFFIXES["geojson"],
        f"Tiles with measurements, as GeoJSON; {MOST_GENES['geojson']} genes at most.",
        MOST_GENES["geojson"],
    ),
    "png": FileKind("Figure, PNG", ".png", _FIGURE, 1),
    "svg": FileKind("Figure, SVG", ".svg", _FIGURE, 1),
}


@dataclass(frozen=True)
class Export:
    """What is to be written.

    Attributes
    ----------
    prediction : Prediction
        It may grow meanwhile.
    area : Rect, Region or None
        Which of its tiles, see `Prediction.within`.
    genes : tuple of str
        Which genes, in this order.
    kind : str
        Key of `FILE_KINDS`.
    """

    prediction: Prediction
    area: Rect | Region | None
    genes: tuple[str, ...]
    kind: str

    def check(self) -> None:
        """Refuse what cannot be written, before anybody is asked where to.

        Raises
        ------
        SettingsError
            More genes than the kind of file takes.
        PredictionError
            Nothing is predicted there.
        """
        kind, chosen = FILE_KINDS[self.kind], len(self.genes)
        if kind.most is not None and chosen > kind.most:
            takes = "one gene" if kind.most == 1 else f"{kind.most} genes at most"
            raise SettingsError(
                f"{kind.title} takes {takes}, and {chosen:,} are chosen",
                remedy="Choose fewer genes, or another format.",
            )
        if not self.prediction.grid.is_in(self.area, self.prediction.indices).any():
            where = "" if self.area is None else " there"
            raise PredictionError(f"nothing is predicted{where} yet", remedy="Predict it first.")


@dataclass(frozen=True)
class Written:
    """A file that is there now."""

    path: Path
    tiles: int


def writing(export: Export, path: Path, stop: Stop) -> Iterator[Written | ChrepError]:
    """Write a file as a whole or not at all; yields what came of it, and nothing when it was stopped."""
    try:
        tiles = export.prediction.within(export.area, progress=stop.progress)
        if export.kind in SUFFIXES:
            write_prediction(tiles, path, export.kind, export.genes)
        else:
            from chrep_model.export.figure import write_figure

            write_figure(tiles, export.genes[0], path)
        yield Written(path, len(tiles))
    except MemoryError:
        yield PredictionError(
            f"{len(export.genes):,} genes of this many tiles do not fit into memory",
            path=path,
            remedy="Choose fewer genes, or a smaller area.",
        )
    except Cancelled:
        return
    except ChrepError as error:
        yield error


class Exporter:
    """Writes one file at a time; outlives the widget that asked for it.

    Attributes
    ----------
    busy : bool
        Whether a file is being written.
    cancelling : bool
        Whether that was asked to stop and has not yet.
    changed : Signal(str)
        It began, was asked to stop or ended, and how, in a sentence.
    """

    changed = Signal(str)

    def __init__(self) -> None:
        self.busy = self.cancelling = False
        self._outcome = ""
        self._stop = Stop()

    def write(self, export: Export, path: Path) -> None:
        """Write a file in a worker; an error becomes one notification."""
        self._stop = stop = Stop()
        worker = create_worker(
            writing, export, path, stop, _progress={"desc": f"Writing {path.name}"}, _start_thread=False
        )
        stop.worker = worker
        worker.yielded.connect(self._on_yielded)
        worker.errored.connect(self._on_errored)
        worker.finished.connect(self._on_finished)
        self.busy, self._outcome = True, "Cancelled; nothing was written."
        self.changed.emit(f"Writing {path.name}…")
        worker.start()

    def cancel(self) -> None:
        """Stop soon, and leave nothing of the file behind; one that was there before stays."""
        if self.busy:
            self._stop.request()
            self.cancelling = True
            self.changed.emit("Cancelling…")

    def _on_yielded(self, outcome: Written | ChrepError) -> None:
        if isinstance(outcome, Written):
            self._outcome = f"{outcome.tiles:,} tiles written to {outcome.path}"
        else:
            self._outcome = str(outcome)
            show_error(self._outcome)

    def _on_errored(self, error: Exception) -> None:
        """Tell of an error that is a fault of ours; napari shows it with its traceback."""
        self._outcome = f"{type(error).__name__}: {error}"

    def _on_finished(self) -> None:
        self.busy = self.cancelling = False
        self.changed.emit(self._outcome)


def _exporter(_viewer: Any) -> Exporter:
    return Exporter()


#: The exporter of each viewer: ``exporters.of(viewer)``.
exporters: PerViewer[Exporter] = PerViewer(_exporter)
