"""What a small network reads of wide embeddings: their first principal components."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from chrep_model.methods.base import Arrays
from chrep_model.training.samples import SpotTable
from chrep_model.training.streamed import Streamed


@dataclass(frozen=True)
class Inputs:
    """A rotation of the features to their first principal components.

    One factor brings all components to a mean variance of one; between them their sizes are kept, so that a
    component that hardly varies stays as quiet as it was.

    Attributes
    ----------
    centre : ndarray
        (d,) float32, mean of the training features.
    rotation : ndarray
        (d, count) float32.
    """

    centre: NDArray[np.float32]
    rotation: NDArray[np.float32]

    @classmethod
    def fit(cls, table: SpotTable, count: int) -> Inputs:
        """Find the first `count` components of the table's features, fewer where there are fewer."""
        if isinstance(table.features, Streamed):
            return cls._from_moments(*table.features.moments(), count)
        centre = table.features.mean(0)
        _, size, directions = np.linalg.svd(table.features - centre, full_matrices=False)
        kept = directions[:count]
        spread = np.sqrt((size[: len(kept)] ** 2).mean() / len(table))
        return cls(centre, np.ascontiguousarray((kept / max(float(spread), 1e-6)).T.astype(np.float32)))

    @classmethod
    def _from_moments(cls, mean: NDArray[np.float64], covariance: NDArray[np.float64], count: int) -> Inputs:
        d = len(mean)
        wanted = (max(d - count, 0), d - 1)
        variance, vectors = scipy.linalg.eigh(covariance, subset_by_index=wanted)
        spread = np.sqrt(np.maximum(variance, 0).mean())
        rotation = vectors[:, ::-1] / max(float(spread), 1e-6)
        return cls(mean.astype(np.float32), np.ascontiguousarray(rotation.astype(np.float32)))

    def __call__(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features (n, d) to inputs (n, count) float32; streamed ones stay so."""
        if isinstance(features, Streamed):
            return cast("NDArray[np.float32]", features.changed(self))
        return ((features - self.centre) @ self.rotation).astype(np.float32, copy=False)

    @property
    def count(self) -> int:
        """How many numbers the network reads."""
        return self.rotation.shape[1]

    def arrays(self) -> Arrays:
        """Centre and rotation by name."""
        return {"centre": self.centre, "rotation": self.rotation}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Inputs:
        """Build again; other arrays are not looked at."""
        return cls(arrays["centre"], arrays["rotation"])
