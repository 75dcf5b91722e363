"""A cohort: the sections that a model learns from or is tested on."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from typing import Any

from chrep_model.cohorts.matching import matched, with_shared_names
from chrep_model.cohorts.probe import probe
from chrep_model.cohorts.readers import find_source, find_sources, hdf5_files
from chrep_model.cohorts.section import Section, read_section
from chrep_model.cohorts.slide_names import MANIFEST_SUFFIXES, slide_stem
from chrep_model.errors import CohortError
from chrep_model.progress import SILENT, Progress
from chrep_model.slides.slide import is_slide, slide_name


@dataclass(frozen=True, eq=False)
class Cohort:
    """A named set of sections.

    Attributes
    ----------
    path : Path
        The folder or manifest that it was read from.
    name : str
    sections : tuple of Section
        At least one; no name occurs twice.
    """

    path: Path
    name: str
    sections: tuple[Section, ...]

    def __post_init__(self) -> None:
        if not self.sections:
            raise CohortError(
                "no section is left in this cohort", path=self.path, remedy="Keep at least one."
            )
        names = self.names
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise CohortError(
                f"two sections have the same name ({', '.join(twice)})",
                path=self.path,
                remedy="Give each of them its own.",
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the sections, in order."""
        return tuple(section.name for section in self.sections)

    @property
    def patients(self) -> dict[str, tuple[str, ...]]:
        """Names of the sections of every patient, in order of first appearance."""
        groups: dict[str, tuple[str, ...]] = {}
        for section in self.sections:
            groups[section.patient] = (*groups.get(section.patient, ()), section.name)
        return groups

    def __repr__(self) -> str:
        return f"<Cohort {self.name!r}: {len(self)} sections of {len(self.patients)} patients>"

    def __len__(self) -> int:
        return len(self.sections)

    def __iter__(self) -> Iterator[Section]:
        return iter(self.sections)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __getitem__(self, name: str) -> Section:
        self._check_known([name])
        return self.sections[self.names.index(name)]

    def without(self, names: Iterable[str]) -> Cohort:
        """Return the cohort without these sections; an unknown name raises CohortError."""
        left_out = self._check_known(names)
        return self._of(section for section in self.sections if section.name not in left_out)

    def only(self, names: Iterable[str]) -> Cohort:
        """Return the cohort of these sections alone, in this cohort's order; see `without`."""
        kept = self._check_known(names)
        return self._of(section for section in self.sections if section.name in kept)

    def named_as(self, genes: Sequence[str], ids: Sequence[str] | None, whose: str) -> Cohort:
        """Return the cohort with its genes renamed as in `genes`, where its files hold both kinds of names.

        Parameters
        ----------
        genes, ids : sequence of str
            The names of a model and what else its genes are called, see `matching.matched`.
        whose : str
            Such as "the model".
        """
        return self._of(matched(section, genes, ids, whose) for section in self.sections)

    def require(self, n_sections: int, why: str) -> None:
        """Check that there are at least `n_sections`; CohortError if not.

        Parameters
        ----------
        n_sections : int
        why : str
            What needs them, as the start of a sentence: "training with calibration".
        """
        if len(self.sections) >= n_sections:
            return
        words = {1: "one section", 2: "two sections", 3: "three sections"}
        needed = words.get(n_sections, f"{n_sections} sections")
        raise CohortError(
            f"{why} needs at least {needed}, and this cohort has {len(self)} ({', '.join(self.names)})",
            path=self.path,
            remedy="Add pairs of a slide and an h5ad, or exclude fewer sections.",
        )

    def _of(self, sections: Iterable[Section]) -> Cohort:
        return Cohort(self.path, self.name, tuple(sections))

    def _check_known(self, names: Iterable[str]) -> set[str]:
        if isinstance(names, str):  # a lone name is a sequence of letters too
            names = [names]
        known, asked = self.names, set(names)
        for name in sorted(asked - set(known)):
            near = get_close_matches(name, known, n=3)
            hint = f"Did you mean {' or '.join(near)}?" if near else f"It has {', '.join(known)}."
            raise CohortError(f"this cohort has no section {name!r}", path=self.path, remedy=hint)
        return asked


