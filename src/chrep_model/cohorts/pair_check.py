"""Does this slide go with these counts? Looked at before hours of training, and said in words.

What settles it is where the spots lie: in the image, on tissue, and better on tissue than they would lie
swapped, mirrored or turned. On nine sections of three laboratories at least 99 % of the spots were on tissue
as they were given, and at most 84 % in any other orientation. Tissue that fills the picture cannot tell.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.spatial import KDTree

from chrep_model.cohorts.findings import LEVELS, Finding, Level, worst
from chrep_model.cohorts.h5ad import CountsFile, read_counts_file
from chrep_model.cohorts.pairing import Pair
from chrep_model.cohorts.probe import probe
from chrep_model.cohorts.section import Section, join_section
from chrep_model.errors import ChrepError
from chrep_model.geometry import FloatArray, base_to_level, px_to_um, um_to_px
from chrep_model.slides.slide import Slide, open_slide
from chrep_model.slides.tissue import TissueMask, tissue_mask

THUMBNAIL_PX = 256
#: Another orientation counts as better when so many more of the spots lie on tissue, of all.
_CLEARLY = 0.10
#: ... and as the right one when so many lie on tissue there.
_RIGHT = 0.90
_FEW_ON_TISSUE = 0.80
#: A spot is on tissue when so much of it is.
_COVERED = 0.5
_MPP_DIFFERS = 0.05
#: Coarser, and nuclei are not resolved.
_COARSE_MPP = 2.0
#: µm between neighbouring spots: from bins of 2 µm to the widest array there was.
_PITCH_UM = (1.0, 500.0)
_MIN_SHARED_GENES = 0.5
_ENSEMBL = re.compile(r"ENS[A-Z]*G\d{6,}")


NO_PATIENT = Finding(
    "ok",
    "Nothing says whose tissue this is: it counts as a patient of its own.",
    "Type the patient into the table, so that sections of one patient are held out together.",
)


@dataclass(frozen=True, eq=False)
class Overlay:
    """The slide with its spots, small.

    Attributes
    ----------
    picture : ndarray
        uint8 (rows, cols, 3), at most `THUMBNAIL_PX` a side.
    xy : ndarray
        Spot centres (n, 2), float64, (x, y) in px of the picture; some may lie outside.
    diameter : float
        Of a spot, in px of the picture.
    on_tissue : ndarray
        bool (n,).
    totals : ndarray
        Counts of each spot, float32 (n,).
    """

    picture: npt.NDArray[np.uint8]
    xy: FloatArray
    diameter: float
    on_tissue: npt.NDArray[np.bool_]
    totals: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class PairCheck:
    """What came of looking at a pair.

    Attributes
    ----------
    pair : Pair
    section : Section or None
        None where the two cannot be read, or not be brought together.
    mpp_source : str
        Who says the µm per px: ``"typed in"``, ``"h5ad"``, ``"slide"``, or empty.
    findings : tuple of Finding
        The worst first.
    overlay : Overlay or None
        None where the slide or the spots cannot be read.
    """

    pair: Pair
    section: Section | None
    mpp_source: str
    findings: tuple[Finding, ...]
    overlay: Overlay | None

    @classmethod
    def failed(cls, pair: Pair, why: str) -> PairCheck:
        """Return the check of a pair at which the check itself failed."""
        return cls(pair, None, "", (Finding("error", f"This pair could not be checked ({why})."),), None)

    def of_patient(self, patient: str) -> PairCheck:
        """Return the same for another patient; nothing is read again."""
        return PairCheck(
            replace(self.pair, patient=patient),
            None if self.section is None else replace(self.section, patient=patient),
            self.mpp_source,
            tuple(finding for finding in self.findings if finding is not NO_PATIENT),
            self.overlay,
        )

    @property
    def level(self) -> Level:
        """The worst of the findings."""
        return worst(self.findings)

    @property
    def on_tissue(self) -> float | None:
        """Share of the spots on tissue, where that is known."""
        return None if self.overlay is None else float(self.overlay.on_tissue.mean())

    @property
    def median_counts(self) -> float | None:
        """Median counts of a spot, where they are known."""
        return None if self.overlay is None else float(np.median(self.overlay.totals))


def check_pair(pair: Pair) -> PairCheck:
    """Open a slide and its counts, and look whether they belong together.

    Never raises for what is wrong with the files: that becomes a finding.
    """
    findings: list[Finding] = []
    section = overlay = None
    source = ""
    try:
        probe([pair.counts])
        table = read_counts_file(pair.counts)
        source = _source(pair, table)
        with open_slide(pair.slide, scene=pair.scene) as slide:
            try:
                section = join_section(
                    table, slide, pair.counts, name=pair.name, patient=pair.patient, um_per_px=pair.um_per_px
                )
                findings += _scale_findings(section, slide, source)
                if pair.patient is None and not any(map(table.facts.get, ("patient", "individual"))):
                    findings.append(NO_PATIENT)
                slide = slide.with_mpp(section.mpp, source="cohort")
            except ChrepError as error:
                findings.append(_as_finding(error))
            mask = tissue_mask(slide)
            diameter = _diameter(table, section)
            overlay = _overlay(table, slide, mask, diameter)
            findings += _count_findings(table)
            if section is not None:
                findings += _tissue_findings(table.xy, slide, mask, diameter)
    except ChrepError as error:
        findings.append(_as_finding(error))
        section = None
    if worst(findings) == "error":
        section = None
    findings.sort(key=lambda finding: -LEVELS.index(finding.level))
    return PairCheck(pair, section, source, tuple(findings), overlay)


def compare_genes(
    genes: Collection[str], others: Collection[str], whose: str, *, level: Level = "error"
) -> Finding | None:
    """Say so where two sets of genes are named in different ways.

    Parameters
    ----------
    genes : collection of str
        Of a section.
    others : collection of str
        Of another section, or of a model.
    whose : str
        What the others are the genes of, such as "section C2" or "the model in use".
    level : {"ok", "warning", "error"}
        Of the finding.

    Returns
    -------
    Finding or None
        None where at least half of the smaller set is in the larger one too.
    """
    mine, theirs = set(genes), set(others)
    shared, least = len(mine & theirs), min(len(mine), len(theirs))
    if shared >= _MIN_SHARED_GENES * least:
        return None
    return Finding(
        level,
        f"Of {least:,} genes only {shared:,} are also genes of {whose}: here they are {_naming(genes)}, "
        f"there {_naming(others)}.",
        "Use the same kind of gene names (symbols or Ensembl ids, same species) in all files.",
    )


def _naming(genes: Collection[str]) -> str:
    example = next(iter(genes))
    kind = "Ensembl ids" if _ENSEMBL.match(example) else "names"
    return f"{kind} like {example}"


def _as_finding(error: ChrepError) -> Finding:
    return Finding("error", f"{error.what[:1].upper()}{error.what[1:]}.", error.remedy)


def _source(pair: Pair, table: CountsFile) -> str:
    if pair.um_per_px is not None:
        return "typed in"
    return "h5ad" if table.facts.get("um_per_px") is not None else "slide"


def _scale_findings(section: Section, slide: Slide, source: str) -> Iterator[Finding]:
    mpp, own = section.mpp, slide.mpp
    if own is not None and abs(own.value - mpp) > _MPP_DIFFERS * mpp:
        yield Finding(
            "warning",
            f"The slide says {own.value:.3g} µm/px, and {mpp:.3g} are used ({source}).",
            "Make sure which one is right; the scale decides how much tissue a tile shows.",
        )
    pitch = px_to_um(_pitch(section.xy), mpp)
    low, high = _PITCH_UM
    if pitch < low or pitch > high:
        yield Finding(
            "warning",
            f"At {mpp:.3g} µm/px neighbouring spots would be {pitch:.3g} µm apart, which no array has.",
            "Check the µm per px of the full-resolution image.",
        )
    elif mpp > _COARSE_MPP:
        yield Finding(
            "warning",
            f"At {mpp:.3g} µm/px nuclei cannot be made out.",
            "Use the image at full resolution if there is one; expect little otherwise.",
        )


def _count_findings(table: CountsFile) -> Iterator[Finding]:
    totals = np.asarray(table.counts.sum(axis=1)).ravel()
    empty = int((totals == 0).sum())
    if empty == len(totals):
        yield Finding("error", "No spot has any count.", "Check that X holds the raw counts.")
    elif empty:
        yield Finding(
            "warning",
            f"{empty:,} of {len(totals):,} spots have no counts.",
            "Leave them out of the h5ad: a model would learn that this tissue expresses nothing.",
        )


def _tissue_findings(xy: FloatArray, slide: Slide, mask: TissueMask, diameter: float) -> Iterator[Finding]:
    if not mask.mask.any():
        yield Finding(
            "warning", "No tissue was found on this picture.", "Look whether it is the H&E image at all."
        )
        return
    given = _on_tissue(mask, xy, diameter).mean()
    shares = {how: _on_tissue(mask, other, diameter).mean() for how, other in _turned(xy, slide.shape)}
    best = max(shares, key=lambda how: shares[how])
    if shares[best] >= given + _CLEARLY:
        swapped = best == "x and y swapped"
        yield Finding(
            "error" if shares[best] >= _RIGHT else "warning",
            f"{given:.0%} of the spots lie on tissue, but {shares[best]:.0%} would with {best}.",
            "Swap the columns of obsm['spatial']: it must hold (x, y)."
            if swapped
            else "Check whether the picture was mirrored or turned after the spots were placed on it.",
        )
    elif given < _FEW_ON_TISSUE:
        yield Finding(
            "warning",
            f"Only {given:.0%} of the spots lie on tissue.",
            "Keep the spots under tissue only, and check that this is their picture.",
        )
    elif shares["x and y swapped"] > given - _CLEARLY / 2:
        yield Finding(
            "ok",
            "The tissue cannot tell whether x and y are swapped: as many spots would lie on it.",
            "Look at the picture with the spots.",
        )


def _turned(xy: FloatArray, shape: tuple[int, int]) -> Iterator[tuple[str, FloatArray]]:
    """Give the seven other orientations of spots on an image of (rows, cols)."""
    x, y = xy.T
    right, down = shape[1] - x, shape[0] - y
    yield "x and y swapped", np.stack([y, x], axis=1)
    yield "left and right mirrored", np.stack([right, y], axis=1)
    yield "top and bottom mirrored", np.stack([x, down], axis=1)
    yield "the picture turned by 180°", np.stack([right, down], axis=1)
    yield "the picture turned by 90°", np.stack([shape[1] - y, x], axis=1)
    yield "the picture turned by 270°", np.stack([y, shape[0] - x], axis=1)
    yield "x and y swapped and both mirrored", np.stack([shape[1] - y, shape[0] - x], axis=1)


def _on_tissue(mask: TissueMask, xy: FloatArray, diameter: float) -> npt.NDArray[np.bool_]:
    return mask.fraction(xy, diameter) >= _COVERED


def _pitch(xy: FloatArray) -> float:
    """Median distance of a spot to its nearest neighbour, in px; NaN for a single spot."""
    return float(np.median(KDTree(xy).query(xy, k=2)[0][:, 1])) if len(xy) > 1 else float("nan")


def _diameter(table: CountsFile, section: Section | None) -> float:
    """Spot diameter in px: as the file says, else half of the distance between spots."""
    if section is not None and section.spot_diameter_px is not None:
        return section.spot_diameter_px
    pitch = _pitch(table.xy)
    if np.isfinite(pitch) and pitch > 0:
        return pitch / 2
    return 100.0 if section is None else um_to_px(100.0, section.mpp)


def _overlay(table: CountsFile, slide: Slide, mask: TissueMask, diameter: float) -> Overlay:
    picture, _ = slide.thumbnail(max(*mask.mask.shape, THUMBNAIL_PX))  # there already, from the mask
    small = Image.fromarray(picture)
    small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BOX)
    downsample = max(slide.shape) / max(small.size)
    return Overlay(
        picture=np.array(small),
        xy=base_to_level(table.xy, downsample),
        diameter=diameter / downsample,
        on_tissue=_on_tissue(mask, table.xy, diameter),
        totals=np.asarray(table.counts.sum(axis=1), np.float32).ravel(),
    )
