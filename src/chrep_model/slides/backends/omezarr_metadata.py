"""Metadata of the images in a zarr folder: which may be H&E, their axes, colours, levels and scale.

Supported are OME-Zarr 0.1 to 0.5, the images of SpatialData stores and the series of bioformats2raw. No
pixels are decoded here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from chrep_model.errors import SlideError
from chrep_model.slides.backends.levels import common_factor
from chrep_model.zarr_check import open_group, read_metadata

if TYPE_CHECKING:
    import zarr

_VERSIONS = tuple(f"0.{number}" for number in range(1, 6))
_AXES_BEFORE_03 = ("t", "c", "z", "y", "x")
_PLANES = ("t", "z")
_MAX_CHUNK_PX = 512 * 2**20
_MAX_PX = 2**40  # 250 mm of glass at 0.25 µm per pixel

# Names of images that are only used as the slide if there is no other: reduced pictures, labels, overviews.
_ASIDE = re.compile(r"(^|[\W_])(hires|lowres|thumbnail|label|macro|overview|cytassist)", re.IGNORECASE)

_COLOURS = {"r": "r", "red": "r", "g": "g", "green": "g", "b": "b", "blue": "b", "a": "a", "alpha": "a"}
_PURE = {"FF0000": "r", "00FF00": "g", "0000FF": "b"}
# Names that only number the channels.
_NUMBERED = re.compile(r"(.*?)[\s_:.-]*(\d+)")

_METRES = {
    "": 0,
    "yotta": 24,
    "zetta": 21,
    "exa": 18,
    "peta": 15,
    "tera": 12,
    "giga": 9,
    "mega": 6,
    "kilo": 3,
}
_METRES |= {"hecto": 2, "deca": 1, "deci": -1, "centi": -2, "milli": -3, "micro": -6, "nano": -9, "pico": -12}
_METRES |= {"femto": -15, "atto": -18, "zepto": -21, "yocto": -24}
#: µm per unit of length, by the names of the specification (those of UDUNITS-2).
_UM_OF_NAME = {f"{prefix}meter": 10.0 ** (power + 6) for prefix, power in _METRES.items()}
_UM_OF_NAME |= {f"{prefix}metre": 10.0 ** (power + 6) for prefix, power in _METRES.items()}
_UM_OF_NAME |= {"micron": 1.0, "angstrom": 1e-4, "ångström": 1e-4, "inch": 25_400.0, "foot": 304_800.0}
_UM_OF_NAME |= {"yard": 914_400.0, "mile": 1_609_344_000.0, "parsec": 3.0856775814913673e22}
_UM_OF_NAME |= {f"{name}s": um for name, um in _UM_OF_NAME.items()} | {"inches": 25_400.0, "feet": 304_800.0}
#: µm per unit of length, by common symbols; case matters, as in Mm and mm.
_UM_OF_SYMBOL = {"um": 1.0, "µm": 1.0, "μm": 1.0, "nm": 1e-3, "pm": 1e-6, "Å": 1e-4, "mm": 1e3}
_UM_OF_SYMBOL |= {"cm": 1e4, "dm": 1e5, "m": 1e6, "km": 1e9, "in": 25_400.0, "ft": 304_800.0}


@dataclass(frozen=True)
class ZarrPicture:
    """An image that can be read as a slide.

    Attributes
    ----------
    name
        Name of the image in the folder; empty if the folder is the image.
    arrays
        Levels as stored, the largest first.
    stated
        Level-0 pixels per pixel of each level by its transformations, or None.
    axes
        Names of the arrays' axes, from "t", "c", "z", "y", "x".
    channels
        Indices of red, green, blue and, if there is a fourth channel, alpha on the channel axis.
    named
        Whether the file names its channels red, green and blue.
    mpp_xy
        µm per pixel (x, y) of the largest level, or None.
    properties
        ``format``, and ``plane`` if the image is one plane of a stack or series.
    """

    name: str
    arrays: tuple[zarr.Array[Any], ...]
    stated: tuple[float | None, ...]
    axes: tuple[str, ...]
    channels: tuple[int, ...]
    named: bool
    mpp_xy: tuple[float, float] | None
    properties: dict[str, str]

    def sides(self, lengths: Sequence[int]) -> tuple[int, int]:
        """Return (rows, cols) from a shape or chunk shape with one number per axis."""
        return int(lengths[self.axes.index("y")]), int(lengths[self.axes.index("x")])

    @property
    def rank(self) -> tuple[bool, bool, int]:
        """Sort key, highest for the slide: not a reduced copy, then named colours, then most pixels."""
        return not _ASIDE.search(self.name), self.named, math.prod(self.sides(self.arrays[0].shape))


def um_of_unit(unit: object) -> float | None:
    """Return the µm per unit of length, by the unit's name or symbol; None if it is unknown or missing."""
    if not isinstance(unit, str):
        return None
    unit = unit.strip()
    return _UM_OF_SYMBOL.get(unit, _UM_OF_NAME.get(unit.lower()))