def open_cohort(path: str | os.PathLike[str], *, progress: Progress = SILENT) -> Cohort:
    """Open a cohort from a folder of pairs, a folder that a reader recognises, or a YAML manifest.

    A folder holds pairs ``NAME.<slide suffix>`` + ``NAME.h5ad`` and is taken in the order of the names; a
    picture without an h5ad is left alone. Without any h5ad it may be the output folder of a program such as
    Space Ranger, or hold several of them. A manifest lists ``sections``, each with ``slide`` and ``counts``
    (paths relative to the manifest) and optionally ``name``, ``patient``, ``um_per_px``, ``scene`` (which
    picture of the slide's file), ``bin_um`` and ``library`` (which capture, where the counts are of several);
    `counts` may be such an output folder, and `slide` left out where its picture lies in a usual place.
    Sections that name their genes differently, by Ensembl ids and by symbols, are brought together by the
    other names that their files hold.

    Parameters
    ----------
    path : path-like
    progress : Progress
        Told after every section.

    Raises
    ------
    CohortError, SlideError
        The first thing that is wrong, with its file.
    """
    path = Path(path)
    if path.is_dir():
        name, entries = path.resolve().name, _sources(path) or _pairs(path)
    elif path.suffix.lower() in MANIFEST_SUFFIXES and path.is_file():
        from chrep_model.cohorts.manifest import read_manifest  # pydantic and yaml only where one is read

        name, entries = read_manifest(path)
    else:
        raise CohortError(
            "this is no cohort" if path.exists() else "there is no such cohort",
            path=path,
            remedy="Give a folder of pairs NAME.<image> + NAME.h5ad, or a YAML manifest.",
        )
    probe(list(chain.from_iterable(hdf5_files(entry["counts_path"]) for entry in entries)))
    sections = []
    for entry in entries:
        sections.append(read_section(**entry))
        progress.advance(len(sections), len(entries), "reading sections")
    return Cohort(path, name, with_shared_names(sections))


def _sources(folder: Path) -> list[dict[str, Any]]:
    """Return keywords of `read_section` for what readers find in a folder; none if it has its own h5ad."""
    source = find_source(folder)
    ours = any(file.suffix.lower() == ".h5ad" for file in folder.iterdir())
    if ours and (source is None or source.place.suffix.lower() != ".h5ad"):
        return []
    found = [source] if source is not None else find_sources(folder)
    return [{"slide_path": None, "counts_path": each.place, "name": each.name} for each in found]


def slide_at(path: Path) -> str | None:
    """Return the slide name of a file or a folder; None if it is no slide."""
    if path.name.startswith("."):
        return None
    if path.is_dir():
        return slide_name(path) if is_slide(path) else None
    return slide_stem(path.name)


def _pairs(folder: Path) -> list[dict[str, Any]]:
    slides: dict[str, list[Path]] = {}
    counts: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() == ".h5ad" and not path.name.startswith(".") and not path.is_dir():
            counts.setdefault(path.stem, []).append(path)
        elif (stem := slide_at(path)) is not None:
            slides.setdefault(stem, []).append(path)
    if not counts:
        raise CohortError(
            "this folder has no pair of a slide and an h5ad, and is no output of a program that is known",
            path=folder,
            remedy="Put NAME.<image> and NAME.h5ad side by side, or write a YAML manifest.",
        )
    for name, files in sorted(counts.items()):
        found = slides.get(name, [])
        if len(files) > 1:
            raise CohortError(
                f"several h5ad have one name ({', '.join(file.name for file in files)})",
                path=files[0],
                remedy="Keep one of them in the folder, or say which in a YAML manifest.",
            )
        if not found:
            raise CohortError(
                f"there is no picture for this h5ad (looked for {name}.svs, .tif, .jpg, .ome.zarr, ...)"
                f"{_nearly(name, slides)}",
                path=files[0],
                remedy="Put the slide beside it under the same name, or move the h5ad out of the folder.",
            )
        if len(found) > 1:
            raise CohortError(
                f"several pictures go with this h5ad ({', '.join(slide.name for slide in found)})",
                path=files[0],
                remedy="Keep one of them in the folder, or say which in a YAML manifest.",
            )
    return [
        {"slide_path": slides[name][0], "counts_path": files[0], "name": name}
        for name, files in sorted(counts.items())
    ]


def _nearly(name: str, slides: Iterable[str]) -> str:
    """Return a hint at slides whose names differ in capitals alone; they are not taken, as both may exist."""
    alike = [other for other in slides if other.lower() == name.lower()]
    return f"; {' and '.join(alike)} differs in capital letters" if alike else ""
