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
    """A file format of the export.

    Attributes
    ----------
    title : str
        Name of the format in a list.
    suffix : str
        Ending of the file name.
    about : str
        One sentence about the content and the programs that read it.
    most : int or None
        Largest number of genes in one file; None for no limit.
    """

    title: str
    suffix: str
    about: str
    most: int | None = None


_FIGURE = "H&E, raw, calibrated and their difference, with scale bar and colour bars; one gene."

#: File formats, the default first. The keys are the formats of `write_prediction`, and those of figures.
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
    """Tiles, genes and file format of an export.

    Attributes
    ----------
    prediction : Prediction
        The prediction to write; it may grow until then.
    area : Rect, Region or None
        Part of the slide to write, see `Prediction.within`.
    genes : tuple of str
        Genes to write, in this order.
    kind : str
        Key of `FILE_KINDS`.
    """

    prediction: Prediction
    area: Rect | Region | None
    genes: tuple[str, ...]
    kind: str

    def check(self) -> None:
        """Raise an error if the request cannot be written; done before the user is asked for a file.

        Raises
        ------
        SettingsError
            There are more genes than the format allows.
        PredictionError
            No tile is predicted in the area.
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
    """Path and number of tiles of a file that was written."""

    path: Path
    tiles: int


def write_export(export: ExportRequest, path: Path, task: Task) -> WrittenFile:
    """Write a prediction to a file, which is either complete or not there.

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
    """Writer of one file at a time in the background; exists as long as the viewer.

    Attributes
    ----------
    cancelling : bool
        Whether the writing was cancelled and has not stopped yet.
    changed : Signal(str)
        Emitted with one sentence when the writing starts, is cancelled or ends.
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
        """Write a file in the background; an error is shown as a notification."""
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
        """Cancel the writing, and delete the unfinished file; an existing file at this path stays."""
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
