"""Errors for paths that cannot be opened, and the decision whether other plugins should try them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from chrep_model.errors import BundleError, ChrepError, PredictionError, SlideError
from chrep_model.slides.backends.openslide import SUFFIXES, is_dicom
from chrep_model.slides.slide import is_slide, open_slide

#: Usual ending of the name of a bundle's folder.
BUNDLE_SUFFIX = ".chrep"

_OURS = {".svs", *SUFFIXES, ".h5ad", ".zarr", BUNDLE_SUFFIX}
_IN_OUR_FOLDERS = (".zgroup", ".zattrs", "zarr.json", "spatial")


def is_ours(path: Path) -> bool:
    """Return whether a path is of a kind for CHRep that no plugin but napari's own could open.

    TIFF, JPEG and PNG files are not, because napari opens those that are no slides.
    """
    from npe2 import PluginManager

    try:
        inside = path.is_dir() and (is_dicom(path) or any((path / name).exists() for name in _IN_OUR_FOLDERS))
    except OSError:  # without permission to read the folder
        inside = False
    if not inside and path.suffix.lower() not in _OURS:
        return False
    readers = PluginManager.instance().iter_compatible_readers([path])
    return {reader.plugin_name for reader in readers} <= {"napari", "napari-chrep"}


def why_refused(paths: Sequence[Path]) -> ChrepError:
    """Return the error for the first of these paths that is no slide."""
    path = next((path for path in paths if not is_slide(path)), paths[0])
    suffix = path.suffix.lower()
    if len(paths) > 1 and (suffix in (".h5ad", BUNDLE_SUFFIX) or path.is_dir()):
        return SlideError("only slides are opened together", path=path, remedy="Open this alone.")
    if suffix == BUNDLE_SUFFIX:
        return BundleError(
            "there is no folder of this name, as a model has", path=path, remedy="Check the name."
        )
    if suffix == ".h5ad":
        return PredictionError(
            "this holds no prediction that can be read",
            path=path,
            remedy="Measured spots are shown with their slide: open that, then Open… beside Measured spots.",
        )
    try:
        open_slide(path).close()
    except ChrepError as error:
        return error
    return SlideError(
        "this is a plain picture without tiles or levels, as photos and masks are",
        path=path,
        remedy="If it is a slide, open it with Open… in the slide explorer.",
    )
