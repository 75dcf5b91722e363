"""Metadata of the pictures in a TIFF file: scale, orientation, scanner and names of channels."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import tifffile

# µm per unit of the OME schema (UnitsLength), without "pixel" and "reference frame".
_UM = {
    "Ym": 1e30, "Zm": 1e27, "Em": 1e24, "Pm": 1e21, "Tm": 1e18, "Gm": 1e15, "Mm": 1e12, "km": 1e9, "hm": 1e8,
    "dam": 1e7, "m": 1e6, "dm": 1e5, "cm": 1e4, "mm": 1e3, "um": 1.0, "nm": 1e-3, "pm": 1e-6, "fm": 1e-9,
    "am": 1e-12, "zm": 1e-15, "ym": 1e-18, "thou": 25.4, "li": 25400 / 12, "in": 25400.0, "ft": 304800.0,
    "yd": 914400.0, "mi": 1609344e3, "ua": 149597870700e6, "ly": 9460730472580800e6,
    "pc": 3.0856775814913673e22, "pt": 25400 / 72,
}  # fmt: skip
_UM |= {"\u00b5m": 1.0, "\u03bcm": 1.0, "\u00c5": 1e-4, "\u212b": 1e-4}  # Unicode has two characters for each
# Units as spelled by ImageJ and its users.
_IMAGEJ_UM = {name: um for name, um in _UM.items() if name not in ("Mm", "ua", "pt", "li")}
_IMAGEJ_UM |= dict.fromkeys(("micron", "microns", "micrometer", "micrometre"), 1.0)
_IMAGEJ_UM |= dict.fromkeys(("micrometers", "micrometres"), 1.0)
_IMAGEJ_UM |= {"nanometer": 1e-3, "nanometers": 1e-3, "millimeter": 1e3, "millimeters": 1e3}
_IMAGEJ_UM |= {"centimeter": 1e4, "centimeters": 1e4, "meter": 1e6, "meters": 1e6}
_IMAGEJ_UM |= {"inch": 25400.0, "inches": 25400.0, '"': 25400.0, "angstrom": 1e-4, "mil": 25.4}
_UM_PER_RESOLUTION_UNIT = {2: 25400.0, 3: 10000.0, 4: 1000.0, 5: 1.0}  # inch, cm, mm, µm

# Resolutions coarser than this, in µm per pixel, are ignored: other software writes 72 to 1200 dots per inch
# into any picture, and a wrong scale is worse than none.
_COARSEST_RESOLUTION_TAG = 20.0

_ORIENTATIONS = {
    2: "mirrored left to right",
    3: "turned by 180 degrees",
    4: "mirrored top to bottom",
    5: "mirrored along the diagonal from the top left",
    6: "turned by 90 degrees clockwise",
    7: "mirrored along the diagonal from the top right",
    8: "turned by 90 degrees counterclockwise",
}


@dataclass(frozen=True)
class OmeImage:
    """Facts from one ``Image`` of OME metadata.

    Attributes
    ----------
    name
        Name of the image; may be empty.
    mpp_xy
        µm per pixel across and down, if both are stated as a positive length.
    channels
        XML attributes of each channel.
    """

    name: str
    mpp_xy: tuple[float, float] | None
    channels: tuple[Mapping[str, str], ...]


def ome_images(tif: tifffile.TiffFile) -> dict[int, OmeImage]:
    """Return the images in the OME metadata, by the numbers of the directories that hold their planes."""
    found: dict[int, OmeImage] = {}
    for image in _named(ElementTree.fromstring(tif.ome_metadata or "<OME/>"), "Image"):  # noqa: S314 - expat limits entity expansion
        for pixels in _named(image, "Pixels"):
            channels = tuple(dict(channel.attrib) for channel in _named(pixels, "Channel"))
            described = OmeImage(image.get("Name", "").strip(), _ome_scale(pixels), channels)
            # Planes may be in any order; without a number they begin at the first directory.
            for first in [int(data.get("IFD", 0)) for data in _named(pixels, "TiffData")] or [0]:
                found.setdefault(first, described)
    return found


def _named(element: Any, name: str) -> Any:
    return (child for child in element if child.tag.rpartition("}")[2] == name)


def _ome_scale(pixels: Any) -> tuple[float, float] | None:
    x, y = (
        _length(
            pixels.get(f"PhysicalSize{axis}"), _UM.get(pixels.get(f"PhysicalSize{axis}Unit", "µm").strip())
        )
        for axis in "XY"
    )
    return None if x is None or y is None else (x, y)


def _length(text: str | None, um: float | None) -> float | None:
    value = number(text)
    return None if value is None or um is None or not 0 < value * um < math.inf else value * um


def number(text: Any) -> float | None:
    """Return a text as a number, also with a decimal comma; ``None`` if it is not a number."""
    try:
        return float(str(text).strip().replace(",", "."))
    except ValueError:
        return None


def scale(
    tif: tifffile.TiffFile, page: tifffile.TiffPage, image: OmeImage | None
) -> tuple[float, float] | None:
    """Return the µm per pixel of `page` across and down, from the most specific source."""
    mpp = _length(_aperio(page).get("MPP"), 1.0)
    if mpp is not None:
        return mpp, mpp
    if image is not None and image.mpp_xy is not None:
        return image.mpp_xy
    given = resolution(tif, page)
    return None if given is None or max(given) > _COARSEST_RESOLUTION_TAG else given


def resolution(tif: tifffile.TiffFile, page: tifffile.TiffPage) -> tuple[float, float] | None:
    """Return µm per pixel across and down from the resolution tags of a directory, without limits."""
    um_per_unit = _UM_PER_RESOLUTION_UNIT.get(int(page.tags.valueof(296, 2)))
    if tif.is_imagej:
        unit = str((tif.imagej_metadata or {}).get("unit", "")).strip()
        unit = re.sub(r"\\u([0-9a-fA-F]{4})", lambda m: chr(int(m[1], 16)), unit)
        um_per_unit = _IMAGEJ_UM.get(unit, _IMAGEJ_UM.get(unit.lower(), um_per_unit))
    mpp = []
    for code in (282, 283):  # XResolution, YResolution: pixels per unit
        numerator, denominator = page.tags.valueof(code, (0, 1))
        if um_per_unit is None or numerator <= 0 or denominator <= 0:
            return None
        mpp.append(um_per_unit * denominator / numerator)
    return mpp[0], mpp[1]


def describe(tif: tifffile.TiffFile, page: tifffile.TiffPage, image: OmeImage | None) -> dict[str, str]:
    """Return format, vendor, objective, compression and orientation, but nothing that names a patient."""
    compression = getattr(page.compression, "name", str(page.compression))
    found = {"format": "TIFF", "compression": compression}
    if tif.is_svs or _aperio(page):
        found |= {"format": "Aperio SVS", "vendor": "aperio"}
        if (power := number(_aperio(page).get("AppMag"))) is not None:
            found["objective"] = f"{power:g}"
    elif image is not None or tif.is_ome:
        found["format"] = "OME-TIFF"
        if objective := re.search(r'NominalMagnification="([^"]+)"', tif.ome_metadata or ""):
            found["objective"] = objective[1]
    return found | orientation(page.tags.valueof(274, 1))


def orientation(tag: Any) -> dict[str, str]:
    """Return the property ``orientation``: a description of the rotation the file asks for, else nothing.

    Rows are used as stored, not rotated, because positions measured on a picture refer to the stored rows.
    """
    words = _ORIENTATIONS.get(tag) if isinstance(tag, int) else None
    if words is None:
        return {}
    return {"orientation": f"the file asks viewers to show it {words}; it is used as it is stored"}


def _aperio(page: tifffile.TiffPage) -> dict[str, str]:
    """Return the values of an Aperio description by name; empty for other descriptions."""
    if not page.description.startswith("Aperio"):
        return {}
    parts = (item.partition("=") for item in page.description.split("|")[1:])
    return {key.strip(): value.strip() for key, _, value in parts}
