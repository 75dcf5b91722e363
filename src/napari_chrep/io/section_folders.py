"""Show the section in a Space Ranger folder, or in the folder of another known program."""

from __future__ import annotations

import weakref
from functools import partial
from pathlib import Path
from typing import Any

from napari.layers import Layer
from napari.utils.notifications import show_warning

from chrep_model.cohorts.probe import probe
from chrep_model.cohorts.readers import open_source
from chrep_model.cohorts.section import Section, read_section
from napari_chrep.background.runner import TaskRunner, show_short
from napari_chrep.canvas.measured_spots import totals_layer_data
from napari_chrep.canvas.slide_layer import LayerData, slide_layer_data
from napari_chrep.state.viewers import kept_for


def section_of(folder: Path) -> Section:
    """Read the section in a folder of another program.

    Raises
    ------
    CohortError, SlideError
        The section cannot be read, or its full-resolution picture is not found.
    """
    source = open_source(folder)
    probe(source.hdf5())
    return read_section(None, source.place)


def layers_of(section: Section) -> list[LayerData]:
    """Return the layers of a section: its slide, and its spots coloured by their total counts."""
    image = slide_layer_data(section.open_slide())
    scale = image[1].get("scale", (section.mpp, section.mpp))
    return [image, totals_layer_data(section, scale, image[1].get("units", ("um", "um")))]


def show(viewer: Any, folder: Path) -> None:
    """Read a section in the background, and show it in a viewer."""
    kept_for(viewer, TaskRunner).run(
        lambda _task: section_of(folder),
        on_result=partial(_on_read, weakref.ref(viewer)),
        on_error=show_short,
        title="Opening the measured spots",
        beside=True,
    )


def _on_read(owner: Any, section: Section) -> None:
    viewer = owner()
    if viewer is None:
        return
    for finding in section.findings:
        if finding.level != "ok":
            show_warning(f"{finding.text} {finding.remedy}".strip())
    for layer in layers_of(section):
        viewer.layers.append(Layer.create(*layer))
    viewer.reset_view()
