"""Functions behind File > Open Sample: the SYNTHETIC slide, model and section of the package."""

from __future__ import annotations

from pathlib import Path

from chrep_model.errors import ChrepError
from chrep_model.samples import ENVIRONMENT_VARIABLE, SLIDE, sample_folder
from chrep_model.slides.slide import open_slide
from napari_chrep.canvas.slide_layer import LayerData, slide_layer_data
from napari_chrep.io.reader import read_bundle


def sample_bundles() -> list[Path]:
    """Return the folders of bundles among the sample data; empty if the data are not installed."""
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
        If the sample data are not installed.
    """
    return [slide_layer_data(open_slide(sample_folder() / SLIDE))]


def sample_demo() -> list[LayerData]:
    """Return the layer of the SYNTHETIC slide, and open the sample model in the viewer.

    Raises
    ------
    ChrepError
        If the sample data are not installed, or there is no viewer.
    """
    layers, bundles = sample_slide(), sample_bundles()
    if not bundles:
        raise ChrepError("There is no model", path=sample_folder(), remedy="Train one: make demo.")
    read_bundle(bundles[0])
    return layers


def sample_section() -> list[LayerData]:
    """Return the layers of the first SYNTHETIC section: its slide, and its spots in true size.

    Raises
    ------
    ChrepError
        If the sample data are not installed.
    """
    from chrep_model.cohorts.section import read_section
    from napari_chrep.canvas.measured_spots import spots_layer_data

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
