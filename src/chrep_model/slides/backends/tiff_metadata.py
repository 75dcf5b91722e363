"""What a TIFF file says about its scale and its scanner."""

from __future__ import annotations

import re
from typing import Any

import tifffile

_UM_PER_UNIT = {
    "m": 1e6,
    "cm": 1e4,
    "mm": 1e3,
    "µm": 1.0,
    "μm": 1.0,
    "um": 1.0,
    "nm": 1e-3,
    "pm": 1e-6,
    "Å": 1e-4,
}
_UM_PER_RESOLUTION_UNIT = {2: 25400.0, 3: 10000.0, 4: 1000.0, 5: 1.0}  # inch, cm, mm, µm
_IMAGEJ_UM = {"micron", "microns", "um", "µm", "\\u00b5m", "\\u00B5m"}

# Print software writes 72 to 1200 dots per inch whatever the picture shows. Nothing coarser than this is
# taken for the scale of a microscope: a wrong scale is worse than none.
_COARSEST_RESOLUTION_TAG = 20.0


def scale(tif: tifffile.TiffFile, page: tifffile.TiffPage) -> tuple[float, float] | None:
    """Return the µm per pixel of `page` across and down, from the most specific source that has them."""
    if tif.is_svs:
        mpp = tifffile.tifffile.svs_description_metadata(page.description).get("MPP")
        if isinstance(mpp, int | float):
            return float(mpp), float(mpp)
    if tif.is_ome:
        found = _ome_scale(tif, page)
        if found is not None:
            return found
    return _resolution_scale(tif, page)


def describe(tif: tifffile.TiffFile, page: tifffile.TiffPage) -> dict[str, str]:
    """Return format, vendor, objective and compression; nothing that could name a patient."""
    compression = getattr(page.compression, "name", str(page.compression))
    found = {"format": "TIFF", "compression": compression}
    if tif.is_svs:
        found |= {"format": "Aperio SVS", "vendor": "aperio"}
        objective = tifffile.tifffile.svs_description_metadata(page.description).get("AppMag")
        if objective is not None:
            found["objective"] = str(objective)
    elif tif.is_ome:
        found["format"] = "OME-TIFF"
        objective = re.search(r'NominalMagnification="([^"]+)"', tif.ome_metadata or "")
        if objective:
            found["objective"] = objective[1]
    return found


def _ome_scale(tif: tifffile.TiffFile, page: tifffile.TiffPage) -> tuple[float, float] | None:
    images = tifffile.xml2dict(tif.ome_metadata or "").get("OME", {}).get("Image", [])
    for image in images if isinstance(images, list) else [images]:
        pixels: dict[str, Any] = image.get("Pixels", {})
        # Labels and overviews are images of their own; the one meant has the size of the page.
        if (pixels.get("SizeX"), pixels.get("SizeY")) != (page.imagewidth, page.imagelength):
            continue
        sizes = [pixels.get(f"PhysicalSize{axis}") for axis in "XY"]
        units = [_UM_PER_UNIT.get(str(pixels.get(f"PhysicalSize{axis}Unit", "µm"))) for axis in "XY"]
        mpp = [float(s) * u for s, u in zip(sizes, units, strict=True) if isinstance(s, int | float) and u]
        if len(mpp) == 2:
            return mpp[0], mpp[1]
    return None


def _resolution_scale(tif: tifffile.TiffFile, page: tifffile.TiffPage) -> tuple[float, float] | None:
    um_per_unit = _UM_PER_RESOLUTION_UNIT.get(int(page.tags.valueof(296, 2)))
    if tif.is_imagej and str((tif.imagej_metadata or {}).get("unit", "")) in _IMAGEJ_UM:
        um_per_unit = 1.0
    mpp = []
    for code in (282, 283):  # XResolution, YResolution: pixels per unit
        numerator, denominator = page.tags.valueof(code, (0, 1))
        if um_per_unit is None or numerator <= 0 or denominator <= 0:
            return None
        mpp.append(um_per_unit * denominator / numerator)
    if max(mpp) > _COARSEST_RESOLUTION_TAG:
        return None
    return mpp[0], mpp[1]
