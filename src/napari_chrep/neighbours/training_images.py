"""Find the images of a model's training sections on this machine.

A bundle names the image files of its sections but not their folders, which are nobody else's business. They
are looked for beside the bundle, beside the slide, and where the user once said that they are.
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
        The file.
    mpp : float
        µm per pixel by which the positions of its spots were measured.
    scene : str
        Which picture of the file, where it holds several.
    """

    path: Path
    mpp: float
    scene: str = ""

    def open(self) -> Slide:
        """Open the image at the scale of its spots; SlideError if it cannot be read."""
        slide = open_slide(self.path, scene=self.scene or None)
        return slide if slide.mpp and slide.mpp.value == self.mpp else slide.with_mpp(self.mpp, "cohort")


def find_images(bundle: Bundle, folders: Iterable[Path]) -> dict[str, SectionImage]:
    """Find the images of a bundle's sections.

    Parameters
    ----------
    bundle : Bundle
        Its card names them.
    folders : iterable of Path
        Looked into in this order, not into what is below them; those that are not there are passed over.

    Returns
    -------
    dict
        Name of a section to its image: the file of the name on the card, else ``NAME.<ext>``.
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
    """Return the folders searched for images: the remembered one, the bundle's, the slide's."""
    folders = [] if (known := image_folder(bundle.card.cohort)) is None else [known]
    folders.append(bundle.path.resolve().parent)
    return folders if slide is None else [*folders, slide.path.resolve().parent]


def _names(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(folder))
    except OSError:
        return []