def find_pictures(path: Path, *, metadata_only: bool = False) -> tuple[list[ZarrPicture], list[str]]:
    """Return the images in a zarr folder that can be read as a slide, and why others cannot.

    Parameters
    ----------
    path
        The folder.
    metadata_only
        Whether only metadata will be read, see `check_zarr`.

    Raises
    ------
    SlideError
        The folder is not safe to open, or is a plate or an array.
    """
    if _is_array(path):
        what = "this folder is one zarr array without the metadata of an image"
        raise SlideError(what, path=path, remedy="Open the OME-Zarr folder that holds it.")
    root = open_group(path, SlideError, whole=False, metadata_only=metadata_only)
    attributes = _ome(root)
    if "plate" in attributes or "well" in attributes:
        what = "this is a plate of many images, not a slide"
        raise SlideError(what, path=path, remedy="Open one of its images.")
    pictures: list[ZarrPicture] = []
    reasons: list[str] = []
    for name, group in _image_groups(root):
        multiscales = _ome(group)["multiscales"]
        for number, multiscale in enumerate(multiscales, 1):
            known = name
            if len(multiscales) > 1:
                known = f"{name} {multiscale.get('name') or number}".strip()
            found = _picture(known, group, multiscale)
            if isinstance(found, ZarrPicture):
                pictures.append(found)
            else:
                reasons.append(found)
    return pictures, reasons


def _is_array(path: Path) -> bool:
    if (path / ".zarray").is_file():
        return True
    file = path / "zarr.json"
    try:
        return file.is_file() and read_metadata(file).get("node_type") == "array"
    except (ValueError, AttributeError):  # reported by the check
        return False


def _image_groups(root: zarr.Group) -> list[tuple[str, zarr.Group]]:
    """Return the groups that hold images: the root, those of SpatialData, or a bioformats2raw series."""
    import zarr

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


def _picture(name: str, group: zarr.Group, multiscale: Mapping[str, Any]) -> ZarrPicture | str:
    """Return an image, or the reason why it cannot be read as a slide."""
    ome = _ome(group)
    version = str(ome.get("version") or multiscale.get("version") or "")
    if version and not version.startswith(_VERSIONS):
        return f"it is OME-Zarr of version {version}, not {_VERSIONS[0]} to {_VERSIONS[-1]}"
    if "image-label" in ome:
        return "it is a label image"
    datasets = list(multiscale["datasets"])
    arrays: list[Any] = []
    for dataset in datasets:
        if dataset["path"] not in group:  # otherwise another level would be used as level 0
            return f"its level {dataset['path']!r} is not in the folder"
        arrays.append(group[dataset["path"]])
    axes = _axes(multiscale, arrays[0])
    if not set("yx") <= set(axes) <= set("tczyx") or len(set(axes)) != len(axes):
        return f"it has the axes {', '.join(axes) or 'of no name'} and the shape {arrays[0].shape}"
    fitting = [number for number, array in enumerate(arrays) if len(array.shape) == len(axes)]
    if not fitting:
        return f"it has the axes {', '.join(axes)} and the shape {arrays[0].shape}, not those of an image"
    # Some programs do not write the datasets in order of size.
    order = sorted(fitting, key=lambda number: -math.prod(_rows_cols(arrays[number], axes)))
    channels = _channels(_channel_names(ome, multiscale), _channel_colours(ome), arrays[order[0]], axes)
    reason = channels if isinstance(channels, str) else _why_not_rgb(arrays[order[0]], axes)
    if isinstance(channels, str) or reason:
        return reason
    transforms = [_Transform.of(multiscale, dataset, axes) for dataset in datasets]
    base, own = arrays[order[0]], transforms[order[0]]
    kept = [
        number
        for number in order
        if _may_be_level(base, arrays[number], axes) and not _is_elsewhere(own, transforms[number])
    ]
    spatialdata = "spatialdata" in version or "spatialdata_attrs" in group.attrs
    stated = tuple(_stated_scale(own, transforms[number]) for number in kept)
    # If a smaller level has smaller pixels, the scales are assigned to the wrong levels.
    mixed_up = any(factor is not None and factor < 1 for factor in stated)
    properties = {"format": "SpatialData" if spatialdata else f"OME-Zarr {version}".strip()}
    stack = [
        f"{axis} 1 of {n}" for axis, n in zip(axes, base.shape, strict=True) if axis in _PLANES and n > 1
    ]
    if stack:
        properties["plane"] = ", ".join(stack)
    return ZarrPicture(
        name=name,
        arrays=tuple(arrays[number] for number in kept),
        stated=stated,
        axes=axes,
        channels=channels,
        named=bool(_named(_channel_names(ome, multiscale))),
        mpp_xy=None if mixed_up else own.mpp_xy,
        properties=properties,
    )


