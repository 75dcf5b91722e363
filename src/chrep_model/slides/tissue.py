"""Detection of tissue on a thumbnail of a slide, mainly by the local variation of optical density.

Darkness and colour do not separate tissue from glass on real slides: dried eosin gives the glass the colour
of pale tissue, printed frames are darker than tissue, and some pictures have a black background. But tissue
has structure (nuclei, fibres, gaps), while stained glass, shadows and backgrounds have none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.morphology import remove_small_holes

from chrep_model.geometry import base_to_level, um_to_px
from chrep_model.mapped_arrays import slices
from chrep_model.slides.backends import RgbArray
from chrep_model.slides.slide import Slide

Plane = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_MAX_PX = 640  # longest side of the thumbnail if the scale is unknown
_MAX_PX_SCALED = 8192  # longest side of the thumbnail for any slide
_WINDOW = 5  # pixels over which variation is measured: 80 µm, a few cells
_DISK = ndimage.iterate_structure(ndimage.generate_binary_structure(2, 1), _WINDOW // 2)

# Bounds of the threshold on the standard deviation of optical density over the window. On sections of several
# laboratories stained glass has less than 0.007 and the palest tissue more than 0.012. Otsu's threshold alone
# would split a picture full of tissue, or the noise of an empty one.
_TEXTURE = (0.008, 0.018)

_BLACK = 1.2  # optical density; pixels above it in every channel are opaque, so not tissue
_DARK = 64  # grey value; pixels below it in every channel, connected to the border, are background
_STAINED = 0.15  # optical density over that of the glass; above it is stained tissue, even without structure
_STAIN_HUE = (
    0.012  # green minus blue optical density, relative to glass; stains absorb green most, grey dirt does not
)
_SMALLEST_UM, _HOLE_UM = 160.0, 250.0  # side of the smallest piece kept, and of the largest gap closed
_UNSCALED_UM = 16.0  # assumed pixel size of the thumbnail if the scale is unknown

_DENSITY = -np.log10((np.arange(256) + 1) / 256)  # optical density of each grey value
_STRIP = 512  # rows processed at once, to limit memory; a thumbnail may have 8192


@dataclass(frozen=True)
class TissueMask:
    """Mask of a slide's tissue at low resolution.

    Attributes
    ----------
    mask
        bool (rows, cols), True on tissue.
    downsample
        Level-0 pixels per pixel of the mask.
    """

    mask: Mask
    downsample: float

    def fraction(self, centres_xy: npt.ArrayLike, size_px: float) -> npt.NDArray[np.float32]:
        """Return the fraction of tissue in squares around given centres.

        Parameters
        ----------
        centres_xy
            (n, 2), (x, y) in level-0 pixels.
        size_px
            Side of the squares in level-0 pixels.

        Returns
        -------
        float32 (n,)
            Fraction of each square's whole area, 0 to 1; the part outside the slide counts as no tissue.
        """
        centres = base_to_level(centres_xy, self.downsample)
        size = max(size_px / self.downsample, 1e-9)
        low, high = centres - size / 2, centres + size / 2
        total = self._integral()
        area = _area_to(total, high[:, 1], high[:, 0]) - _area_to(total, low[:, 1], high[:, 0])
        area += _area_to(total, low[:, 1], low[:, 0]) - _area_to(total, high[:, 1], low[:, 0])
        return np.clip(area / size**2, 0, 1).astype(np.float32)

    def _integral(self) -> npt.NDArray[np.int32]:
        total = np.zeros((self.mask.shape[0] + 1, self.mask.shape[1] + 1), np.int32)
        np.cumsum(self.mask, axis=0, out=total[1:, 1:])
        return np.cumsum(total, axis=1, out=total)


def _area_to(total: npt.NDArray[np.int32], row: Plane, col: Plane) -> Plane:
    """Return the tissue area above and left of fractional positions, interpolated bilinearly."""
    rows, cols = (n - 1 for n in total.shape)
    row, col = np.clip(row, 0, rows), np.clip(col, 0, cols)
    i, j = np.minimum(row.astype(int), rows - 1), np.minimum(col.astype(int), cols - 1)
    u, v = row - i, col - j
    above = total[i, j] * (1 - v) + total[i, j + 1] * v
    below = total[i + 1, j] * (1 - v) + total[i + 1, j + 1] * v
    return above * (1 - u) + below * u


def tissue_mask(slide: Slide, um_per_px: float = 16.0) -> TissueMask:
    """Find the tissue of a slide.

    Parameters
    ----------
    slide
        The slide. Without µm per pixel the mask has at most 640 pixels a side.
    um_per_px
        Resolution of the mask.

    Returns
    -------
    TissueMask
        All False if nothing on the slide looks like tissue.

    Raises
    ------
    SlideError
        Pixels cannot be read.
    """
    longest, scale = max(slide.shape), _UNSCALED_UM
    max_px = _MAX_PX
    if slide.mpp is not None:
        max_px = min(max(1, math.ceil(longest * slide.mpp.value / um_per_px)), longest, _MAX_PX_SCALED)
    image, downsample = slide.thumbnail(max_px)
    if slide.mpp is not None:
        scale = slide.mpp.value * downsample
    return TissueMask(find_tissue(image, scale), downsample)


def find_tissue(image: RgbArray, um_per_px: float) -> Mask:
    """Find the tissue in a picture of a whole section, uint8 (rows, cols, 3); return bool (rows, cols)."""
    brightest = image.max(axis=2)
    seen = (_DENSITY[brightest] < _BLACK) & ~_canvas(brightest < _DARK)
    del brightest
    if not seen.any():
        return np.zeros(seen.shape, bool)
    texture = _variation(image, seen)
    low, high = _TEXTURE
    otsu = threshold_otsu(np.log10(texture[seen] + 1e-4))  # type: ignore[no-untyped-call]
    structured = seen & (texture > np.clip(10**otsu, low, high))
    del texture
    smooth = seen & ~structured
    # Optical density of this slide's glass; 0 if the picture is full of tissue.
    glass = [np.median(_DENSITY[image[..., c][smooth]]) if smooth.mean() > 0.05 else 0.0 for c in range(3)]
    green, blue = (_DENSITY - glass[c] for c in (1, 2))
    hue_of = green[:, None] - blue  # indexed by the grey values of green and blue
    stained = seen & (green > _STAINED)[image[..., 1]] & (hue_of > _STAIN_HUE)[image[..., 1], image[..., 2]]
    # The window extends structure beyond the tissue's edge by its radius: undo that.
    mask = ndimage.binary_erosion(structured, _DISK, border_value=1) | stained
    mask = ndimage.binary_closing(np.pad(mask, 4), _DISK)[4:-4, 4:-4] & seen
    mask = remove_small_holes(mask, max_size=round(um_to_px(_HOLE_UM, um_per_px) ** 2)) & seen
    return _pieces_of_tissue(mask, image, hue_of, um_to_px(_SMALLEST_UM, um_per_px) ** 2)


def _canvas(dark: Mask) -> Mask:
    """Return the dark pixels that are background: those connected to the picture's border."""
    edge = np.zeros(dark.shape, bool)
    edge[[0, -1]] = edge[:, [0, -1]] = True
    if not (dark & edge).any():
        return edge & False
    # Closing includes single brighter pixels (noise) of the background.
    closed = ndimage.binary_closing(np.pad(dark, 4, mode="edge"), iterations=2)[4:-4, 4:-4]
    return ndimage.binary_propagation(closed & edge, mask=closed)


