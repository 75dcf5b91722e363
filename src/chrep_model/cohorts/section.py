"""A section: one slide with the spots measured on it, their positions and counts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy import sparse

from chrep_model.cohorts.findings import Finding
from chrep_model.cohorts.h5ad import CountsFile
from chrep_model.cohorts.readers import read_pair
from chrep_model.cohorts.readers.spaceranger import RIM_UM
from chrep_model.errors import CohortError
from chrep_model.slides.slide import MPP_RANGE, Slide, open_slide

#: Source of the µm per px: the user, the table of counts, the slide, or Space Ranger's scale factors.
ScaleSource = Literal["typed in", "h5ad", "slide", "scale factors", ""]


@dataclass(frozen=True, eq=False)
class Section:
    """One slide with its spots; counts and positions are in memory, pixels stay in the file.

    Attributes
    ----------
    name, patient : str
        The patient defaults to the section's name, so that sections count as one patient's only if the data
        say so.
    slide_path, counts_path : Path
    counts : scipy.sparse.csr_matrix
        Raw counts (n, G), float32.
    genes, spot_ids : tuple of str
        Names of the columns and rows of `counts`, each unique.
    xy : ndarray
        Spot centres (n, 2), float64, (x, y) in level-0 px; all inside the slide.
    mpp : float
        µm per level-0 px.
    spot_diameter_px : float or None
    gene_ids : tuple of str or None
        Second names of the genes, usually Ensembl ids; None if the h5ad has none.
    findings : tuple of Finding
        Problems that were noticed or corrected while the counts were read.
    scene : str or None
        Name of the picture in a slide file that holds several.
    bin_um : float or None
        Requested side in µm of the squares into which cells or bins were summed.
    array : ndarray or None
        (n, 2) int64, (row, col) of each spot on its array; None if unknown.
    mpp_source : str
        Source of `mpp`: ``"typed in"``, ``"h5ad"``, ``"slide"`` or ``"scale factors"``.
    library : str or None
        Name of the capture in a file of counts that holds several.
    facts : mapping
        Other facts in the file of counts, see `CountsFile`.
    """

    name: str
    patient: str
    slide_path: Path
    counts_path: Path
    counts: sparse.csr_matrix
    genes: tuple[str, ...]
    xy: np.ndarray
    spot_ids: tuple[str, ...]
    mpp: float
    spot_diameter_px: float | None
    gene_ids: tuple[str, ...] | None = None
    findings: tuple[Finding, ...] = ()
    scene: str | None = None
    bin_um: float | None = None
    array: np.ndarray | None = None
    mpp_source: ScaleSource = ""
    library: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.spot_ids)

    def open_slide(self) -> Slide:
        """Open the slide at this section's scale."""
        return open_slide(self.slide_path, scene=self.scene).with_mpp(self.mpp, source="cohort")


def read_section(
    slide_path: str | os.PathLike[str] | None,
    counts_path: str | os.PathLike[str],
    *,
    name: str | None = None,
    patient: str | None = None,
    um_per_px: float | None = None,
    scene: str | None = None,
    bin_um: float | None = None,
    library: str | None = None,
) -> Section:
    """Read a slide's header and the counts of its spots, and check that the two can belong together.

    Parameters
    ----------
    slide_path : path-like or None
        The slide; may be None if the counts are in a folder of a known format.
    counts_path : path-like
        The AnnData file with the raw counts, or a folder or file that `chrep_model.cohorts.readers` knows.
    name : str, optional
        Name of the section; defaults to the name in the source, then to the slide's.
    patient : str, optional
        Defaults to ``uns["patient"]``, then ``uns["individual"]``, then the section's name.
    um_per_px : float, optional
        Scale of the full-resolution image; defaults to ``uns["um_per_px"]``, then to the slide's own, then to
        that in Space Ranger's scale factors.
    scene : str, optional
        Picture to use from a file that holds several, see `chrep_model.slides.slide.open_slide`.
    bin_um : float, optional
        Side in µm of the squares into which cells or bins are summed, if the counts have no spots.
    library : str, optional
        Capture to read from a file of counts that holds several.

    Raises
    ------
    CohortError
        The h5ad is damaged or holds no counts, spots lie outside the image, or the scale is unknown.
    SlideError
        The slide cannot be opened.
    """
    table, picture, known_as = read_pair(slide_path, counts_path, bin_um=bin_um, library=library)
    name = name or known_as
    with open_slide(picture, scene=scene) as slide:
        section = join_section(
            table, slide, Path(counts_path), name=name, patient=patient, um_per_px=um_per_px, library=library
        )
    return replace(section, bin_um=bin_um)


