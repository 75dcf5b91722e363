"""Read OME-Zarr (zarr v2 and v3): single images, SpatialData stores, and the output of bioformats2raw.

Zarr reads a missing chunk as zeros, because stores omit empty chunks. A chunk that existed when the slide was
opened and is missing when it is read is therefore detected here, and is an error.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from chrep_model.errors import SlideError
from chrep_model.slides.backends import DARK, RgbArray, chosen_scene, over_white
from chrep_model.slides.backends.levels import placed_levels
from chrep_model.slides.backends.omezarr_metadata import ZarrPicture, find_pictures
from chrep_model.slides.backends.tiled import TiledBackend
from chrep_model.zarr_check import METADATA
from chrep_model.zarr_check.arrays import check_blosc

if TYPE_CHECKING:
    import zarr

_TILE = 512
# An unnamed fourth channel is alpha if this share of its central pixels is fully opaque or transparent.
_OPAQUE, _MIDDLE_PX = 0.98, 1024
# Smaller images are hashed as a whole, larger ones by names and sizes of all chunks and the content of some.
_WHOLE_BYTES = 64 * 2**20
_SAMPLED, _SAMPLE_BYTES = 64, 256 * 2**10
_CONVERT = (
    "CHRep reads H&E as three channels (red, green, blue) of uint8. Convert it, or open the original slide."
)


class OmeZarrBackend(TiledBackend):
    """An H&E image in an OME-Zarr folder.

    Of several images, as in a SpatialData store, the largest uint8 RGB image is used unless one is chosen;
    images called label, macro, thumbnail, hires or lowres come last. Of a stack or series the first plane is
    used.

    Parameters
    ----------
    path
        The folder.
    scene
        Name or number of the image, if there are several.

    Raises
    ------
    SlideError
        The folder has no image, the image is not uint8 RGB, or the metadata are damaged or not safe to read.
    """

    def __init__(self, path: Path, scene: str | None = None) -> None:
        super().__init__()
        self.path = path
        pictures, reasons = _pictures(path)
        names = tuple(picture.name or path.name for picture in pictures)
        self.scenes = names if len(names) > 1 else ()
        if scene is not None:
            pictures = [pictures[chosen_scene(scene, names, path)]]
        if not pictures:
            what = reasons[0] if reasons else "this zarr folder holds no image"
            raise SlideError(what, path=path, remedy=_CONVERT)
        picture = max(pictures, key=lambda picture: picture.rank)
        self.part = picture.name if self.scenes else ""
        stored = [_Level(array, picture, path / array.path) for array in picture.arrays]
        levels = placed_levels(
            [level.shape for level in stored],
            [picture.sides(level.array.chunks) for level in stored],
            picture.stated,
            lambda number, *region: stored[number].region(*region),
        )
        self._levels: tuple[_Level, ...] | None = tuple(stored[number] for number, _ in levels)
        self.shapes = tuple(placing.shape for _, placing in levels)
        self.downsamples = tuple(placing.factor for _, placing in levels)
        self.chunks = tuple(level.tile for level in self._levels)
        self.mpp_xy = picture.mpp_xy
        self.properties = dict(picture.properties)
        self._files = [dict(level.files()) for level in self._levels]
        self._folders = [level.folder for level in self._levels]

    def decode(self, level: int, i: int, j: int) -> RgbArray:
        """Return tile (i, j) of a level."""
        levels = self._levels
        if levels is None:
            raise ValueError("the slide has been closed")
        stored, (rows, cols) = levels[level], self.chunks[level]
        area = {"y": _span(i, rows, stored.shape[0]), "x": _span(j, cols, stored.shape[1])}
        wanted = list(stored.keys(area))
        keys = [key for key in wanted if key in self._files[level]]
        tile = stored.read(area)
        if len(keys) < len(wanted):
            stored.refuse_half_colours(area, tile, self._files[level])
        # Checked after reading: chunks that still exist were there during the read.
        for key in keys:
            if not (stored.folder / key).is_file():
                raise FileNotFoundError(f"its chunk {key} has been moved or deleted")
        return tile

    def close(self) -> None:
        """Free the metadata and the decoded tiles."""
        self._levels = None
        super().close()

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of the image, independent of other content of the folder.

        SHA-256 of the arrays' metadata, of the names and sizes of all their chunks, and of their content: all
        of it below 64 MiB, and the first 256 KiB of 64 evenly spread chunks for larger images.
        """
        digest = hashlib.sha256()
        chunks = [
            (folder / key, size)
            for folder, files in zip(self._folders, self._files, strict=True)
            for key, size in sorted(files.items())
        ]
        for folder in self._folders:
            for name in ("zarr.json", ".zarray"):
                if (folder / name).is_file():
                    digest.update((folder / name).read_bytes())
        for file, size in chunks:
            digest.update(f"{file.relative_to(self.path).as_posix()}:{size};".encode())
        whole = sum(size for _, size in chunks) < _WHOLE_BYTES
        picked = range(len(chunks)) if whole else np.linspace(0, len(chunks) - 1, _SAMPLED).astype(int)
        for at in picked:
            with chunks[at][0].open("rb") as stream:
                digest.update(stream.read(-1 if whole else _SAMPLE_BYTES))
        return digest.hexdigest()


