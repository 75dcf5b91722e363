"""A section: one slide, the spots measured on it, and where they lie."""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from chrep_model.cohorts.findings import Finding
from chrep_model.cohorts.h5ad import CountsFile, read_counts_file
from chrep_model.errors import CohortError
from chrep_model.slides.slide import MPP_RANGE, Slide, open_slide


@dataclass(frozen=True, eq=False)
class Section:
    """One slide with its spots; the numbers are in memory, the pixels stay in the file.

    Attributes
    ----------
    name, patient : str
        The patient defaults to the section's own name, so that two sections are never taken for one
        person's unless the data say so.
    slide_path, counts_path : Path
    counts : scipy.sparse.csr_matrix
        Raw counts (n, G), float32.
    genes, spot_ids : tuple of str
        Names of the columns and rows of `counts`, each unique.
    xy : ndarray
        Spot centres (n, 2), float64, (x, y) in level-0 px; all of them inside of the slide.
    mpp : float
        µm per level-0 px.
    spot_diameter_px : float or None
    gene_ids : tuple of str or None
        What else the genes are called, an Ensembl id as a rule; None where the h5ad does not say.
    findings : tuple of Finding
        What was noticed, left out or put right while its counts were read.
    scene : str or None
        Which picture of the slide's file, where it holds several.
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

    def __len__(self) -> int:
        return len(self.spot_ids)

    def open_slide(self) -> Slide:
        """Open the slide with this section's scale."""
        return open_slide(self.slide_path, scene=self.scene).with_mpp(self.mpp, source="cohort")


def read_section(
    slide_path: str | os.PathLike[str],
    counts_path: str | os.PathLike[str],
    *,
    name: str | None = None,
    patient: str | None = None,
    um_per_px: float | None = None,
    scene: str | None = None,
) -> Section:
    """Read a slide's header and its h5ad, and check that the two can belong together.

    Parameters
    ----------
    slide_path, counts_path : path-like
        The picture and the AnnData file with the raw counts.
    name : str, optional
        Defaults to the slide's name.
    patient : str, optional
        Defaults to ``uns["patient"]``, then ``uns["individual"]``, then the section's name.
    um_per_px : float, optional
        Scale of the full-resolution image; defaults to ``uns["um_per_px"]``, then to the slide's own.
    scene : str, optional
        Which picture of a file that holds several, see `chrep_model.slides.slide.open_slide`.

    Raises
    ------
    CohortError
        The h5ad is damaged or holds no counts, spots lie outside of the image, or the scale is unknown.
    SlideError
        The slide cannot be opened.
    """
    table = read_counts_file(counts_path)
    with open_slide(slide_path, scene=scene) as slide:
        return join_section(table, slide, Path(counts_path), name=name, patient=patient, um_per_px=um_per_px)


def join_section(
    table: CountsFile,
    slide: Slide,
    counts_path: Path,
    *,
    name: str | None = None,
    patient: str | None = None,
    um_per_px: float | None = None,
) -> Section:
    """Make a section of what was read of its h5ad and of its open slide; see `read_section`.

    Raises
    ------
    CohortError
        Spots lie outside of the image, or the scale is unknown.
    """
    rows, cols = slide.shape
    own_mpp = slide.mpp.value if slide.mpp is not None else None
    name = name or slide.name
    _check_inside(table.xy, width=cols, height=rows, path=counts_path)
    return Section(
        name=name,
        patient=patient or _patient(table.facts) or name,
        slide_path=Path(slide.path),
        counts_path=counts_path,
        counts=table.counts,
        genes=table.genes,
        xy=table.xy,
        spot_ids=table.spot_ids,
        mpp=_scale(um_per_px, own_mpp, table, counts_path),
        spot_diameter_px=_positive(table.facts.get("spot_diameter_px"), "spot_diameter_px", counts_path),
        gene_ids=table.gene_ids,
        findings=table.findings,
        scene=slide.scene if slide.scenes else None,
    )


def _patient(facts: dict[str, Any]) -> str | None:
    for key in ("patient", "individual"):
        value = facts.get(key)
        if value is not None and str(value).strip():
            return str(value).strip()
    return None


def _scale(given: float | None, own: float | None, table: CountsFile, path: Path) -> float:
    mpp = _positive(given if given is not None else table.facts.get("um_per_px"), "um_per_px", path)
    if mpp is None:
        mpp = own
    if mpp is None:
        raise CohortError(
            "uns['um_per_px'] is missing and the slide does not say its scale either",
            path=path,
            remedy="Store the µm per px of the full-resolution image as uns['um_per_px'], "
            "or give um_per_px in the cohort's manifest.",
        )
    low, high = MPP_RANGE
    if not low <= mpp <= high:
        raise CohortError(
            f"um_per_px is {mpp:g}, which no slide has",
            path=path,
            remedy=f"It must be the µm per px of the full-resolution image, between {low:g} and {high:g}.",
        )
    return mpp


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


def _check_inside(xy: np.ndarray, *, width: int, height: int, path: Path) -> None:
    outside = _outside(xy, width, height)
    if not outside:
        return
    low, high = xy.min(axis=0), xy.max(axis=0)
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
        remedy=remedy,
    )


def _outside(xy: np.ndarray, width: int, height: int) -> int:
    inside = (xy >= 0).all(axis=1) & (xy[:, 0] <= width) & (xy[:, 1] <= height)
    return int((~inside).sum())
