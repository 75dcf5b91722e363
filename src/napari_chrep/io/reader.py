"""The reader that napari calls for a dropped slide, bundle, prediction or Space Ranger folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from napari.utils.notifications import show_error, show_warning

from chrep_model.errors import BundleError, ChrepError, PredictionError, SlideError
from chrep_model.slides.slide import is_slide, open_slide
from napari_chrep.canvas.slide_layer import slide_layer_data
from napari_chrep.io.refusals import BUNDLE_SUFFIX, is_ours, why_refused
from napari_chrep.state.viewers import kept_for

Reader = Callable[["PathOrPaths"], list[Any]]
PathOrPaths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

#: Result of a reader that added no layers.
NO_LAYER: list[tuple[None]] = [(None,)]


def get_reader(path: PathOrPaths) -> Reader | None:
    """Return a reader for slides, a bundle or a prediction; None leaves the path to other plugins.

    napari calls this when CHRep was chosen for a path, or is the only plugin for its kind. So the reason for
    a refusal is shown: by the reader if no other plugin could open the path, else here. Never raises an
    error.

    Parameters
    ----------
    path : path or sequence of paths
        Files or folders.

    Returns
    -------
    callable or None
        `read_slides`, `read_bundle`, `read_stored`, `read_maps` or `read_source`, or a function that shows
        why the paths are refused.
    """
    paths = _as_list(path)
    if (reader := reader_of(paths)) is not None or not paths:
        return reader
    refusal = why_refused(paths)
    if all(is_ours(p) for p in paths):
        return lambda _: _show_error(refusal)
    show_warning(refusal.short)
    return None


def reader_of(paths: Sequence[Path]) -> Reader | None:
    """Return the function that opens these paths, or None; reads only headers, and never raises an error."""
    if len(paths) == 1 and is_bundle(paths[0]):
        return read_bundle
    if len(paths) == 1 and _is_stored(paths[0]):
        return read_stored
    if len(paths) == 1 and _is_maps(paths[0]):
        return read_maps
    if paths and all(is_slide(p) for p in paths):
        return read_slides
    if len(paths) == 1 and is_source(paths[0]):
        return read_source
    return None


def read_slides(path: PathOrPaths) -> list[Any]:
    """Open one slide or several; return an image layer for each that can be read.

    Raises
    ------
    SlideError
        If a slide cannot be read, and there is no viewer that could show the error.
    """
    layers: list[Any] = []
    for p in _as_list(path):
        try:
            layers.append(slide_layer_data(open_slide(p)))
        except SlideError as error:
            _show_error(error)
    return layers or NO_LAYER


def read_bundle(path: PathOrPaths) -> list[tuple[None]]:
    """Open a bundle as the model of the current viewer, and show it in the explorer; adds no layer.

    The bundle is opened in the background, which shows an error if it is damaged.

    Raises
    ------
    BundleError
        If there is no viewer.
    """
    from napari_chrep.background.prediction_engine import PredictionEngine
    from napari_chrep.ui.docks import show_dock

    (folder,) = _as_list(path)
    remedy = "Use chrep_model.bundle.load_bundle."
    viewer = _viewer(BundleError("a bundle opens in a viewer, and there is none", path=folder, remedy=remedy))
    show_dock(viewer, "Slide explorer")
    kept_for(viewer, PredictionEngine).load_bundle(folder)
    return NO_LAYER


def read_stored(path: PathOrPaths) -> list[tuple[None]]:
    """Show a stored prediction in the current viewer: its maps, its genes, and its slide if found.

    The file is read in the background, which shows an error if it is damaged; no layer is returned here.

    Raises
    ------
    PredictionError
        If there is no viewer.
    """
    from napari_chrep.io.stored_predictions import reopen

    (file,) = _as_list(path)
    remedy = "Use chrep_model.prediction.stored.read_prediction."
    error = PredictionError("a prediction opens in a viewer, and there is none", path=file, remedy=remedy)
    reopen(_viewer(error), file)
    return NO_LAYER


def read_source(path: PathOrPaths) -> list[Any]:
    """Open the section in a folder of another program, such as Space Ranger: slide and measured spots.

    With a viewer, the folder is read in the background, which shows errors, and no layer is returned.

    Raises
    ------
    CohortError, SlideError
        Without a viewer, if the section cannot be read, or its full-resolution picture is not found.
    """
    import napari

    from napari_chrep.io.section_folders import layers_of, section_of, show

    (folder,) = _as_list(path)
    viewer = napari.current_viewer()
    if viewer is None:
        return layers_of(section_of(folder))
    show(viewer, folder)
    return NO_LAYER


def is_source(path: Path) -> bool:
    """Return whether this is a folder with the counts of one section; never raises an error."""
    from chrep_model.cohorts.readers import find_source

    try:
        return path.is_dir() and find_source(path) is not None
    except (
        OSError,
        ChrepError,
    ):  # without permission to read the folder, or with two files where one is expected
        return False


def read_maps(path: PathOrPaths) -> list[Any]:
    """Open maps that were exported as OME-Zarr as image layers, see `open_maps`."""
    from napari_chrep.io.exported_maps import open_maps

    (folder,) = _as_list(path)
    return open_maps(folder)


def is_bundle(path: Path) -> bool:
    """Return whether this folder is a bundle, or is named like one; never raises an error."""
    try:
        return path.is_dir() and (path.suffix == BUNDLE_SUFFIX or (path / "card.json").is_file())
    except OSError:  # without permission to read the folder
        return False


def _is_stored(path: Path) -> bool:
    if path.suffix.lower() not in (".h5ad", ".zarr"):  # before anything is imported
        return False
    from chrep_model.prediction.stored import is_stored

    return is_stored(path)


def _is_maps(path: Path) -> bool:
    if path.suffix.lower() != ".zarr":  # before anything is imported
        return False
    from chrep_model.export.omezarr import is_ome_zarr

    return is_ome_zarr(path)


def _show_error(error: ChrepError) -> list[tuple[None]]:
    """Show an error to the user, and return no layer; without a viewer, raise the error."""
    _viewer(error)
    show_error(error.short)
    return NO_LAYER


def _viewer(absent: ChrepError) -> Any:
    """Return the current viewer; raise `absent` if there is none."""
    import napari

    viewer = napari.current_viewer()
    if viewer is None:
        raise absent
    return viewer


def _as_list(path: PathOrPaths) -> list[Path]:
    if isinstance(path, str | os.PathLike):
        return [Path(path)]
    return [Path(p) for p in path]
