"""Where the slides of predictions lie on this computer, so that the predictions themselves need not say it.

A prediction is handed on to others, and folders tell names. So its file names the slide and its content, and
the folder is kept beside the embeddings of this user.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from chrep_model.cache import default_cache
from chrep_model.slides.absent import AbsentSlide
from chrep_model.slides.slide import Slide

_FINGERPRINT = re.compile(r"[0-9a-f]{16,128}")


def remember(slide: Slide) -> None:
    """Keep where a slide lies; where nothing can be written, it is looked for beside its prediction only."""
    if isinstance(slide, AbsentSlide):
        return
    place = _place(slide.fingerprint)
    with suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_suffix(f".{os.getpid()}.partial")
        part.write_text(str(slide.path.absolute()), encoding="utf-8")
        part.replace(place)


def recall(fingerprint: str) -> Path | None:
    """Return where the slide of this content lay when it was predicted here; None for one of elsewhere."""
    if _FINGERPRINT.fullmatch(fingerprint) is None:  # it is part of a file name, and comes from outside
        return None
    try:
        return Path(_place(fingerprint).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _place(fingerprint: str) -> Path:
    return default_cache() / "slides" / f"{fingerprint}.txt"
