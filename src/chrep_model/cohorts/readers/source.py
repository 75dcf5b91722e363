"""Interface of a reader for one format, and a source: one section's counts that a reader has found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from chrep_model.cohorts.h5ad import CountsFile
from chrep_model.errors import CohortError


@dataclass(frozen=True)
class Options:
    """Options of the user for reading a source.

    Attributes
    ----------
    image : Path or None
        The full-resolution picture; None to search for it.
    bin_um : float or None
        Side in µm of the squares into which counts are summed, for formats finer than spots.
    """

    image: Path | None = None
    bin_um: float | None = None


@dataclass(frozen=True)
class Reader:
    """The functions that recognise and read one format.

    Attributes
    ----------
    kind : str
        Name of the format in messages, such as ``"Space Ranger folder"``.
    find : callable
        ``find(path)`` returns the file or folder with the counts if `path` is of this format, or is the
        folder that contains it; None otherwise. It checks names only and never raises for other files.
    name : callable
        ``name(place)`` returns the name of the section.
    picture : callable
        ``picture(place, options)`` returns the full-resolution picture, checked if the format allows it, or
        raises CohortError, which names the file that is needed.
    read : callable
        ``read(place, options)`` returns a `CountsFile`. If positions depend on the picture, `options.image`
        is used, or the picture is searched for.
    hdf5 : callable
        ``hdf5(place)`` returns the HDF5 files that `read` opens, to be tested in another process first.
    binned : bool
        Whether the format uses `Options.bin_um`.
    """

    kind: str
    find: Callable[[Path], Path | None]
    name: Callable[[Path], str]
    picture: Callable[[Path, Options], Path]
    read: Callable[[Path, Options], CountsFile]
    hdf5: Callable[[Path], list[Path]]
    binned: bool = False


@dataclass(frozen=True)
class Source:
    """One section's counts in the format of another program.

    Attributes
    ----------
    reader : Reader
    place : Path
        The file or folder with the counts.
    options : Options
    """

    reader: Reader
    place: Path
    options: Options = Options()

    @property
    def kind(self) -> str:
        """Name of the format."""
        return self.reader.kind

    @property
    def name(self) -> str:
        """Name of the section."""
        return self.reader.name(self.place)

    def picture(self) -> Path:
        """Return the full-resolution picture; CohortError names the missing file."""
        return self.reader.picture(self.place, self.options)

    def hdf5(self) -> list[Path]:
        """Return the HDF5 files that `read` will open."""
        return self.reader.hdf5(self.place)

    def read(self) -> CountsFile:
        """Read counts, positions and scale.

        Raises
        ------
        CohortError
            A file is missing or damaged, or the files do not belong together.
        """
        if self.options.bin_um is not None and not self.reader.binned:
            raise CohortError(
                f"a {self.kind} has spots of its own, which are not summed into squares",
                path=self.place,
                remedy="Leave out the size of the squares (bin_um).",
            )
        return self.reader.read(self.place, self.options)

    def with_options(self, options: Options) -> Source:
        """Return the same source with other options."""
        return replace(self, options=options)
