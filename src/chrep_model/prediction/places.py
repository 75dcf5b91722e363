"""Paths of predicted slides on this computer, stored in the cache so that prediction files need none.

Prediction files are passed on to others, and folder names may reveal people. So a file only names the slide
and its fingerprint, and the path is stored in this user's cache.
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
    """Store the path of a slide in the cache; errors of writing are ignored."""
    if isinstance(slide, AbsentSlide):
        return
    place = _place(slide.fingerprint)
    with suppress(PredictionError), write_atomically(place) as part:
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(str(slide.path.absolute()), encoding="utf-8")


def recall(fingerprint: str) -> Path | None:
    """Return the path that a slide with this fingerprint had when it was predicted here; None if unknown."""
    if _FINGERPRINT.fullmatch(fingerprint) is None:  # untrusted, and used as a file name
        return None
    try:
        return Path(_place(fingerprint).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _place(fingerprint: str) -> Path:
    return default_cache() / "slides" / f"{fingerprint}.txt"