@dataclass(frozen=True)
class _Level:
    """One array of a pyramid, and the folder with its chunks."""

    array: zarr.Array[Any]
    picture: ZarrPicture
    folder: Path

    @property
    def shape(self) -> tuple[int, int]:
        """Stored size (rows, cols)."""
        return self.picture.sides(self.array.shape)

    @property
    def tile(self) -> tuple[int, int]:
        """Size (rows, cols) of a tile: one chunk, or several if chunks are small."""
        rows, cols = self.picture.sides(self.array.chunks)
        return rows * max(1, _TILE // rows), cols * max(1, _TILE // cols)

    @property
    def is_blosc(self) -> bool:
        """Whether each file is one chunk whose last compression step was Blosc."""
        last = self.array.compressors[-1:] if self.array.shards is None else ()
        return any("blosc" in type(codec).__name__.lower() for codec in last)

    def read(self, area: Mapping[str, slice]) -> RgbArray:
        """Read the pixels (rows, cols, 3) of an area; raises if one of its chunks is incomplete."""
        if self.is_blosc:
            for key in self.keys(area):
                with suppress(FileNotFoundError):  # an empty chunk
                    check_blosc(self.folder / key)
        axes = self.picture.axes
        index = tuple(area.get(axis, slice(None) if axis == "c" else 0) for axis in axes)
        kept = [axis for axis in axes if axis in "cyx"]
        pixels = np.asarray(self.array[index]).transpose([kept.index(axis) for axis in "yxc"])
        pixels = pixels[..., list(self.picture.channels)]
        return over_white(pixels) if pixels.shape[-1] == 4 else np.ascontiguousarray(pixels)

    def refuse_half_colours(
        self, area: Mapping[str, slice], pixels: RgbArray, there: Mapping[str, int]
    ) -> None:
        """Check that no chunk is missing in some colours only; black chunks are omitted in all colours.

        Parameters
        ----------
        area
            Area of the level that consists of whole chunks.
        pixels
            Pixels read from this area.
        there
            Names and sizes of the level's files.
        """
        if self.array.shards is not None or len(self.picture.channels) != 3:
            return
        rows, cols = self.picture.sides(self.array.chunks)
        for top in range(0, pixels.shape[0], rows):
            for left in range(0, pixels.shape[1], cols):
                part = pixels[top : top + rows, left : left + cols]
                row, col = area["y"].start + top, area["x"].start + left
                place = {"y": slice(row, row + part.shape[0]), "x": slice(col, col + part.shape[1])}
                lost = [key for key in self.keys(place) if key not in there]
                if lost and part.max() > DARK and (part.max(axis=(0, 1)) == 0).any():
                    raise FileNotFoundError(
                        f"its chunk {lost[0]} is not there, but those of other colours are"
                    )

    def keys(self, area: Mapping[str, slice]) -> Iterator[str]:
        """Yield the names of the files that store an area."""
        sizes = self.array.shards or self.array.chunks
        spans = [
            range(area[axis].start // size, math.ceil(area[axis].stop / size))
            if axis in area
            else range(math.ceil(length / size) if axis == "c" else 1)
            for axis, size, length in zip(self.picture.axes, sizes, self.array.shape, strict=True)
        ]
        return (self.array.metadata.encode_chunk_key(place) for place in itertools.product(*spans))

    def files(self) -> Iterator[tuple[str, int]]:
        """Yield the names and sizes of the chunks that exist."""
        for folder, _, names in os.walk(self.folder):
            for name in names:
                file = Path(folder) / name
                if not name.startswith(".") and name not in METADATA:
                    yield file.relative_to(self.folder).as_posix(), file.stat().st_size

    def region(self, row: int, col: int, height: int, width: int) -> RgbArray:
        """Read the pixels (height, width, 3) of a region inside the level."""
        return self.read({"y": slice(row, row + height), "x": slice(col, col + width)})


def is_zarr(path: Path) -> bool:
    """Return whether a folder is a zarr group, by the files in it."""
    return any((path / name).is_file() for name in METADATA)


def is_slide(path: Path) -> bool:
    """Return whether a zarr folder holds an RGB image, by its metadata alone; may raise if damaged."""
    return bool(find_pictures(path, metadata_only=True)[0])


def _pictures(path: Path) -> tuple[list[ZarrPicture], list[str]]:
    """Return the images of a folder that can be read as a slide, and for the others the reasons why not."""
    try:
        found, reasons = find_pictures(path)
        pictures = []
        for picture in (_written(picture, path) for picture in found):
            reason = _why_not_seen(picture)
            if reason:
                reasons.append(reason)
            else:
                pictures.append(picture)
    except SlideError:
        raise
    except Exception as error:  # damaged metadata can make zarr raise anything
        what = f"the OME-Zarr metadata cannot be understood ({error or type(error).__name__})"
        raise SlideError(what, path=path, remedy="Copy or download the folder again.") from error
    return pictures, reasons


def _written(picture: ZarrPicture, path: Path) -> ZarrPicture:
    """Return the picture without levels that have no chunks, which would be read as black.

    Such levels exist if a program or a copy was interrupted. If the largest level is one, all levels are
    removed, since a smaller one must not replace it.
    """
    there = [any(_Level(array, picture, path / array.path).files()) for array in picture.arrays]
    kept = [number for number, is_there in enumerate(there) if is_there and there[0]]
    arrays = tuple(picture.arrays[number] for number in kept)
    return replace(picture, arrays=arrays, stated=tuple(picture.stated[number] for number in kept))


def _why_not_seen(picture: ZarrPicture) -> str:
    """Return why a picture's pixels cannot be those of an H&E slide; empty if they can."""
    if not picture.arrays:
        return "no chunk of its largest level was ever written"
    if picture.named:
        return ""
    colours, alpha = np.split(_middle(picture), [3], axis=-1)
    if alpha.size and not (np.mean((alpha == 0) | (alpha == 255)) > _OPAQUE and (alpha == 255).any()):
        return "it has 4 channel(s) that nobody names instead of red, green and blue"
    if not alpha.size and colours.mean() < DARK:
        return "its three channels have no names and are dark, as those of fluorescence are"
    return ""


def _middle(picture: ZarrPicture) -> RgbArray:
    """Read the centre of the smallest level, (rows, cols, channels) as stored."""
    places: dict[str, Any] = {"c": slice(None)}
    for axis, side in zip("yx", picture.sides(picture.arrays[-1].shape), strict=True):
        start = max(0, (side - _MIDDLE_PX) // 2)
        places[axis] = slice(start, start + _MIDDLE_PX)
    pixels = np.asarray(picture.arrays[-1][tuple(places.get(axis, 0) for axis in picture.axes)])
    kept = [axis for axis in picture.axes if axis in "cyx"]
    return pixels.transpose([kept.index(axis) for axis in "yxc"])


def _span(number: int, size: int, length: int) -> slice:
    return slice(number * size, min((number + 1) * size, length))
