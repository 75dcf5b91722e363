"""Readers of other programs' counts, one file per format, and functions that find the right reader."""

from __future__ import annotations

import os
from pathlib import Path

from chrep_model.cohorts.h5ad import CountsFile, read_counts_file
from chrep_model.cohorts.readers import hest, legacy_st, spaceranger, spatialdata_store, visium_hd, xenium
from chrep_model.cohorts.readers.source import Options, Reader, Source
from chrep_model.errors import CohortError

__all__ = [
    "Options",
    "Reader",
    "Source",
    "find_source",
    "find_sources",
    "hdf5_files",
    "open_source",
    "read_pair",
]

H5AD = ".h5ad"
# Names of folders for tables of counts in collections of many sections.
_FOLDERS = ("st", "h5ad", "ST-cnts")

# In order: the first reader that recognises a folder reads it.
READERS: tuple[Reader, ...] = (
    visium_hd.READER,
    spaceranger.READER,
    xenium.READER,
    spatialdata_store.READER,
    hest.READER,
    legacy_st.READER,
)


def find_source(path: str | os.PathLike[str], options: Options = Options()) -> Source | None:  # noqa: B008
    """Return the source of one section's counts at a path; None if no reader recognises it."""
    path = Path(path)
    for reader in READERS:
        place = reader.find(path)
        if place is not None:
            return Source(reader, place, options)
    return None


def find_sources(folder: Path) -> list[Source]:
    """Return the sources in a folder, one per section, also those in its subfolders for tables."""
    places = [folder, *(folder / name for name in _FOLDERS if (folder / name).is_dir())]
    found: dict[Path, Source] = {}
    for path in (path for place in places for path in sorted(place.iterdir())):
        source = None if path.name.startswith(".") else find_source(path)
        if source is not None:
            found.setdefault(source.place.absolute(), source)
    return list(found.values())


def hdf5_files(counts: str | os.PathLike[str]) -> list[Path]:
    """Return the HDF5 files that will be opened to read these counts, for `cohorts.probe`."""
    source = find_source(counts)
    return [Path(counts)] if source is None else source.hdf5()


def open_source(path: str | os.PathLike[str], options: Options = Options()) -> Source:  # noqa: B008
    """Return the source of one section's counts at a path.

    Raises
    ------
    CohortError
        No reader recognises the path.
    """
    source = find_source(path, options)
    if source is None:
        missing = not Path(path).exists()
        raise CohortError(
            "there is no such file or folder" if missing else "no reader knows this as counts of a section",
            path=path,
            remedy="Check the name."
            if missing
            else f"Readable are: {', '.join(reader.kind for reader in READERS)}, and h5ad files.",
        )
    return source


def read_pair(
    slide: str | os.PathLike[str] | None,
    counts: str | os.PathLike[str],
    *,
    bin_um: float | None = None,
    library: str | None = None,
) -> tuple[CountsFile, Path, str | None]:
    """Read the counts of a section, and find the picture that belongs to them.

    Parameters
    ----------
    slide : path-like or None
        The full-resolution picture; only needed with an h5ad, or if it is not in a usual place.
    counts : path-like
        An h5ad file, or a path that `find_source` recognises.
    bin_um : float, optional
        See `Options`.
    library : str, optional
        Capture to read from an h5ad that holds several.

    Returns
    -------
    counts : CountsFile
    picture : Path
    name : str or None
        Name of the section, if the source has one.

    Raises
    ------
    CohortError
        A file is missing or damaged, or the files do not belong together.
    """
    options = Options(None if slide is None else Path(slide), bin_um)
    source = find_source(counts, options)
    if source is None and Path(counts).suffix.lower() == H5AD:
        if bin_um is not None:
            raise CohortError(
                "the spots of an h5ad are not summed into squares",
                path=counts,
                remedy="Leave out the size of the squares (bin_um).",
            )
        if slide is None:
            raise CohortError(
                "nothing says which picture goes with this h5ad",
                path=counts,
                remedy="Name the slide: slide in the manifest, or --image.",
            )
        return read_counts_file(counts, library=library), Path(slide), None
    source = source or open_source(counts, options)
    if library is not None:
        raise CohortError(
            f"a {source.kind} holds one section, and none called {library!r}",
            path=counts,
            remedy="Leave out library.",
        )
    picture = source.picture()
    return source.with_options(Options(picture, bin_um)).read(), picture, source.name
