"""Stain of a slide: colours and strengths of its haematoxylin and eosin."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RUIFROK = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
"""Optical densities (R, G, B) of haematoxylin and eosin (Ruifrok & Johnston 2001)."""

TISSUE_DENSITY = 0.15
"""Sum of the optical densities over R, G, B (log10) below which a pixel holds no stain."""

_PIXELS = 1 << 18


@dataclass(frozen=True)
class StainFit:
    """Stain colours and strengths of one slide.

    Attributes
    ----------
    unmix : ndarray
        (3, 3) float32: optical density (log10; R, G, B) @ unmix = densities of haematoxylin, eosin, residual.
    strength : ndarray
        (2,) float32: 99th percentiles of the haematoxylin and eosin densities over the tissue.
    source : str
        ``"macenko"`` for fitted colours, ``"ruifrok"`` for the standard colours if the fit failed.
    """

    unmix: NDArray[np.float32]
    strength: NDArray[np.float32]
    source: str


def fit_stains(tiles: NDArray[np.uint8]) -> StainFit:
    """Fit the stain colours (Macenko et al. 2009, as in squidpy) to tiles of one slide.

    Parameters
    ----------
    tiles : ndarray
        (n, h, w, 3) uint8, a sample of the slide's tissue.

    Notes
    -----
    If the tissue is stained with one dye or none, no two colours can be fitted, and standard ones are used.
    """
    pixels = tiles.reshape(-1, 3)
    pixels = pixels[:: max(1, len(pixels) // _PIXELS)]
    density = optical_density(pixels)
    tissue = density.sum(1) > TISSUE_DENSITY
    if tissue.sum() < 100:
        return StainFit(_unmixing(RUIFROK), np.ones(2, np.float32), "ruifrok")
    colours, source = _macenko(pixels, tissue)
    unmix = _unmixing(colours)
    amounts = density[tissue] @ unmix
    strength = np.maximum(np.percentile(amounts[:, :2], 99, axis=0), 0.05).astype(np.float32)
    return StainFit(unmix, strength, source)


def optical_density(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Compute the optical density (log10) of uint8 colours, an array of the same shape; 0 for white."""
    return -np.log10((rgb.astype(np.float32) + 1.0) / 256.0)


def _macenko(pixels: NDArray[np.uint8], tissue: NDArray[np.bool_]) -> tuple[NDArray[np.float64], str]:
    import squidpy as sq
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel, Labels2DModel

    side = int(np.sqrt(len(pixels)))
    picture = pixels[: side * side].reshape(side, side, 3)
    mask = tissue[: side * side].reshape(side, side).astype(np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sdata = SpatialData(
            images={"tiles": Image2DModel.parse(picture, dims=("y", "x", "c"), c_coords=["r", "g", "b"])},
            labels={"tiles_tissue": Labels2DModel.parse(mask, dims=("y", "x"))},
        )
        try:
            fit = sq.experimental.im.fit_stain_reference(sdata, "tiles", method="macenko", max_angle_deg=35.0)
        except RuntimeError:  # squidpy's check: the fitted colours are not those of haematoxylin and eosin
            return RUIFROK, "ruifrok"
    return np.asarray(fit.stain_matrix)[:, :2].T, "macenko"


def _unmixing(colours: NDArray[np.float64]) -> NDArray[np.float32]:
    """Invert the matrix with the rows haematoxylin, eosin, and the colour orthogonal to both."""
    rows = np.vstack([colours, np.cross(colours[0], colours[1])])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return np.linalg.inv(rows).astype(np.float32)
