"""OME-Zarr 0.4 (zarr v2) and 0.5 (zarr v3), alone, in a SpatialData store, or as bioformats2raw writes it.

Zarr fills a chunk that is not there with zeros, as stores leave empty chunks out. A chunk that was there when
the slide was opened and is gone when it is read is therefore looked for, and is an error.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from chrep_model.errors import SlideError
from chrep_model.slides.backends import RgbArray
from chrep_model.slides.backends.tiled import TiledBackend

if TYPE_CHECKING:
    import zarr

_METADATA = ("zarr.json", ".zattrs", ".zgroup", ".zarray")
_VERSIONS = ("0.4", "0.5")
_PLANES = ("t", "z")
_TILE = 512
_MAX_CHUNK_PX = 512 * 2**20
# Smaller images are hashed whole, larger ones by names and sizes of all chunks and the content of some.
_WHOLE_BYTES = 64 * 2**20
_SAMPLED, _SAMPLE_BYTES = 64, 256 * 2**10
_CONVERT = (
    "CHRep reads H&E as three channels (red, green, blue) of uint8. Convert it, or open the original slide."
)

#: µm in the units that axes are given in: the names of the specification, and how people write them.
_UM = {"micrometer": 1.0, "micron": 1.0, "um": 1.0, "µm": 1.0, "μm": 1.0, "nanometer": 1e-3, "nm": 1e-3}
_UM |= {"angstrom": 1e-4, "millimeter": 1e3, "mm": 1e3, "centimeter": 1e4, "cm": 1e4, "meter": 1e6, "m": 1e6}


class OmeZarrBackend(TiledBackend):
    """An H&E image in an OME-Zarr folder.

    Of several images, as in a SpatialData store, the largest that is RGB in uint8; `part` then names it. Of a
    stack or a series the first plane.

    Parameters
    ----------
    path
        The folder.

    Raises
    ------
    SlideError
        There is no image in it, or it is not RGB in uint8, or the metadata are damaged.
    """

    def __init__(self, path: Path, scene: str | None = None) -> None:
        super().__init__()
        self.path = path
        try:
            images = _images(path)
            found = [_read(name, group, path) for name, group in images]
        except SlideError:
            raise
        except Exception as error:  # damaged metadata can make zarr raise anything
            what = f"the OME-Zarr metadata cannot be understood ({error or type(error).__name__})"
            raise SlideError(what, path=path, remedy="Copy or download the folder again.") from error
        readable = [image for image in found if isinstance(image, _Image)]
        if not readable:
            raise SlideError(str(found[0]) if found else _nothing(path), path=path, remedy=_CONVERT)
        image = max(readable, key=lambda image: math.prod(image.levels[0].shape))
        self.part = image.name if len(images) > 1 else ""
        self._levels: tuple[_Level, ...] | None = image.levels
        self.shapes = tuple(level.shape for level in image.levels)
        self.chunks = tuple(level.tile for level in image.levels)
        self.mpp_xy = image.mpp_xy
        self.properties = image.properties
        self._files = [dict(level.files()) for level in image.levels]
        self._folders = [level.folder for level in image.levels]

    def decode(self, level: int, i: int, j: int) -> RgbArray:
        """Return tile (i, j) of a level."""
        if self._levels is None:
            raise ValueError("the slide has been closed")
        stored, (rows, cols) = self._levels[level], self.chunks[level]
        area = {"y": _span(i, rows, stored.shape[0]), "x": _span(j, cols, stored.shape[1])}
        tile = stored.read(area)
        # Looked for after it was read: what is still there then was there meanwhile.
        for key in stored.keys(area):
            if key in self._files[level] and not (stored.folder / key).is_file():
                raise FileNotFoundError(f"its chunk {key} has been moved or deleted")
        return tile

    def close(self) -> None:
        """Release the metadata and the decoded tiles."""
        self._levels = None
        super().close()

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of the image, whatever else is in the folder.

        SHA-256 of the arrays' metadata, of the names and sizes of all their chunks, and of their content:
        the whole of it below 64 MiB, above that the first 256 KiB of 64 chunks spread evenly.
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
    """One array of a pyramid, its axes by name, and the folder that its chunks lie in."""

    array: zarr.Array[Any]
    axes: tuple[str, ...]
    folder: Path

    @property
    def shape(self) -> tuple[int, int]:
        return self._of("y", self.array.shape), self._of("x", self.array.shape)

    @property
    def tile(self) -> tuple[int, int]:
        """Whole chunks, several of them where they are small."""
        rows, cols = (self._of(axis, self.array.chunks) for axis in "yx")
        return rows * max(1, _TILE // rows), cols * max(1, _TILE // cols)

    def read(self, area: Mapping[str, slice]) -> RgbArray:
        index = tuple(area.get(axis, slice(None) if axis == "c" else 0) for axis in self.axes)
        kept = [axis for axis in self.axes if axis in "cyx"]
        pixels = np.asarray(self.array[index])
        return np.ascontiguousarray(pixels.transpose([kept.index(axis) for axis in "yxc"]))

    def keys(self, area: Mapping[str, slice]) -> Iterator[str]:
        """Names of the files that an area is stored in."""
        sizes = self.array.shards or self.array.chunks
        spans = [
            range(area[axis].start // size, math.ceil(area[axis].stop / size))
            if axis in area
            else range(math.ceil(length / size) if axis == "c" else 1)
            for axis, size, length in zip(self.axes, sizes, self.array.shape, strict=True)
        ]
        return (self.array.metadata.encode_chunk_key(place) for place in itertools.product(*spans))

    def files(self) -> Iterator[tuple[str, int]]:
        """Names and sizes of the chunks that are there."""
        for folder, _, names in os.walk(self.folder):
            for name in names:
                file = Path(folder) / name
                if not name.startswith(".") and name not in _METADATA:
                    yield file.relative_to(self.folder).as_posix(), file.stat().st_size

    def _of(self, axis: str, sizes: Sequence[int]) -> int:
        return int(sizes[self.axes.index(axis)])


@dataclass(frozen=True)
class _Image:
    """An image that can be read as a slide."""

    name: str
    levels: tuple[_Level, ...]
    mpp_xy: tuple[float, float] | None
    properties: dict[str, str]


def is_zarr(path: Path) -> bool:
    """Say whether a folder is a zarr group by the files in it."""
    return any((path / name).is_file() for name in _METADATA)


def is_slide(path: Path) -> bool:
    """Say whether a zarr folder holds an image in RGB; reads metadata only, and may raise on damaged ones."""
    return any(isinstance(_read(name, group, path), _Image) for name, group in _images(path))


def _images(path: Path) -> list[tuple[str, zarr.Group]]:
    """Return the images in a folder, by name."""
    import zarr

    # What is consolidated may be out of date: SpatialData elements are added and removed.
    root = zarr.open_group(path, mode="r", use_consolidated=False)
    if "multiscales" in _ome(root):
        return [("", root)]
    holder: Any = root.get("images") if "images" in root else root
    if not isinstance(holder, zarr.Group):
        return []
    return [(name, group) for name, group in sorted(holder.groups()) if "multiscales" in _ome(group)]


def _ome(group: zarr.Group) -> Mapping[str, Any]:
    attributes = group.attrs.asdict()
    inner = attributes.get("ome", attributes)
    return inner if isinstance(inner, Mapping) else {}


def _read(name: str, group: zarr.Group, path: Path) -> _Image | str:
    """Return an image, or why it cannot be read as a slide."""
    ome = _ome(group)
    multiscale = ome["multiscales"][0]
    version = str(ome.get("version", multiscale.get("version", "")))
    if not version.startswith(_VERSIONS):
        return f"it is OME-Zarr of version {version or 'unknown'}, not {' or '.join(_VERSIONS)}"
    axes = tuple(str(axis["name"]) for axis in multiscale["axes"])
    arrays: list[Any] = [group[dataset["path"]] for dataset in multiscale["datasets"]]
    reason = _why_not_rgb(arrays[0], axes)
    if reason:
        return reason
    levels: list[_Level] = []
    for array in arrays:
        level = _Level(array, axes, path / array.path)
        if not levels or (
            not _why_not_rgb(array, axes) and _is_next(levels[0].shape, levels[-1].shape, level.shape)
        ):
            levels.append(level)
    spatialdata = "spatialdata" in version
    properties = {"format": "SpatialData" if spatialdata else f"OME-Zarr {version}"}
    stack = [
        f"{axis} 1 of {n}" for axis, n in zip(axes, arrays[0].shape, strict=True) if axis in _PLANES and n > 1
    ]
    if stack:
        properties["plane"] = ", ".join(stack)
    return _Image(name, tuple(levels), _mpp(multiscale), properties)


def _why_not_rgb(array: Any, axes: tuple[str, ...]) -> str:
    """Say why an array cannot be read as H&E; empty where it can."""
    if (
        len(axes) != len(array.shape)
        or not set("yx") <= set(axes) <= set("tczyx")
        or len(set(axes)) != len(axes)
    ):
        return f"it has the axes {', '.join(axes)} and the shape {array.shape}, not those of an image"
    channels = array.shape[axes.index("c")] if "c" in axes else 1
    if channels != 3:
        return f"it has {channels} channel(s) instead of red, green and blue"
    if array.dtype != np.uint8:
        return f"it has pixels of {array.dtype} instead of uint8"
    if 0 in array.shape:
        return "it has no pixels"
    if math.prod(n for n, axis in zip(array.chunks, axes, strict=True) if axis in "yx") > _MAX_CHUNK_PX:
        return "it is stored in one huge chunk"
    return ""


def _is_next(base: tuple[int, int], last: tuple[int, int], shape: tuple[int, int]) -> bool:
    """Say whether an array is the next level: smaller, and of the same proportions but for rounding."""
    factor = max(base) / max(shape)
    return shape[0] < last[0] and shape[1] < last[1] and abs(min(base) / factor - min(shape)) <= 1.5


def _mpp(multiscale: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return µm per pixel (x, y), where a transformation says them in a unit that is known."""
    names = [axis["name"] for axis in multiscale["axes"]]
    own = multiscale["datasets"][0].get("coordinateTransformations", [])
    common = multiscale.get("coordinateTransformations", [])
    # OME-Zarr applies all of them; SpatialData has one for each system, some of them named like a unit.
    ways = [([*own, way], way["output"], way["output"].get("name")) for way in common if "output" in way]
    for steps, target, system in ways or [([*own, *common], multiscale, None)]:
        units = {
            axis["name"]: _UM.get(axis.get("unit", "").lower(), _UM.get(system)) for axis in target["axes"]
        }
        factors = {axis: [_factor(step, names.index(axis)) for step in steps] for axis in "xy"}
        x, y = (_product([units[axis], *factors[axis]]) if steps else None for axis in "xy")
        if x is not None and y is not None:
            return x, y
    return None


def _product(factors: Sequence[float | None]) -> float | None:
    known = [factor for factor in factors if factor is not None]
    return math.prod(known) if len(known) == len(factors) else None


def _factor(transformation: Mapping[str, Any], place: int) -> float | None:
    """Return by what a transformation scales an axis; None for one that turns or shears."""
    kind = transformation.get("type")
    if kind == "scale":
        return float(transformation["scale"][place])
    return 1.0 if kind in ("identity", "translation") else None


def _span(number: int, size: int, length: int) -> slice:
    return slice(number * size, min((number + 1) * size, length))


def _nothing(path: Path) -> str:
    import zarr

    attributes: dict[str, Any] = zarr.open_group(path, mode="r", use_consolidated=False).attrs.asdict()
    if "plate" in attributes or "plate" in attributes.get("ome", {}):
        return "this is a plate of many images, not a slide"
    return "this zarr folder holds no image"
