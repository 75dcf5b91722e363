"""Input of the checks of a section: a small picture of its slide, the tissue in it, spots and counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import KDTree

from chrep_model.geometry import FloatArray, base_to_level, um_to_px
from chrep_model.slides.tissue import TissueMask

if TYPE_CHECKING:
    from scipy import sparse

#: A spot is on tissue if at least this share of its area is.
_COVERED = 0.5
#: With fewer spots, counts can correlate with the picture by chance.
FEWEST_SPOTS = 40
_MOST_SPOTS, _MOST_GENES = 1500, 500
_COMPONENTS = 4


@dataclass(frozen=True, eq=False)
class SectionView:
    """The small picture, tissue, spots and counts of one section.

    Attributes
    ----------
    counts : csr_matrix
        (n, G).
    xy : ndarray
        Spot centres (n, 2), (x, y) in level-0 px.
    array : ndarray or None
        (n, 2), (row, col) on the array.
    spot_ids : tuple of str
    facts : mapping
        Facts in the file of counts, see `CountsFile`.
    shape : tuple of int
        (rows, cols) of level 0.
    mpp : float or None
        µm per level-0 px in use.
    mpp_source : str
        Source of `mpp`.
    slide_mpp : float or None
        µm per level-0 px according to the slide.
    diameter : float or None
        Diameter of a spot in level-0 px; None if unknown.
    mask : TissueMask
    picture : ndarray
        uint8 (rows, cols, 3), the slide at the resolution of `mask`.
    """

    counts: sparse.csr_matrix
    xy: FloatArray
    array: np.ndarray | None
    spot_ids: tuple[str, ...]
    facts: Mapping[str, Any]
    shape: tuple[int, int]
    mpp: float | None
    mpp_source: str
    slide_mpp: float | None
    diameter: float | None
    mask: TissueMask
    picture: npt.NDArray[np.uint8]

    @cached_property
    def near(self) -> FloatArray:
        """Distance of each spot to its nearest neighbour in level-0 px, (n,); NaN for a single spot."""
        if len(self.xy) < 2:
            return np.full(len(self.xy), np.nan)
        return np.asarray(KDTree(self.xy).query(self.xy, k=2)[0][:, 1])

    @property
    def pitch(self) -> float:
        """Median distance of a spot to its nearest neighbour, in level-0 px."""
        return float(np.median(self.near)) if len(self.near) else float("nan")

    @property
    def regular(self) -> bool:
        """Whether the spots form a lattice, so that nearly all have the same distance to their neighbour."""
        return len(self.xy) >= 10 and float(np.percentile(self.near, 5)) > 0.75 * self.pitch

    @property
    def size(self) -> float:
        """Side in level-0 px of the square used for a spot: the spot's diameter, or half the pitch."""
        if self.diameter is not None:
            return self.diameter
        if np.isfinite(self.pitch) and self.pitch > 0:
            return self.pitch / 2
        return 100.0 if self.mpp is None else um_to_px(100.0, self.mpp)

    def inside(self, xy: FloatArray) -> bool:
        """Return whether all positions lie in the picture."""
        return bool((xy >= 0).all() and (xy <= self.shape[::-1]).all())

    def on_tissue(self, xy: FloatArray) -> npt.NDArray[np.bool_]:
        """Return which of these positions lie on tissue, (n,) bool."""
        return self.mask.fraction(xy, self.size) >= _COVERED

    def correlation_with_picture(self, xy: FloatArray) -> float:
        """Return how well the counts correlate with the picture, if the spots were at these positions.

        Returns
        -------
        float
            From 0 to 1: multiple correlation of the total counts and of the main components of expression
            with colour and texture under the spots, averaged over these targets.
        """
        features = self._features(xy[self._sample])
        features = _standard(np.column_stack([features, _standard(features) ** 2]))
        targets = self._targets
        fitted = features @ np.linalg.lstsq(features, targets, rcond=None)[0]
        return float(np.sqrt((fitted**2).mean(axis=0)).mean())

    @cached_property
    def _sample(self) -> npt.NDArray[np.int64]:
        return np.unique(np.linspace(0, len(self.xy) - 1, min(len(self.xy), _MOST_SPOTS)).astype(np.int64))

    @cached_property
    def _targets(self) -> FloatArray:
        """Standardised log totals and main components of expression, (n, 1 + components)."""
        counts = self.counts[self._sample]
        totals = np.asarray(counts.sum(axis=1), np.float64).ravel()
        often = np.argsort(-np.asarray(counts.sum(axis=0)).ravel(), kind="stable")[:_MOST_GENES]
        values = counts[:, often].toarray().astype(np.float64)
        values = np.log1p(1e4 * values / np.maximum(totals, 1)[:, None])
        left, size, _ = np.linalg.svd(values - values.mean(axis=0), full_matrices=False)
        return _standard(np.column_stack([np.log1p(totals), (left * size)[:, :_COMPONENTS]]))

    @cached_property
    def _planes(self) -> FloatArray:
        """Mean and sd of optical density in a spot-sized square around each pixel, (rows, cols, 4)."""
        window = max(round(self.size / self.mask.downsample), 1)
        density = -np.log10((self.picture.astype(np.float32) + 1) / 256)
        mean = ndimage.uniform_filter(density, (window, window, 0))
        grey = density.mean(axis=2)
        middle = ndimage.uniform_filter(grey, window)
        spread = np.sqrt(np.maximum(ndimage.uniform_filter(grey**2, window) - middle**2, 0))
        return np.dstack([mean, spread])

    def _features(self, xy: FloatArray) -> FloatArray:
        place = base_to_level(xy, self.mask.downsample)[:, ::-1].astype(np.int64)
        rows, cols = np.clip(place, 0, np.array(self.picture.shape[:2]) - 1).T
        return np.asarray(self._planes[rows, cols], np.float64)


def _standard(values: FloatArray) -> FloatArray:
    """Scale each column to mean 0 and variance 1; a constant column becomes 0."""
    centred = values - values.mean(axis=0)
    spread = centred.std(axis=0)
    return np.asarray(np.where(spread > 1e-9, centred / np.maximum(spread, 1e-9), 0.0))