def _axes(multiscale: Mapping[str, Any], array: Any) -> tuple[str, ...]:
    """Return the names of the axes; before version 0.3 they are always the same five."""
    axes = multiscale.get("axes")
    if not axes:
        return _AXES_BEFORE_03 if len(array.shape) == len(_AXES_BEFORE_03) else ()
    return tuple(str(axis["name"] if isinstance(axis, Mapping) else axis).lower() for axis in axes)


def _rows_cols(array: Any, axes: tuple[str, ...]) -> tuple[int, int]:
    return int(array.shape[axes.index("y")]), int(array.shape[axes.index("x")])


def _channel_names(ome: Mapping[str, Any], multiscale: Mapping[str, Any]) -> list[str]:
    for holder in (ome.get("omero"), multiscale.get("channels_metadata")):
        if isinstance(holder, Mapping) and isinstance(holder.get("channels"), list):
            labels = [channel.get("label") for channel in holder["channels"]]
            return ["" if label is None else str(label).strip() for label in labels]
    return []


def _channel_colours(ome: Mapping[str, Any]) -> list[str]:
    omero = ome.get("omero")
    channels = omero.get("channels") if isinstance(omero, Mapping) else None
    return [str(channel.get("color", "")).upper().lstrip("#") for channel in channels or ()]


def _named(names: Sequence[str]) -> list[str]:
    """Return r, g, b or a for each channel; an empty list unless every channel is named for a colour."""
    colours = [_COLOURS.get(re.sub(r"[\s_-]*channel$", "", name.lower()), "") for name in names]
    return colours if sorted(colours) in (["b", "g", "r"], ["a", "b", "g", "r"]) else []


def _only_numbered(names: Sequence[str]) -> bool:
    """Return whether channels have no names, or one word with a number such as "Channel 1"."""
    if not any(names):
        return True
    found = [_NUMBERED.fullmatch(name) for name in names]
    words, numbers = {m[1] if m else None for m in found}, [int(m[2][-9:]) if m else -1 for m in found]
    first = numbers[0]
    counted = first in (0, 1) and numbers == list(range(first, first + len(names)))
    return counted and None not in words and len(words) == 1


def _channels(
    names: list[str], shades: list[str], array: Any, axes: tuple[str, ...]
) -> tuple[int, ...] | str:
    """Return the indices of red, green, blue (and alpha) on the channel axis, or why there are none."""
    count = array.shape[axes.index("c")] if "c" in axes else 1
    if count not in (3, 4):
        return f"it has {count} channel(s) instead of red, green and blue"
    if len(names) != count:
        names = [""] * count
    colours = _named(names)
    if not colours and not _only_numbered(names):
        return f"its channels are {', '.join(names)}, not red, green and blue: it is no H&E"
    if not colours and len(shades) == count == 3:
        colours = [_PURE.get(shade, "") for shade in shades]
    if sorted(colours) in (["b", "g", "r"], ["a", "b", "g", "r"]):
        return tuple(colours.index(colour) for colour in "rgba"[:count])
    return tuple(range(count))


