"""Check, before hours of training, that the slides and counts of a cohort belong together.

`check_cohort` checks sections already read, for the command line; `check_pair` reads and checks one pair, for
the window. Both run the same checks, which are in the package `checks`, one file per topic.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from chrep_model.cohorts.checks import counts, moved, names, orientation, positions, scale
from chrep_model.cohorts.checks.section_view import SectionView
from chrep_model.cohorts.cohort import Cohort
from chrep_model.cohorts.findings import LEVELS, Finding, Level, worst
from chrep_model.cohorts.h5ad import CountsFile
from chrep_model.cohorts.pairing import Pair
from chrep_model.cohorts.probe import probe
from chrep_model.cohorts.readers import hdf5_files, read_pair
from chrep_model.cohorts.section import Section, join_section, spot_diameter
from chrep_model.errors import ChrepError, CohortError
from chrep_model.geometry import FloatArray, base_to_level
from chrep_model.progress import SILENT, Progress
from chrep_model.slides.slide import Slide, open_slide
from chrep_model.slides.tissue import tissue_mask

THUMBNAIL_PX = 256

NO_PATIENT = Finding(
    "ok",
    "Nothing says whose tissue this is: it counts as a patient of its own.",
    "Type the patient into the table, so that sections of one patient are held out together.",
)


@dataclass(frozen=True, eq=False)
class Overlay:
    """A thumbnail of the slide, and its spots in pixels of the thumbnail.

    Attributes
    ----------
    picture : ndarray
        uint8 (rows, cols, 3), at most `THUMBNAIL_PX` a side.
    xy : ndarray
        Spot centres (n, 2), float64, (x, y) in px of the picture; some may lie outside.
    diameter : float
        Diameter of a spot in px of the picture.
    on_tissue : ndarray
        bool (n,), True for spots on tissue.
    totals : ndarray
        Total counts of each spot, float32 (n,).
    """

    picture: npt.NDArray[np.uint8]
    xy: FloatArray
    diameter: float
    on_tissue: npt.NDArray[np.bool_]
    totals: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class PairCheck:
    """The result of checking one pair of slide and counts.

    Attributes
    ----------
    pair : Pair
    section : Section or None
        None if slide or counts cannot be read, or do not fit together.
    mpp_source : str
        Source of the µm per px: ``"typed in"``, ``"h5ad"``, ``"slide"``, or empty.
    findings : tuple of Finding
        Sorted, the worst first.
    overlay : Overlay or None
        None if the slide or the spots cannot be read.
    """

    pair: Pair
    section: Section | None
    mpp_source: str
    findings: tuple[Finding, ...]
    overlay: Overlay | None

    @classmethod
    def failed(cls, pair: Pair, why: str) -> PairCheck:
        """Return the result for a pair whose check failed with an error."""
        return cls(pair, None, "", (Finding("error", f"This pair could not be checked ({why})."),), None)

    def of_patient(self, patient: str) -> PairCheck:
        """Return this result with another patient, without reading the files again."""
        return PairCheck(
            replace(self.pair, patient=patient),
            None if self.section is None else replace(self.section, patient=patient),
            self.mpp_source,
            tuple(finding for finding in self.findings if finding is not NO_PATIENT),
            self.overlay,
        )

    @property
    def level(self) -> Level:
        """Worst level of the findings."""
        return worst(self.findings)

    @property
    def on_tissue(self) -> float | None:
        """Share of the spots on tissue; None if unknown."""
        return None if self.overlay is None else float(self.overlay.on_tissue.mean())


def check_pair(pair: Pair) -> PairCheck:
    """Open a slide and its counts, and check that they belong together.

    Never raises for problems with the files; they become findings.
    """
    found: list[Finding] = []
    section = overlay = None
    source = ""
    try:
        probe(hdf5_files(pair.counts))
        table, _, _ = read_pair(pair.slide, pair.counts, bin_um=pair.bin_um, library=pair.library)
        found += table.findings
        with open_slide(pair.slide, scene=pair.scene) as slide:
            try:
                section = join_section(
                    table, slide, pair.counts, name=pair.name, patient=pair.patient, um_per_px=pair.um_per_px,
                    library=pair.library,
                )  # fmt: skip
                section = replace(section, bin_um=pair.bin_um)
                source = section.mpp_source
                if pair.patient is None and not any(map(table.facts.get, ("patient", "individual"))):
                    found.append(NO_PATIENT)
            except ChrepError as error:
                found.append(_as_finding(error))
            view = _section_view(table if section is None else section, slide, pair.counts)
            overlay = _overlay(view, slide)
            found += counts.findings(view) if section is None else _all_findings(view)
    except ChrepError as error:
        found.append(_as_finding(error))
        section = None
    if worst(found) == "error":
        section = None
    found.sort(key=lambda finding: -LEVELS.index(finding.level))
    return PairCheck(pair, section, source, tuple(found), overlay)


def check_section(section: Section) -> tuple[Finding, ...]:
    """Check that a section's slide, spots, scale and counts can belong together.

    Returns
    -------
    tuple of Finding
        The worst first, including the findings made while reading.

    Raises
    ------
    SlideError
        Pixels cannot be read.
    """
    with open_slide(section.slide_path, scene=section.scene) as slide:
        found = [*section.findings, *_all_findings(_section_view(section, slide, section.counts_path))]
    return tuple(sorted(found, key=lambda finding: -LEVELS.index(finding.level)))


def check_cohort(cohort: Cohort, *, progress: Progress = SILENT) -> dict[str, tuple[Finding, ...]]:
    """Check every section of a cohort, and that all use the same kind of gene names.

    Parameters
    ----------
    cohort : Cohort
    progress : Progress
        Told after every section.

    Returns
    -------
    dict of str to tuple of Finding
        Findings by the name of the section, in the cohort's order; the worst first.

    Raises
    ------
    SlideError
        Pixels of a slide cannot be read.
    """
    found: dict[str, tuple[Finding, ...]] = {}
    for section in cohort:
        found[section.name] = check_section(section)
        progress.advance(len(found), len(cohort), "checking sections")
    between = (names.between_sections(cohort.sections), counts.between_sections(cohort.sections))
    for name, finding in chain.from_iterable(between):
        found[name] = (finding, *found[name])
    return found


def first_error(cohort: Cohort, found: Mapping[str, tuple[Finding, ...]]) -> CohortError | None:
    """Return the error of the first unusable section; None if all can be used."""
    for name, findings in found.items():
        for finding in findings:
            if finding.level == "error":
                text = finding.text[:1].lower() + finding.text[1:]
                what = f"section {name} cannot be used: {text}"
                return CohortError(what, path=cohort[name].counts_path, remedy=finding.remedy)
    return None


def _all_findings(view: SectionView) -> Iterator[Finding]:
    placed = list(positions.findings(view))
    yield from placed
    yield from scale.findings(view)
    yield from counts.findings(view)
    # Further checks would be meaningless if the positions have another scale.
    if worst(placed) != "error":
        turned = list(orientation.findings(view))
        yield from turned
        if worst(turned) == "ok":
            yield from moved.findings(view)


def _section_view(source: Section | CountsFile, slide: Slide, path: Path) -> SectionView:
    """Read a small picture of a slide, find its tissue, and place the spots on it."""
    section = source if isinstance(source, Section) else None
    own = None if slide.mpp is None else slide.mpp.value
    if section is not None:
        slide = slide.with_mpp(section.mpp, source="cohort")
    mask = tissue_mask(slide)
    picture, _ = slide.thumbnail(max(mask.mask.shape))  # cached by `tissue_mask`
    return SectionView(
        counts=source.counts,
        xy=source.xy,
        array=source.array,
        spot_ids=source.spot_ids,
        facts=source.facts,
        shape=slide.shape,
        mpp=None if section is None else section.mpp,
        mpp_source="" if section is None else section.mpp_source,
        slide_mpp=own,
        diameter=_diameter(source, path),
        mask=mask,
        picture=picture,
    )


def _diameter(source: Section | CountsFile, path: Path) -> float | None:
    if isinstance(source, Section):
        return source.spot_diameter_px
    try:
        return spot_diameter(source.facts, path)
    except ChrepError:  # reported already by `join_section`
        return None


def _overlay(view: SectionView, slide: Slide) -> Overlay:
    picture, _ = slide.thumbnail(max(*view.picture.shape[:2], THUMBNAIL_PX))  # cached, unless smaller
    small = Image.fromarray(picture)
    small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BOX)
    downsample = max(view.shape) / max(small.size)
    return Overlay(
        picture=np.array(small),
        xy=base_to_level(view.xy, downsample),
        diameter=view.size / downsample,
        on_tissue=view.on_tissue(view.xy),
        totals=np.asarray(view.counts.sum(axis=1), np.float32).ravel(),
    )


def _as_finding(error: ChrepError) -> Finding:
    return Finding("error", f"{error.what[:1].upper()}{error.what[1:]}.", error.remedy)
