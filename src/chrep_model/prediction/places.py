"""Remember where predicted slides lie on this computer, so that predictions need no machine paths.

A prediction is handed on to others, and folders tell names. So its file names the slide and its content, and
the folder is kept beside the embeddings of this user.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from chrep_model.cache import default_cache
from chrep_model.errors import PredictionError
from chrep_model.files import write_atomically
from chrep_model.slides.absent import AbsentSlide
from chrep_model.slides.slide import Slide

_FINGERPRINT = re.compile(r"[0-9a-f]{16,128}")


def remember(slide: Slide) -> None:
    """Store the path of a slide; without effect if it cannot be written."""
    if isinstance(slide, AbsentSlide):
        return
    place = _place(slide.fingerprint)
    with suppress(PredictionError), write_atomically(place) as part:
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(str(slide.path.absolute()), encoding="utf-8")


def recall(fingerprint: str) -> Path | None:
    """Return the path that a slide of this content had when predicted here; None if it never was."""
    if _FINGERPRINT.fullmatch(fingerprint) is None:  # it is part of a file name, and comes from outside
        return None
    try:
        return Path(_place(fingerprint).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _place(fingerprint: str) -> Path:
    return default_cache() / "slides" / f"{fingerprint}.txt"
