"""File > Open Sample: the SYNTHETIC slide and section that come with the source."""

from __future__ import annotations

import os
from pathlib import Path

from chrep_model.errors import ChrepError
from chrep_model.slides.slide import open_slide
from napari_chrep.reader import LayerData, read_bundle, slide_layer_data

#: Overrides where the sample data are looked for.
ENVIRONMENT_VARIABLE = "CHREP_SAMPLE_DATA"


def sample_folder() -> Path:
    """Return the folder of the sample data: ``$CHREP_SAMPLE_DATA``, or ``sample_data`` beside the source.

    Raises
    ------
    ChrepError
        If there is none, as after an installation without the source.
    """
    given = os.environ.get(ENVIRONMENT_VARIABLE)
    folder = Path(given) if given else Path(__file__).resolve().parents[2] / "sample_data"
    if not folder.is_dir():
        raise ChrepError(
            "The sample data are not here",
            path=folder,
            remedy=f"Get sample_data from the source, and set {ENVIRONMENT_VARIABLE} to where it lies.",
        )
    return folder


def sample_bundles() -> list[Path]:
    """Return the folders of bundles among the sample data; empty without sample data."""
    try:
        folder = sample_folder()
    except ChrepError:
        return []
    return sorted(card.parent for card in folder.rglob("card.json"))


def sample_slide() -> list[LayerData]:
    """Return the layer of the SYNTHETIC slide, a pyramidal OME-TIFF.

    Raises
    ------
    ChrepError
        If the sample data are not here.
    """
    folder = sample_folder()
    slides = sorted(folder.rglob("SYNTHETIC*.ome.tif"))
    if not slides:
        raise ChrepError(
            "There is no SYNTHETIC*.ome.tif", path=folder, remedy=f"Check {ENVIRONMENT_VARIABLE}."
        )
    return [slide_layer_data(open_slide(slides[0]))]


def sample_demo() -> list[LayerData]:
    """Return the layer of the SYNTHETIC slide, and make the model of the sample data that of the viewer.

    Raises
    ------
    ChrepError
        If the sample data are not here, or there is no viewer.
    """
    layers, bundles = sample_slide(), sample_bundles()
    if not bundles:
        raise ChrepError("There is no model", path=sample_folder(), remedy="Train one: make demo.")
    read_bundle(bundles[0])
    return layers


def sample_section() -> list[LayerData]:
    """Return the layers of the first SYNTHETIC section: its slide, and its spots in their true size.

    Raises
    ------
    ChrepError
        If the sample data are not here.
    """
    from chrep_model.cohorts.section import read_section
    from napari_chrep.measured import spots_layer_data

    folder = sample_folder()
    pairs = [
        (picture, counts)
        for counts in sorted(folder.rglob("SYNTHETIC*.h5ad"))
        for picture in sorted(counts.parent.glob(f"{counts.stem}.*"))
        if picture != counts
    ]
    if not pairs:
        raise ChrepError(
            "There is no SYNTHETIC section", path=folder, remedy=f"Check {ENVIRONMENT_VARIABLE}."
        )
    section = read_section(*pairs[0])
    slide = section.open_slide()
    spots = spots_layer_data(section, (section.mpp, section.mpp), ("um", "um"))
    return [slide_layer_data(slide), spots]
