"""Convert another program's output to a pair of files: the slide, and its counts as NAME.h5ad."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from chrep_model.cohorts.findings import Finding
from chrep_model.cohorts.pair_check import PairCheck, check_pair
from chrep_model.cohorts.pairing import Pair
from chrep_model.cohorts.probe import probe
from chrep_model.cohorts.readers import Source
from chrep_model.cohorts.section import Section, read_section
from chrep_model.cohorts.slide_names import slide_stem
from chrep_model.errors import CohortError
from chrep_model.files import sync, unwritable_as_error
from chrep_model.geometry import base_to_level
from chrep_model.progress import SILENT, Progress
from chrep_model.slides.slide import open_slide

PICTURE_PX = 1600
# Cells are drawn larger than they are, to be visible; bins without gaps are not.
_SMALLEST_DOT_PX, _MANY_SPOTS = 3.0, 20_000
# Formats that consist of a file and a folder of the same name, which must not be renamed.
_KEEP_THEIR_NAMES = (".mrxs", ".vms", ".vmu")
_STEPS = (
    "reading counts and positions",
    "writing the h5ad",
    "looking at slide and spots",
    "drawing the spots",
)


@dataclass(frozen=True, eq=False)
class Imported:
    """The files that an import wrote, and the findings.

    Attributes
    ----------
    section : Section
        The section as read from its source.
    counts, slide, picture : Path
        The h5ad, the slide, and a drawing of the spots on the tissue.
    findings : tuple of Finding
        Findings of reading the source, and of checking the written pair.
    on_tissue : ndarray
        bool (n,), True for spots on tissue.
    """

    section: Section
    counts: Path
    slide: Path
    picture: Path
    findings: tuple[Finding, ...]
    on_tissue: np.ndarray


def import_section(
    source: Source,
    folder: str | os.PathLike[str],
    *,
    name: str | None = None,
    patient: str | None = None,
    um_per_px: float | None = None,
    progress: Progress = SILENT,
) -> Imported:
    """Write a section as NAME.h5ad, its slide (a link where the system allows it) and NAME_spots.png.

    Parameters
    ----------
    source : Source
        The section's counts; its options name the picture and the size of squares.
    folder : path-like
        Output folder, created if missing. If an error occurs, none of the three files is kept.
    name, patient, um_per_px
        See `read_section`.
    progress : Progress
        Told at every step.

    Raises
    ------
    CohortError, SlideError
        The source cannot be read or is not plausible, or the files exist already or cannot be written.
    """

    def tell(step: int) -> None:
        progress.advance(step, len(_STEPS), _STEPS[min(step, len(_STEPS) - 1)])

    tell(0)
    probe(source.hdf5())
    section = read_section(
        source.options.image,
        source.place,
        name=name,
        patient=patient,
        um_per_px=um_per_px,
        bin_um=source.options.bin_um,
    )
    folder = Path(folder)
    names = _names(section, folder)
    what, remedy = "the pair cannot be written", "Choose a folder that can be written and has room."
    with unwritable_as_error(folder, CohortError, what, remedy):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=f".{section.name}.") as part:
            counts, slide, picture = (Path(part) / file for file in names)
            tell(1)
            _write_h5ad(section, counts)
            _link(section.slide_path, slide)
            tell(2)
            check = check_pair(Pair(slide, counts, section.name, section.patient))
            if check.overlay is None or check.level == "error":
                worst = check.findings[0]
                raise CohortError(worst.text, path=source.place, remedy=worst.remedy)
            tell(3)
            _draw(section, check, picture)
            tell(4)
            # The h5ad comes last, so that an interrupted import never looks like a complete pair.
            for file in (picture, slide, counts):
                file.rename(folder / file.name)
    counts, slide, picture = (folder / file for file in names)
    said = (*section.findings, *(finding for finding in check.findings if finding not in section.findings))
    return Imported(section, counts, slide, picture, said, check.overlay.on_tissue)


def _names(section: Section, folder: Path) -> tuple[str, str, str]:
    name, original = section.name, section.slide_path.name
    if Path(name).name != name or name.startswith("."):
        raise CohortError(f"{name!r} cannot be the name of a file", remedy="Give another with --name.")
    suffix = original[len(slide_stem(original) or Path(original).stem) :]
    if suffix.lower() in _KEEP_THEIR_NAMES:
        raise CohortError(
            f"a slide in {suffix} has a folder beside it, and cannot be linked under another name",
            path=section.slide_path,
            remedy="Write a YAML manifest that names the slide and, as counts, the folder to import.",
        )
    names = (f"{name}.h5ad", f"{name}{suffix}", f"{name}_spots.png")
    there = [file for file in names if (folder / file).exists() or (folder / file).is_symlink()]
    if there:
        raise CohortError(
            f"{', '.join(there)} is there already",
            path=folder,
            remedy="Move it away, or give another --name.",
        )
    return names


def _write_h5ad(section: Section, path: Path) -> None:
    import anndata
    import pandas as pd

    obs = pd.DataFrame(index=pd.Index(section.spot_ids, dtype=object))
    if section.array is not None:
        obs["array_row"], obs["array_col"] = section.array.T
    var = pd.DataFrame(index=pd.Index(section.genes, dtype=object))
    if section.gene_ids is not None:
        var["gene_ids"] = list(section.gene_ids)
    uns = {"section": section.name, "patient": section.patient, "um_per_px": section.mpp}
    if section.spot_diameter_px is not None:
        uns["spot_diameter_px"] = section.spot_diameter_px
    table = anndata.AnnData(X=section.counts, obs=obs, var=var, uns=uns, obsm={"spatial": section.xy})
    table.write_h5ad(path, compression="gzip")
    sync(path)


def _link(slide: Path, target: Path) -> None:
    """Create a link to the slide, or a copy if the system cannot link."""
    slide = slide.resolve()
    if slide.is_file():
        with suppress(OSError):
            target.hardlink_to(slide)
            return
    with suppress(OSError):
        target.symlink_to(slide, target_is_directory=slide.is_dir())
        return
    (shutil.copytree if slide.is_dir() else shutil.copyfile)(slide, target)


def _draw(section: Section, check: PairCheck, path: Path) -> None:
    """Draw the spots over the tissue, coloured by their counts; spots off the tissue are red."""
    from matplotlib import colormaps

    if check.overlay is None:
        raise ValueError("a pair without positions cannot be drawn")
    with open_slide(section.slide_path, scene=section.scene) as slide:
        thumbnail, downsample = slide.thumbnail(PICTURE_PX)
    picture = Image.fromarray(thumbnail).convert("RGBA")
    over = Image.new("RGBA", picture.size)
    draw = ImageDraw.Draw(over)
    totals = np.log1p(check.overlay.totals)
    low, high = np.percentile(totals, [1, 99])
    shades = np.clip((totals - low) / max(high - low, 1e-6), 0, 1)
    colours = (colormaps["viridis"](shades) * 255).astype(int)
    colours[:, 3] = 150
    colours[~check.overlay.on_tissue] = (230, 30, 30, 230)
    least = _SMALLEST_DOT_PX if len(section) < _MANY_SPOTS else 0.5
    radius = max((section.spot_diameter_px or 0.0) / downsample / 2, least)
    for (x, y), colour in zip(base_to_level(section.xy, downsample), colours, strict=True):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=tuple(colour))
    Image.alpha_composite(picture, over).convert("RGB").save(path)
