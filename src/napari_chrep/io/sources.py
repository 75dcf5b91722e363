"""Show a Space Ranger folder, or another one that a reader recognises: its picture and its spots."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from napari.layers import Layer
from napari.qt.threading import create_worker
from napari.utils.notifications import show_error, show_warning

from chrep_model.cohorts.probe import probe
from chrep_model.cohorts.readers import open_source
from chrep_model.cohorts.section import Section, read_section
from chrep_model.errors import ChrepError
from napari_chrep.canvas.measured_spots import totals_layer_data
from napari_chrep.canvas.slide_layer import LayerData, slide_layer_data


def section_of(folder: Path) -> Section:
    """Read the section in a folder of another program.

    Raises
    ------
    CohortError, SlideError
        It cannot be read, or its full-resolution picture is not found.
    """
    source = open_source(folder)
    probe(source.hdf5())
    return read_section(None, source.place)


def layers_of(section: Section) -> list[LayerData]:
    """Return the layers of a section: its slide, and its spots coloured by their total counts."""
    image = slide_layer_data(section.open_slide())
    scale = image[1].get("scale", (section.mpp, section.mpp))
    return [image, totals_layer_data(section, scale, image[1].get("units", ("um", "um")))]


def show(viewer: Any, folder: Path) -> Any:
    """Read a section in a worker and show it in a viewer; return the worker."""
    worker = create_worker(
        _reading, folder, _progress={"desc": "Opening the measured spots"}, _start_thread=False
    )
    worker.yielded.connect(partial(_on_read, weakref.ref(viewer)))
    worker.start()
    return worker


def _reading(folder: Path) -> Iterator[Section | ChrepError]:
    try:
        yield section_of(folder)
    except ChrepError as error:
        yield error


def _on_read(owner: Any, result: Section | ChrepError) -> None:
    viewer = owner()
    if viewer is None:
        return
    if isinstance(result, ChrepError):
        show_error(result.short)
        return
    for finding in result.findings:
        if finding.level != "ok":
            show_warning(f"{finding.text} {finding.remedy}".strip())
    for layer in layers_of(result):
        viewer.layers.append(Layer.create(*layer))
    viewer.reset_view()
