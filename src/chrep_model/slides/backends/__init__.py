"""Readers of slide files, one per file; `Slide` is the only caller.

A reader knows one family of formats. It says which levels a file has and returns pixels of a region inside a
level; padding, scale, pyramids and tiles are made above it, once for all of them.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from chrep_model.errors import ChrepError, SlideError

RgbArray = npt.NDArray[np.uint8]

PIXELS = 2
"""Version of how files become pixels. It rises when some come out otherwise: what was stored is made anew."""

COPY_AGAIN = "Copy or download the file again."

# A picture without tiles has to be decoded whole; beyond this it would fill the memory of most machines.
MAX_DECODED_PX = 2_000_000_000

# Mean grey value; channels that nobody names and that are darker are fluorescence, as glass is bright.
DARK = 80.0

# Smaller files are hashed whole, larger ones by their size and by blocks spread over them.
_WHOLE_BYTES = 64 * 2**20
_BLOCKS, _BLOCK_BYTES = 64, 256 * 2**10


class NeedsOpenSlideError(ChrepError):
    """The file is a slide, but of a vendor's format that is left to OpenSlide; the message names it."""


class Backend(ABC):
    """An open slide file, as `Slide` uses it.

    Attributes
    ----------
    path
        The file (or folder) that was opened.
    shapes
        (rows, cols) of each level, the largest first, strictly decreasing: of the picture alone, where a file
        pads its levels.
    downsamples
        Level-0 pixels per pixel of each level, where the format says it; ``None`` where it follows from the
        sizes.
    chunks
        (rows, cols) of what each level is decoded in, so that callers can ask for whole ones.
    mpp_xy
        µm per pixel of level 0 across and down as the file gives them, unchecked; ``None`` where it does not.
    properties
        What else is known: ``format``, and where known ``vendor``, ``objective``, ``compression``.
    scenes
        Names of the pictures in the file that could be the slide, where it holds several; else empty.
    part
        Which of `scenes` it is; empty where there is one picture.
    bounds
        (x, y, width, height) in level-0 pixels of the scanned part, where the format has a larger canvas.
    """

    path: Path
    part: str = ""
    scenes: tuple[str, ...] = ()
    bounds: tuple[int, int, int, int] | None = None
    downsamples: tuple[float, ...] | None = None
    shapes: tuple[tuple[int, int], ...]
    chunks: tuple[tuple[int, int], ...]
    mpp_xy: tuple[float, float] | None
    properties: dict[str, str]

    @abstractmethod
    def read(self, level: int, row: int, col: int, height: int, width: int) -> RgbArray:
        """Return a new uint8 array (height, width, 3) of a region that lies inside the level; thread-safe."""

    @abstractmethod
    def close(self) -> None:
        """Release the file; further reads are errors."""

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of the content of the file."""
        return fingerprint(self.path)


def fingerprint(path: Path) -> str:
    """Return a hex digest that identifies the content of a file.

    SHA-256 of the whole content below 64 MiB. Above, reading everything would take minutes on a network disk:
    SHA-256 of the size and of 64 blocks of 256 KiB spread evenly, the first and the last bytes among them.
    """
    size = path.stat().st_size
    digest = hashlib.sha256()
    with path.open("rb") as file:
        if size < _WHOLE_BYTES:
            while block := file.read(2**20):
                digest.update(block)
        else:
            digest.update(f"{size}:".encode())
            for i in range(_BLOCKS):
                file.seek((size - _BLOCK_BYTES) * i // (_BLOCKS - 1))
                digest.update(file.read(_BLOCK_BYTES))
    return digest.hexdigest()


def how_to_mend(path: Path) -> str:
    """Return the remedy for a slide that was opened and can no longer be read."""
    if path.exists():
        return COPY_AGAIN
    return "It has been moved or deleted: put it back and open it again."


def chosen_scene(scene: str, scenes: Sequence[str], path: Path) -> int:
    """Return the index of a scene among the pictures of a file.

    Parameters
    ----------
    scene
        A name of `scenes`, or the number of one, counted from 1.

    Raises
    ------
    SlideError
        There is no such scene; the message names those that there are.
    """
    if scene in scenes:
        return scenes.index(scene)
    if scene.isdecimal() and 1 <= int(scene) <= len(scenes):
        return int(scene) - 1
    known = ", ".join(f"{number} ({name})" for number, name in enumerate(scenes, 1))
    raise SlideError(f"there is no scene {scene!r}", path=path, remedy=f"Choose from {known or 'one alone'}.")


def over_white(rgba: npt.NDArray[np.uint8], premultiplied: bool = False) -> RgbArray:
    """Blend RGBA pixels (rows, cols, 4) over white, the colour of empty glass; return (rows, cols, 3)."""
    alpha = rgba[..., 3:].astype(np.uint16)
    if alpha.size == 0 or alpha.min() == 255:
        return np.ascontiguousarray(rgba[..., :3])
    colour = rgba[..., :3].astype(np.uint16)
    if not premultiplied:
        colour = (colour * alpha + 127) // 255
    return np.minimum(colour + (255 - alpha), 255).astype(np.uint8)
