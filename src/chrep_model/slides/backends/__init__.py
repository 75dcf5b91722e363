"""Readers of slide files, one module per family of formats; `Slide` is the only caller.

A reader lists the levels of a file and returns the pixels of a region inside a level. Padding, scale,
pyramids and tiles are the same for all formats, and implemented in `Slide` and the modules beside it.
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
"""Version of the decoding, increased when it changes pixels, so that stored embeddings are computed again."""

COPY_AGAIN = "Copy or download the file again."

# Largest picture without tiles; it has to be decoded as a whole, in memory.
MAX_DECODED_PX = 2_000_000_000

# Unnamed channels with a smaller mean grey value are fluorescence, because the glass of H&E slides is bright.
DARK = 80.0

# Smaller files are hashed as a whole, larger ones by their size and some blocks spread over the file.
_WHOLE_BYTES = 64 * 2**20
_BLOCKS, _BLOCK_BYTES = 64, 256 * 2**10


class NeedsOpenSlideError(ChrepError):
    """Raised for a slide in a vendor's format that only OpenSlide reads; the message names the format."""


class Backend(ABC):
    """Base class of readers: an open slide file with its levels and pixels.

    Attributes
    ----------
    path
        The file (or folder) that was opened.
    shapes
        (rows, cols) of each level without padding, the largest first, strictly decreasing.
    downsamples
        Level-0 pixels per pixel of each level, if the format states them; ``None`` if they follow from the
        sizes.
    chunks
        (rows, cols) of the units in which each level is decoded; reading whole ones is most efficient.
    mpp_xy
        µm per pixel of level 0 across and down as stated in the file, unchecked; ``None`` if not stated.
    properties
        Other facts: ``format``, and if known ``vendor``, ``objective`` and ``compression``.
    scenes
        Names of the pictures that can be the slide in a file with several; else empty.
    part
        Name of the open picture among `scenes`; empty if there is only one picture.
    bounds
        (x, y, width, height) of the scanned part in level-0 pixels, for formats with a larger canvas.
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
        """Read a region inside a level as a new uint8 array (height, width, 3); thread-safe."""

    @abstractmethod
    def close(self) -> None:
        """Close the file; later reads raise an error."""

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of the content of the file."""
        return fingerprint(self.path)


def fingerprint(path: Path) -> str:
    """Return a hex digest that identifies the content of a file.

    SHA-256 of the whole content below 64 MiB. For larger files, which would take minutes to read on a network
    disk, SHA-256 of the size and of 64 evenly spread blocks of 256 KiB, including the first and last bytes.
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
        There is no such scene; the message lists the existing ones.
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
