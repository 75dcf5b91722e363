"""Pair slides with the h5ad files of their counts, among the files and folders that a user selects."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chrep_model.cohorts.readers import Source, find_source, find_sources, open_source
from chrep_model.cohorts.slide_names import MANIFEST_SUFFIXES, slide_stem
from chrep_model.errors import ChrepError
from chrep_model.slides.slide import is_slide, slide_name

COUNTS_SUFFIX = ".h5ad"


@dataclass(frozen=True)
class Pair:
    """Paths of a slide and its counts (an h5ad, or the output folder of another program), and options.

    Attributes
    ----------
    slide, counts : Path
    name, patient : str or None
        Section name and patient; None to take them from the files.
    um_per_px : float or None
        Scale of the full-resolution image; None to take it from the files.
    scene : str or None
        Picture to use from a slide file that holds several; None for the largest.
    library : str or None
        Capture to use from an h5ad that holds several.
    bin_um : float or None
        Side in µm of the squares into which cells or bins are summed, if `counts` is a folder of such.
    """

    slide: Path
    counts: Path
    name: str | None = None
    patient: str | None = None
    um_per_px: float | None = None
    scene: str | None = None
    library: str | None = None
    bin_um: float | None = None


@dataclass(frozen=True)
class Suggestions:
    """Pairs of slides and counts found among some files, and the files without a partner.

    Attributes
    ----------
    pairs : tuple of Pair
        Sorted by the names of the h5ad files.
    unpaired : tuple of str
        One sentence for each selected file that belongs to no pair, with the reason.
    """

    pairs: tuple[Pair, ...]
    unpaired: tuple[str, ...]


def suggest_pairs(paths: Iterable[str | os.PathLike[str]]) -> Suggestions:
    """Find the pairs of slides and counts among files and folders.

    A slide and an h5ad belong together if they have the same name, in any folder; one in the same folder is
    preferred. If a file's partner is not among `paths`, it is looked for in the file's folder. A single slide
    and a single h5ad are a pair under any names. A folder stands for its files and those of its direct
    subfolders, or for the sections that `cohorts.readers` finds in it; a manifest stands for its sections.

    Parameters
    ----------
    paths : iterable of path-like
        Files, folders and manifests.

    Returns
    -------
    Suggestions
        Pictures in a folder that have no h5ad are ignored.
    """
    given = [Path(path).absolute() for path in paths]
    pairs: list[Pair] = []
    unpaired: list[str] = []
    files: dict[Path, None] = {}
    for path in given:
        try:
            sources = _sources_in(path)
            if path.suffix.lower() in MANIFEST_SUFFIXES:
                from chrep_model.cohorts.manifest import (
                    read_manifest,  # pydantic and yaml only where one is read
                )

                pairs += [_pair_of_entry(entry) for entry in read_manifest(path)[1]]
            else:
                pairs += [Pair(source.picture(), source.place, name=source.name) for source in sources]
                places = {source.place for source in sources}
                found = [file for file in _files_of(path) if file not in places]
                files |= dict.fromkeys(found)
                known = sources or any(map(_is_counts, found)) or not path.is_dir()
                unpaired += [] if known else [_no_pairs_text(path)]
        except ChrepError as error:
            unpaired.append(str(error))
        except OSError as error:
            unpaired.append(f"{path}: it cannot be read ({error.strerror or error}).")
    counts = sorted(filter(_is_counts, files), key=lambda file: (file.stem, file))
    pictures = [file for file in files if not _is_counts(file)]
    if set(files) == set(given) and len(counts) == len(pictures) == 1 and _stem(pictures[0]) is not None:
        return Suggestions((Pair(pictures[0], counts[0]),), ())
    for table in counts:
        named = [picture for picture in pictures if _stem(picture) == table.stem]
        slides = [picture for picture in named if picture.parent == table.parent] or named or _beside(table)
        if len(slides) == 1:
            pairs.append(Pair(slides[0], table))
        elif slides:
            names = ", ".join(picture.name for picture in slides)
            unpaired.append(
                f"{table}: several pictures have its name ({names}). Add the two that go together."
            )
        else:
            unpaired.append(f"{table}: no picture has its name. Add the slide together with it.")
    # Only pictures that were selected themselves are reported as unpaired, not those inside a folder.
    for picture in (path for path in given if path in pictures):
        table = picture.with_name(f"{_stem(picture)}{COUNTS_SUFFIX}")
        if _stem(picture) is None:
            unpaired.append(f"{picture}: this is neither a slide nor an h5ad.")
        elif table in files or any(picture == pair.slide for pair in pairs):
            continue
        elif table.is_file():
            pairs.append(Pair(picture, table))
        else:
            unpaired.append(f"{picture}: there is no {table.name} beside it. Add the h5ad together with it.")
    return Suggestions(tuple(dict.fromkeys(pairs)), tuple(unpaired))


def _sources_in(path: Path) -> list[Source]:
    """Return the sections that readers of other programs' formats find in a folder without h5ad."""
    if not path.is_dir() or is_slide(path) or any(map(_is_counts, path.iterdir())):
        return []
    source = find_source(path)
    return find_sources(path) if source is None else [source]


def _pair_of_entry(entry: dict[str, Any]) -> Pair:
    slide = entry["slide_path"] or open_source(entry["counts_path"]).picture()
    return Pair(
        slide,
        entry["counts_path"],
        name=entry["name"],
        patient=entry["patient"],
        um_per_px=entry["um_per_px"],
        scene=entry["scene"],
        library=entry["library"],
        bin_um=entry.get("bin_um"),
    )


def _no_pairs_text(folder: Path) -> str:
    return f"{folder}: there is no h5ad in this folder. Put NAME.h5ad beside NAME.<image>, or add both files."


def _files_of(path: Path) -> Iterator[Path]:
    """Yield a file, or the files of a folder and its direct subfolders; a slide may be a folder itself."""
    if not path.is_dir() or is_slide(path):
        yield path
        return
    for inside in sorted(path.iterdir()):
        if _may_pair(inside):
            yield inside
        elif inside.is_dir() and not inside.name.startswith("."):
            yield from (file for file in sorted(inside.iterdir()) if _may_pair(file))


def _may_pair(path: Path) -> bool:
    if path.name.startswith("."):
        return False
    return is_slide(path) if path.is_dir() else _is_counts(path) or _stem(path) is not None


def _is_counts(path: Path) -> bool:
    return path.suffix.lower() == COUNTS_SUFFIX


def _stem(path: Path) -> str | None:
    return slide_name(path) if path.is_dir() else slide_stem(path.name)


def _beside(table: Path) -> list[Path]:
    if not table.parent.is_dir():
        return []
    return [
        file for file in sorted(table.parent.iterdir())
        if _stem(file) == table.stem and _may_pair(file) and not _is_counts(file)
    ]  # fmt: skip
