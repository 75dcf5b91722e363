"""The scale that a user typed in for a slide, kept for the next time that it is opened."""

from __future__ import annotations

from qtpy.QtCore import QSettings

from chrep_model.errors import ScaleError
from chrep_model.slides.slide import Slide

#: `Mpp.source` of a scale that was typed in when the slide was open before.
REMEMBERED = "remembered"


def remember_scale(slide: Slide) -> None:
    """Keep the scale of a slide under its content, so that it is found wherever the file is."""
    _settings().setValue(slide.fingerprint, repr(slide.require_mpp()))


def with_remembered_scale(slide: Slide) -> Slide:
    """Give a slide that does not say its scale the one that was kept, if there is one."""
    if slide.mpp is not None:
        return slide
    kept = _settings().value(slide.fingerprint)
    try:
        return slide if kept is None else slide.with_mpp(float(str(kept)), REMEMBERED)
    except (ValueError, ScaleError):  # somebody edited the settings
        return slide


def _settings() -> QSettings:
    return QSettings(QSettings.Format.IniFormat, QSettings.Scope.UserScope, "napari-chrep", "scales")
