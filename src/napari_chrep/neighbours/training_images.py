"""Find the images of a model's training sections on this machine.

A bundle names the image files of its sections but not their folders, which would reveal paths of the machine
that trained it. The files are searched in the folder that the user chose, beside the bundle and beside the
slide.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from chrep_model.bundle import Bundle
from chrep_model.slides.slide import Slide, is_slide, open_slide
from napari_chrep.state.settings import image_folder


@dataclass(frozen=True)
class SectionImage:
    """Path, scale and scene of a training section's image.

    Attributes
    ----------
    path : Path
        The image file.
    mpp : float
        Scale in µm per pixel to which the positions of the section's spots refer.
    scene : str
        Name of the image in a file that holds several; else empty.
    """

    path: Path
    mpp: float
    scene: str = ""

    def open(self) -> Slide:
        """Open the image at the scale of its spots; SlideError if it cannot be read."""
        slide = open_slide(self.path, scene=self.scene or None)
        return slide if slide.mpp and slide.mpp.value == self.mpp else slide.with_mpp(self.mpp, "cohort")


def find_images(bundle: Bundle, folders: Iterable[Path]) -> dict[str, SectionImage]:
    """Find the image files of a bundle's training sections in some folders.

    Parameters
    ----------
    bundle : Bundle
        The bundle, whose card names the sections.
    folders : iterable of Path
        Folders to search, in this order and without subfolders; missing ones are skipped.

    Returns
    -------
    dict
        Image by name of section: the file named on the card, else ``NAME.<ext>``.
    """
    found: dict[str, SectionImage] = {}
    listed = [(folder, names) for folder in folders if (names := _names(folder))]
    for section in bundle.card.sections:
        name, own = str(section["name"]), Path(str(section.get("slide", ""))).name
        for folder, names in listed:
            others = (n for n in names if n.startswith(f"{name}.") and not n.endswith(".h5ad"))
            file = own if own in names else next((n for n in others if is_slide(folder / n)), None)
            if file is not None:
                found[name] = SectionImage(
                    folder / file, float(section["mpp"]), str(section.get("scene", ""))
                )
                break
    return found


def usual_folders(bundle: Bundle, slide: Slide | None) -> list[Path]:
    """Return the folders to search for images: the one the user chose, the bundle's, the slide's."""
    folders = [] if (known := image_folder(bundle.card.cohort)) is None else [known]
    folders.append(bundle.path.resolve().parent)
    return folders if slide is None else [*folders, slide.path.resolve().parent]


def _names(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(folder))
    except OSError:
        return []