def _variation(image: RgbArray, seen: Mask) -> npt.NDArray[np.float32]:
    """Compute the sd of optical density over the `seen` pixels in a window around each pixel."""
    out, margin = np.empty(seen.shape, np.float32), _WINDOW // 2
    for rows in slices(len(seen), _STRIP):
        above = min(rows.start, margin)
        around = slice(rows.start - above, rows.stop + margin)
        density = np.where(seen[around], _DENSITY[image[around]].mean(axis=2), 0.0)
        weight = np.maximum(ndimage.uniform_filter(seen[around].astype(np.float64), _WINDOW), 1e-6)
        mean = ndimage.uniform_filter(density, _WINDOW) / weight
        square = ndimage.uniform_filter(density**2, _WINDOW) / weight
        out[rows] = np.sqrt(np.maximum(square - mean**2, 0.0))[above:][:_STRIP]
    return out


def _pieces_of_tissue(mask: Mask, image: RgbArray, hue_of: Plane, smallest: float) -> Mask:
    """Remove pieces that are too small or grey: dust, printed frames, bubbles, hair."""
    numbered, count = ndimage.label(mask, structure=np.ones((3, 3)))
    sizes = np.zeros(count + 1, np.int64)
    for rows in slices(len(numbered), _STRIP):
        sizes += np.bincount(numbered[rows].ravel(), minlength=count + 1)
    kept = np.zeros(mask.shape, bool)
    places = ndimage.find_objects(numbered)
    for number in np.flatnonzero(sizes >= smallest):
        if number == 0:  # not part of a piece
            continue
        place = places[number - 1]
        piece = numbered[place] == number
        if _median_hue(image[place], piece, hue_of) > _STAIN_HUE:
            kept[place] |= piece
    return kept


def _median_hue(image: RgbArray, piece: Mask, hue_of: Plane) -> float:
    """Return the median hue over a piece's pixels, from the histogram of their green and blue values."""
    counts = np.zeros(hue_of.size, np.int64)
    for rows in slices(len(piece), _STRIP):
        green, blue = image[rows][piece[rows]].T[1:].astype(np.int64)
        counts += np.bincount(green * hue_of.shape[1] + blue, minlength=hue_of.size)
    order = np.argsort(hue_of, axis=None)
    upto = np.cumsum(counts[order])
    middle = np.searchsorted(upto, [(upto[-1] - 1) // 2, upto[-1] // 2], side="right")
    return float(hue_of.ravel()[order[middle]].mean())
