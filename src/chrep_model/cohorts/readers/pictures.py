"""Search for the full-resolution picture of a section, as opposed to its reduced copies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from chrep_model.cohorts.readers.source import Options
from chrep_model.cohorts.slide_names import slide_stem
from chrep_model.errors import ChrepError, CohortError
from chrep_model.slides.slide import open_slide

# Names of pictures that Space Ranger and Xenium write; none is the microscope's original.
_REDUCED = (
    *("tissue_hires", "tissue_lowres", "aligned_fiducials", "detected_tissue", "aligned_tissue"),
    *("cytassist_image", "morphology", "spatial_"),
)
_FOLDERS = ("image", "images", "imgs", "img", "fullres", "wsi", "wsis", "histology", "he", "h&e", "spatial")


@dataclass(frozen=True)
class Size:
    """Width and height of a picture in px, each known to within `tolerance` px."""

    width: float
    height: float
    tolerance: float = 0.0

    def fits(self, width: int, height: int) -> bool:
        """Return whether a picture of this width and height matches."""
        return abs(width - self.width) <= self.tolerance and abs(height - self.height) <= self.tolerance

    def __str__(self) -> str:
        about = "" if self.tolerance < 1 else "about "
        return f"{about}{self.width:.0f} x {self.height:.0f} px"


def size_of(path: Path) -> Size:
    """Return the size of a picture; SlideError if it cannot be opened."""
    with open_slide(path) as slide:
        rows, cols = slide.shape
    return Size(cols, rows)


def is_reduced(path: Path) -> bool:
    """Return whether a picture's name is one that pipelines give to reduced copies."""
    return any(part in path.name.lower() for part in _REDUCED)


def nearby(folder: Path, *, up: int) -> Iterator[Path]:
    """Yield the pictures in a folder, in its folders for pictures, and in `up` folders above it."""
    for place in (folder, *folder.absolute().parents[:up]):
        rooms = [
            place,
            *(room for room in _listing(place) if room.name.lower() in _FOLDERS and room.is_dir()),
        ]
        for room in rooms:
            yield from (
                file for file in _listing(room) if slide_stem(file.name) is not None and not is_reduced(file)
            )


def find_picture(
    folder: Path,
    name: str,
    options: Options,
    *,
    among: Iterable[Path],
    fits: Callable[[Size], str],
    wanted: str,
) -> Path:
    """Return the named picture, or else the only candidate that fits.

    Parameters
    ----------
    folder : Path
        Folder of the counts.
    name : str
        Name of the section; among several pictures the one of this name is used.
    options : Options
        Options of the user, which may name the picture.
    among : iterable of Path
        Pictures to choose from if the options name none, see `nearby`.
    fits : callable
        Returns the reason why a picture of a given size cannot be the right one; empty if it can.
    wanted : str
        Description of the picture, for messages: "the picture of ... px that Space Ranger was given".

    Raises
    ------
    CohortError
        No picture or several fit, or the named one does not fit.
    SlideError
        The named picture cannot be opened.
    """
    if options.image is not None:
        if why := fits(size_of(options.image)):
            raise CohortError(why, path=options.image, remedy=f"Give {wanted} with --image.")
        return options.image
    seen, found = [], []
    for file in dict.fromkeys(among):
        try:
            why = fits(size_of(file))
        except ChrepError as error:
            why = error.what
        seen.append(f"{file.name}: {why}")
        if not why:
            found.append(file)
    named = [file for file in found if _is_of(file, name)]
    if len(named) == 1:
        return named[0]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(str(file) for file in found[:3])
        raise CohortError(
            f"several pictures could be that of {name} ({names})",
            path=folder,
            remedy=f"Say which with --image, or call it {name} and its suffix.",
        )
    because = f" ({'; '.join(seen[:2])})" if seen else ""
    raise CohortError(
        f"the full-resolution picture is not here{because}",
        path=folder,
        remedy=f"Give {wanted} with --image, or put it beside the folder as {name}.tif.",
    )


def _is_of(file: Path, name: str) -> bool:
    return (slide_stem(file.name) or "").lower() == name.lower()


def _listing(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError:  # no permission to read the folder
        return []