def join_section(
    table: CountsFile,
    slide: Slide,
    counts_path: Path,
    *,
    name: str | None = None,
    patient: str | None = None,
    um_per_px: float | None = None,
    library: str | None = None,
) -> Section:
    """Build a section from the contents of its h5ad and its open slide; see `read_section`.

    Raises
    ------
    CohortError
        Spots lie outside the image, or the scale is unknown.
    """
    rows, cols = slide.shape
    own_mpp = slide.mpp.value if slide.mpp is not None else None
    name = name or slide.name
    _check_inside(table, width=cols, height=rows, path=counts_path)
    mpp, source = _scale(um_per_px, own_mpp, table, counts_path)
    return Section(
        name=name,
        patient=patient or _patient(table.facts) or name,
        slide_path=Path(slide.path),
        counts_path=counts_path,
        counts=table.counts,
        genes=table.genes,
        xy=table.xy,
        spot_ids=table.spot_ids,
        mpp=mpp,
        spot_diameter_px=spot_diameter(table.facts, counts_path),
        gene_ids=table.gene_ids,
        findings=table.findings,
        scene=slide.scene if slide.scenes else None,
        array=table.array,
        mpp_source=source,
        library=library,
        facts=table.facts,
    )


def spot_diameter(facts: Mapping[str, Any], path: Path) -> float | None:
    """Return the diameter of a spot in level-0 px; None if unknown, CohortError if it is not a length."""
    for key in ("spot_diameter_px", "spot_diameter_fullres"):
        if (diameter := _positive(facts.get(key), key, path)) is not None:
            return diameter
    return None


def _patient(facts: dict[str, Any]) -> str | None:
    for key in ("patient", "individual"):
        value = facts.get(key)
        if value is not None and str(value).strip():
            return str(value).strip()
    return None


def _scale(
    given: float | None, own: float | None, table: CountsFile, path: Path
) -> tuple[float, ScaleSource]:
    """Return the µm per px and its source."""
    says: tuple[tuple[ScaleSource, float | None], ...] = (
        ("typed in", _positive(given, "um_per_px", path)),
        ("h5ad", _positive(table.facts.get("um_per_px"), "um_per_px", path)),
        ("slide", own),
        ("scale factors", _positive(table.facts.get("microns_per_pixel"), "microns_per_pixel", path)),
    )
    source, mpp = next((said for said in says if said[1] is not None), says[0])
    if mpp is None:
        raise CohortError(
            "uns['um_per_px'] is missing and the slide does not say its scale either",
            path=path,
            remedy="Store the µm per px of the full-resolution image as uns['um_per_px'], "
            "or give um_per_px in the cohort's manifest (--um-per-px of chrep import)."
            f"{_guessed_scale(table.facts)}",
        )
    low, high = MPP_RANGE
    if not low <= mpp <= high:
        raise CohortError(
            f"um_per_px is {mpp:g}, which no slide has",
            path=path,
            remedy=f"It must be the µm per px of the full-resolution image, between {low:g} and {high:g}.",
        )
    return mpp, source


def _guessed_scale(facts: Mapping[str, Any]) -> str:
    """Return a sentence on the scale that Space Ranger's spot diameter implies; empty if it has none."""
    try:
        across = float(facts["spot_diameter_fullres"])
        um = float(facts.get("bin_size_um") or RIM_UM)
    except (KeyError, TypeError, ValueError):
        return ""
    if not (isfinite(across) and across > 0):
        return ""
    return f" If its spots of {across:.4g} px are {um:.0f} µm across, as in Visium, it is {um / across:.4g}."


def _positive(value: Any, key: str, path: Path) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not isfinite(number) or number <= 0:
        raise CohortError(f"{key} is {value!r}, not a number above zero", path=path, remedy=f"Correct {key}.")
    return number


def _check_inside(table: CountsFile, *, width: int, height: int, path: Path) -> None:
    xy = table.xy
    outside = _outside(xy, width, height)
    if not outside:
        return
    low, high = xy.min(axis=0), xy.max(axis=0)
    reduced = [
        f"Times {key} ({factor:.4g}) they would lie inside: this is the reduced picture, and the one at "
        "full resolution is needed."
        for key in ("tissue_hires_scalef", "tissue_lowres_scalef")
        if (factor := _factor(table.facts.get(key))) and not _outside(xy * factor, width, height)
    ]
    if not _outside(xy[:, ::-1], width, height):
        remedy = "With x and y swapped all of them lie inside: swap the columns of obsm['spatial']."
    else:
        remedy = (
            "x and y may be swapped or scaled: obsm['spatial'] must be (x, y) in px of exactly this image "
            "at full resolution."
        )
    raise CohortError(
        f"{outside} of {len(xy)} spots lie outside of the image ({width} x {height} px; "
        f"x runs from {low[0]:.0f} to {high[0]:.0f}, y from {low[1]:.0f} to {high[1]:.0f})",
        path=path,
        remedy=" ".join([*reduced[:1], remedy]),
    )


def _factor(value: Any) -> float:
    """Return a scale factor as a number; 0 if it is not a number."""
    try:
        return max(float(value), 0.0)
    except (TypeError, ValueError):
        return 0.0


def _outside(xy: np.ndarray, width: int, height: int) -> int:
    inside = (xy >= 0).all(axis=1) & (xy[:, 0] <= width) & (xy[:, 1] <= height)
    return int((~inside).sum())
