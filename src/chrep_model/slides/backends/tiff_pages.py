"""Selection of the directories ("pages") of a TIFF file that are slide pictures, or levels of one.

Files hold more than the slide: thumbnails, photographs of the label, masks, other sections. Which picture can
be the slide is decided here from the directories and the metadata; whether a smaller picture is a level of a
larger one is decided by comparing pixels, in `chrep_model.slides.backends.level_geometry`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from chrep_model.errors import SlideError
from chrep_model.slides.backends import MAX_DECODED_PX, NeedsOpenSlideError
from chrep_model.slides.backends.tiff_levels import JPEG
from chrep_model.slides.backends.tiff_metadata import OmeImage, ome_images

Pages = tuple[tifffile.TiffPage, ...]

CONVERT = "Convert it to a tiled, pyramidal TIFF with 8-bit RGB, for example with QuPath or vips."

# Vendors' formats that are TIFF files, but with a layout of tiles of their own.
_LEFT_TO_OPENSLIDE = {"is_ndpi": "Hamamatsu NDPI", "is_bif": "Ventana BIF", "is_scn": "Leica SCN"}
_LEFT_TO_OPENSLIDE |= {"is_philips": "Philips TIFF"}
_APERIO_JP2K_YCC = 33003  # JPEG 2000 in unmarked YCbCr, which tifffile would return as RGB
_MAX_PAGES = 64  # a pyramid has fewer; a file with thousands of pages is a stack
_MAX_TILE_PX = 512 * 2**20
_UNCOMPRESSED = 1
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType

# Names of pictures that are never the slide.
_NO_SLIDE = re.compile(
    r"(?<![a-z])(labels?|macro|overview|thumb(nail)?|barcode|masks?|annotations?)(?![a-z])", re.IGNORECASE
)
_APERIO_THUMBNAIL = re.compile(r"->\s*\d+x\d+\s*-")  # levels have a compression instead of a second dash
_SHORT = 64  # longer descriptions are reports, in which such words do not name the picture

_COLOURS = {"red": 0, "r": 0, "green": 1, "g": 1, "blue": 2, "b": 2}
_UNNAMED = re.compile(r"(channel|ch|c|#)?[\s:_#-]*\d*([:_-]\d+)*", re.IGNORECASE)
_FLUORESCENT = ("Fluor", "EmissionWavelength", "ExcitationWavelength")
_PRIMARIES = {0xFF0000: 0, 0x00FF00: 1, 0x0000FF: 2}  # red, green, blue as OME writes colours, without alpha


@dataclass(frozen=True, eq=False)
class TiffPicture:
    """A picture in a file, with the levels that the file itself assigns to it.

    Attributes
    ----------
    name
        Name in the file, or the picture's number, counted from 1.
    levels
        The directories of each level, the largest first: one, or those of red, green and blue.
    image
        OME metadata of the picture, if any.
    named_channels
        Whether the file names its channels red, green and blue.
    unusable
        Why it cannot be read as RGB; empty if it can.
    """

    name: str
    levels: tuple[Pages, ...]
    image: OmeImage | None = None
    named_channels: bool = True
    unusable: str = ""

    @property
    def page(self) -> tifffile.TiffPage:
        """First directory of level 0."""
        return self.levels[0][0]

    @property
    def area(self) -> int:
        """Number of pixels of level 0."""
        return int(self.page.imagewidth) * int(self.page.imagelength)

    @property
    def is_reduced(self) -> bool:
        """Whether the file marks it as a reduced version or a mask of another picture."""
        return bool(int(self.page.subfiletype) & (_REDUCED | _MASK))


def pictures(tif: tifffile.TiffFile) -> list[TiffPicture]:
    """Return the pictures of a file in file order; at least one.

    Raises
    ------
    NeedsOpenSlideError
        The file is in a vendor's format that only OpenSlide reads.
    ValueError
        The file has no picture.
    """
    for flag, name in _LEFT_TO_OPENSLIDE.items():
        if getattr(tif, flag):
            raise NeedsOpenSlideError(name)
    found = _ome_pictures(tif) if tif.is_ome else []
    if not found:
        pages = [page.aspage() for page in islice(tif.pages, _MAX_PAGES)]
        found = [_picture(page, number) for number, page in enumerate(pages, 1)]
    if not found:
        raise ValueError("it holds no picture")
    if any(len(picture.levels[0]) == 1 and picture.page.compression == _APERIO_JP2K_YCC for picture in found):
        raise NeedsOpenSlideError("Aperio SVS with JPEG 2000 in YCbCr")
    return found


def slides(found: Sequence[TiffPicture], path: Path) -> list[TiffPicture]:
    """Return the pictures that can be the slide, the likeliest first.

    The likeliest is the largest RGB picture in tiles, or the largest one if none has tiles. Pictures named as
    a label, a mask or an overview, and those marked as reduced, are excluded.

    Raises
    ------
    SlideError
        No picture can be the slide.
    """
    usable = [picture for picture in found if not picture.unusable and not picture.is_reduced]
    if not usable:
        reason = (
            max(found, key=lambda picture: picture.area).unusable or "it holds nothing but reduced pictures"
        )
        raise SlideError(reason, path=path, remedy=f"CHRep reads H&E in 8-bit RGB. {CONVERT}")
    if len(found) > 1:
        usable = [picture for picture in usable if not _is_no_slide(picture)]
        if not usable:
            what = "it holds pictures of a label, a mask or an overview, but no slide"
            raise SlideError(what, path=path, remedy="Open the file that has the slide itself.")
    usable = [picture for picture in usable if picture.page.is_tiled] or usable

    def size_and_scale(picture: TiffPicture) -> tuple[int, float]:
        mpp = picture.image.mpp_xy if picture.image is not None else None
        return picture.area, -mpp[0] if mpp is not None else -math.inf

    return sorted(usable, key=size_and_scale, reverse=True)


def may_be_level(picture: TiffPicture, base: TiffPicture, found: Sequence[TiffPicture]) -> bool:
    """Return whether a picture may be a level of another one, by the file's metadata.

    It must be marked as reduced, or have tiles and come after the other one: programs write thumbnails
    before it, and levels after it.
    """
    if picture.unusable or int(picture.page.subfiletype) & _MASK or _is_no_slide(picture):
        return False
    behind = found.index(picture) > found.index(base)
    return picture.is_reduced or bool(picture.page.is_tiled and behind)


def why_not_rgb(page: tifffile.TiffPage) -> str:
    """Return why a directory cannot be read as 8-bit RGB; empty if it can."""
    photometric = getattr(page.photometric, "name", str(page.photometric))
    compression = getattr(page.compression, "name", str(page.compression))
    if page.dtype != np.uint8:
        return f"it has {page.bitspersample}-bit pixels ({page.dtype}, {photometric}) instead of 8-bit RGB"
    if page.samplesperpixel not in (3, 4) or photometric not in ("RGB", "YCBCR"):
        return f"it has {page.samplesperpixel} channel(s) of kind {photometric} instead of RGB"
    if photometric == "YCBCR" and page.compression not in JPEG:
        return f"it stores YCbCr colours with the compression {compression}, which cannot be read"
    return _why_no_pixels(page)


def _why_no_pixels(page: tifffile.TiffPage) -> str:
    area = int(page.imagewidth) * int(page.imagelength)
    if page.imagedepth != 1 or area == 0:
        return "it has no pixels, or is a volume"
    if page.is_tiled:
        tile = int(page.tilewidth) * int(page.tilelength)
        return "" if tile > 0 and min(tile, area) <= _MAX_TILE_PX else "it is one huge tile"
    if page.rowsperstrip == 0:
        return "it has no rows"
    strip = min(int(page.rowsperstrip) * int(page.imagewidth), area)
    if page.compression != _UNCOMPRESSED and strip > _MAX_TILE_PX and area > MAX_DECODED_PX:
        return (
            f"it is one picture of {page.imagewidth} x {page.imagelength} pixels without tiles, so it would "
            "have to be decoded whole"
        )
    return ""


def _picture(page: tifffile.TiffPage, number: int) -> TiffPicture:
    below = [sub.aspage() for sub in islice(page.pages or (), _MAX_PAGES)]
    smaller = [(sub,) for sub in below if not int(sub.subfiletype) & _MASK and not why_not_rgb(sub)]
    return TiffPicture(f"page {number}", ((page,), *smaller), unusable=why_not_rgb(page))


def _ome_pictures(tif: tifffile.TiffFile) -> list[TiffPicture]:
    """Return the images in the OME metadata; none if it does not describe this file."""
    series = [each for each in tif.series if each.kind == "ome"]
    images = ome_images(tif) if series else {}
    return [_ome_picture(each, images.get(each.keyframe.index), n) for n, each in enumerate(series, 1)]


def _ome_picture(series: Any, image: OmeImage | None, number: int) -> TiffPicture:
    name = (image.name if image is not None else "") or f"image {number}"
    planes = {
        axis: n for n, axis in zip(series.shape, series.axes, strict=True) if axis not in "YXS" and n > 1
    }
    if not planes:
        first, *smaller = ((level.keyframe,) for level in series.levels)
        levels = (first, *(pages for pages in smaller if not why_not_rgb(pages[0])))
        return TiffPicture(name, levels, image, unusable=why_not_rgb(first[0]))
    page = series.keyframe
    order, named, reason = _colour_order(image.channels if image is not None else ())
    if planes != {"C": 3} or page.samplesperpixel != 1 or page.dtype != np.uint8:
        reason = (
            f"it is a stack or has separate channels (axes {series.axes}, shape {series.shape}, "
            f"{page.dtype}), not one RGB image as H&E is"
        )
    reason = reason or _why_no_pixels(page)
    if reason:
        return TiffPicture(name, ((page,),), image, unusable=reason)
    levels = tuple(tuple(level.pages[i].aspage() for i in order) for level in series.levels)
    alike = [_layout(pages[0]) == _layout(page) for pages in levels for page in pages]
    reason = "" if all(alike) else "its channels are stored in different ways"
    return TiffPicture(name, levels, image, named, reason)


def _layout(page: tifffile.TiffPage) -> tuple[Any, ...]:
    tile = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip,)
    return (page.shape, page.dtype, page.compression, page.photometric, *tile)


def _colour_order(channels: Sequence[Mapping[str, str]]) -> tuple[tuple[int, ...], bool, str]:
    """Return the indices of red, green and blue, whether names say so, and why they are not found."""
    names = [channel.get("Name", "").strip() for channel in channels]
    known = [_COLOURS.get(name.lower()) for name in names]
    if sorted(place for place in known if place is not None) == [0, 1, 2] and len(known) == 3:
        return tuple(known.index(place) for place in range(3)), True, ""
    glowing = any(channel.get(key) for channel in channels for key in _FLUORESCENT)
    if glowing or not all(_UNNAMED.fullmatch(name) for name in names):
        called = ", ".join(name or "unnamed" for name in names)
        return (
            (),
            False,
            f"its channels are separate ({called}), as of fluorescence, and not red, green and blue",
        )
    painted = [_PRIMARIES.get((int(channel.get("Color", 0)) >> 8) & 0xFFFFFF) for channel in channels]
    if sorted(place for place in painted if place is not None) == [0, 1, 2] and len(painted) == 3:
        return tuple(painted.index(place) for place in range(3)), False, ""
    return (0, 1, 2), False, ""


def _is_no_slide(picture: TiffPicture) -> bool:
    """Return whether a picture is named as a label, a mask or an overview."""
    page, text = picture.page, picture.page.description
    if kind := re.search(r"<ImageType>\s*(\w+)", text):  # PerkinElmer
        text = kind[1]
    elif text.startswith(
        "Aperio"
    ):  # "label 387x463" in the second line, "4443x3567 -> 956x768" of a thumbnail
        text = "".join(text.split("|")[0].splitlines()[1:2])[:_SHORT]
        if _APERIO_THUMBNAIL.search(text):
            return True
    names = [text if len(text) < _SHORT else "", str(page.tags.valueof(285, ""))]
    if picture.image is not None:
        names = [picture.image.name]
    return any(_NO_SLIDE.search(name) for name in names)
