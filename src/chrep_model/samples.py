"""Location of the SYNTHETIC sample data: beside the source, or in the installed package."""

from __future__ import annotations

import os
from pathlib import Path

from chrep_model.errors import ChrepError

#: Environment variable that names another folder of sample data.
ENVIRONMENT_VARIABLE = "CHREP_SAMPLE_DATA"

SLIDE = "SYNTHETIC_slide.ome.tif"

# The folder is inside the package in a wheel, and at the top of a source checkout.
_PACKAGE = Path(__file__).resolve().parent
_PLACES = (_PACKAGE / "sample_data", _PACKAGE.parents[1] / "sample_data")


def sample_folder() -> Path:
    """Return the folder of the sample data.

    The folder is a cohort of four sections, and also holds a slide (`SLIDE`) and a trained model.

    Returns
    -------
    Path
        ``$CHREP_SAMPLE_DATA`` if set, else the folder in the package or beside the source.

    Raises
    ------
    ChrepError
        The folder lacks the slide.
    """
    given = os.environ.get(ENVIRONMENT_VARIABLE)
    places = (Path(given),) if given else _PLACES
    for folder in places:
        if (folder / SLIDE).is_file():
            return folder
    remedy = f"Correct or unset {ENVIRONMENT_VARIABLE}." if given else "Install napari-chrep again."
    raise ChrepError(f"the sample data are not here: there is no {SLIDE}", path=places[0], remedy=remedy)