def _why_not_rgb(array: Any, axes: tuple[str, ...]) -> str:
    """Return why an array of three or four channels cannot be read as H&E; empty if it can."""
    if array.dtype != np.uint8:
        return f"it has pixels of {array.dtype} instead of uint8"
    if 0 in array.shape:
        return "it has no pixels"
    if math.prod(_rows_cols(array, axes)) > _MAX_PX:
        return f"its {array.shape} pixels are more than any slide has"
    if math.prod(n for n, axis in zip(array.chunks, axes, strict=True) if axis in "yx") > _MAX_CHUNK_PX:
        return "it is stored in one huge chunk"
    return ""


@dataclass(frozen=True)
class _Transform:
    """Pixel size and origin (x, y) of one level in the units of the axes, and its µm per px."""

    pixel: tuple[float, float] | None
    origin: tuple[float, float]
    mpp_xy: tuple[float, float] | None

    @classmethod
    def of(
        cls, multiscale: Mapping[str, Any], dataset: Mapping[str, Any], axes: tuple[str, ...]
    ) -> _Transform:
        own, common = (holder.get("coordinateTransformations") or [] for holder in (dataset, multiscale))
        places = [axes.index(axis) for axis in "xy"]
        pixel = [_scale(own, place) for place in places]
        origin = [_shift(own, place) for place in places]
        # OME-Zarr applies all of them; SpatialData has one per coordinate system, some named after units.
        ways = [([*own, way], way["output"]) for way in common if "output" in way]
        for steps, target in ways or [([*own, *common], multiscale)]:
            mpp = _um_per_pixel(steps, target, places)
            if mpp is not None:
                break
        known = pixel[0] is not None and pixel[1] is not None
        return cls((pixel[0], pixel[1]) if known else None, (origin[0], origin[1]), mpp)  # type: ignore[arg-type]


def _um_per_pixel(
    steps: Sequence[Mapping[str, Any]], target: Mapping[str, Any], places: Sequence[int]
) -> tuple[float, float] | None:
    units: dict[str, float | None] = {}
    for axis in target.get("axes") or ():
        if isinstance(axis, Mapping):
            units[str(axis["name"]).lower()] = um_of_unit(axis.get("unit")) or um_of_unit(target.get("name"))
    if not steps:
        return None
    x, y = (
        None if (um := units.get(axis)) is None or (scale := _scale(steps, place)) is None else um * scale
        for axis, place in zip("xy", places, strict=True)
    )
    return None if x is None or y is None else (x, y)


def _scale(steps: Sequence[Mapping[str, Any]], place: int) -> float | None:
    """Return the factor by which transformations scale an axis; None if one rotates or cannot be read."""
    factor = 1.0
    for step in steps:
        kind = step.get("type")
        if kind == "scale" and isinstance(step.get("scale"), Sequence):
            factor *= float(step["scale"][place])
        elif kind not in ("identity", "translation"):
            return None
    return factor if math.isfinite(factor) and factor > 0 else None


def _shift(steps: Sequence[Mapping[str, Any]], place: int) -> float:
    """Return the distance by which transformations shift an axis, in the units of the last one's output."""
    moved = 0.0
    for step in steps:
        if step.get("type") == "scale" and isinstance(step.get("scale"), Sequence):
            moved *= float(step["scale"][place])
        elif step.get("type") == "translation" and isinstance(step.get("translation"), Sequence):
            moved += float(step["translation"][place])
    return moved


def _may_be_level(base: Any, array: Any, axes: tuple[str, ...]) -> bool:
    """Return whether an array has as many channels as the largest one, and can be read as RGB."""
    place = axes.index("c")
    return array.shape[place] == base.shape[place] and not _why_not_rgb(array, axes)


def _stated_scale(base: _Transform, level: _Transform) -> float | None:
    """Return level-0 pixels per pixel of a level; None if not stated, or different across and down."""
    if base.pixel is None or level.pixel is None:
        return None
    x, y = (small / large for small, large in zip(level.pixel, base.pixel, strict=True))
    return common_factor((y, x))


def _is_elsewhere(base: _Transform, level: _Transform) -> bool:
    """Return whether a level's origin is more than one of its pixels away from that of level 0."""
    if base.pixel is None or level.pixel is None:
        return False
    sides = zip(base.origin, level.origin, level.pixel, strict=True)
    return any(abs(there - here) > pixel * 1.01 for here, there, pixel in sides)
