"""Write predictions to files in the background."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from chrep_model.errors import PredictionError, SettingsError
from chrep_model.export.writing import MOST_GENES, SUFFIXES, write_prediction
from napari_chrep.background.runner import Task, TaskRunner, in_words, show

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
class ExportRequest:
    """Which tiles and genes to write, and to what kind of file.

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
class WrittenFile:
    """A file that was written, and its number of tiles."""

    path: Path
    tiles: int


def write_export(export: ExportRequest, path: Path, task: Task) -> WrittenFile:
    """Write a file as a whole or not at all.

    Raises
    ------
    ChrepError
        It cannot be written, or was cancelled.
    """
    try:
        tiles = export.prediction.within(export.area, progress=task.progress)
        if export.kind in SUFFIXES:
            write_prediction(tiles, path, export.kind, export.genes)
        else:
            from chrep_model.export.figure import write_figure

            write_figure(tiles, export.genes[0], path)
        return WrittenFile(path, len(tiles))
    except MemoryError as error:
        raise PredictionError(
            f"{len(export.genes):,} genes of this many tiles do not fit into memory",
            path=path,
            remedy="Choose fewer genes, or a smaller area.",
        ) from error


class Exporter:
    """Writes one file at a time; outlives the widget that asked for it.

    Attributes
    ----------
    cancelling : bool
        Whether that was asked to stop and has not yet.
    changed : Signal(str)
        It began, was asked to stop or ended, and how, in a sentence.
    """

    changed = Signal(str)

    def __init__(self, _viewer: Any) -> None:
        self.cancelling = False
        self._outcome = ""
        self._tasks = TaskRunner()

    @property
    def busy(self) -> bool:
        """Whether a file is being written."""
        return self._tasks.busy

    def write(self, export: ExportRequest, path: Path) -> None:
        """Write a file in a worker; an error becomes one notification."""
        self._outcome = "Cancelled; nothing was written."
        self._tasks.run(
            partial(write_export, export, path),
            on_result=self._on_written,
            on_error=self._on_error,
            on_end=self._on_end,
            title=f"Writing {path.name}",
        )
        self.changed.emit(f"Writing {path.name}…")

    def cancel(self) -> None:
        """Stop soon, and leave nothing of the file behind; one that was there before stays."""
        if self.busy:
            self._tasks.cancel()
            self.cancelling = True
            self.changed.emit("Cancelling…")

    def _on_written(self, written: WrittenFile) -> None:
        self._outcome = f"{written.tiles:,} tiles written to {written.path}"

    def _on_error(self, error: Exception) -> None:
        self._outcome = in_words(error)
        show(error)

    def _on_end(self) -> None:
        self.cancelling = False
        self.changed.emit(self._outcome)
