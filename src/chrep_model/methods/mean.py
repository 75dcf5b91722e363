"""The mean of the training spots: the least that any method has to beat."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from chrep_model.calibration.gallery import Gallery
from chrep_model.methods.base import (
    ALL,
    Arrays,
    FittedMethod,
    Genes,
    Method,
    Response,
    gallery_of,
    held_out_trust,
)
from chrep_model.methods.registry import register
from chrep_model.statistics import unit_rows
from chrep_model.training.run import SILENT_RUN, Run
from chrep_model.training.samples import SpotTable


class FittedMean(FittedMethod):
    """A fitted `Mean`."""

    def __init__(self, mean: NDArray[np.float32], gallery: Gallery) -> None:
        self.mean, self.gallery = mean, gallery

    def _respond(self, features: NDArray[np.float32], z: NDArray[np.float32]) -> Response:
        return {}

    def read(self, response: Response, variant: str, genes: Genes = ALL) -> NDArray[np.float32]:
        """Return the same row for every tile."""
        row = self.mean[genes]
        return np.broadcast_to(row, (len(response["distance"]), len(row))).copy()

    def arrays(self) -> Arrays:
        """Return the means."""
        return {"mean": self.mean}

    @classmethod
    def from_arrays(cls, arrays: Arrays, gallery: Gallery) -> FittedMean:
        """Build it from stored `arrays`."""
        return cls(arrays["mean"], gallery)


@register
class Mean(Method):
    """Predicts for every tile the mean of the training spots that measured the gene."""

    name = "mean"
    title = "mean"
    description = "The mean of the training spots, the same everywhere."
    kind = "baseline"
    fitted_class = FittedMean

    def fit(self, table: SpotTable, *, seed: int, run: Run = SILENT_RUN) -> FittedMean:
        """Compute the mean; `seed` has no effect."""
        fitted = self._mean(table)
        fitted.trust = held_out_trust(table, self._mean)
        return fitted

    @staticmethod
    def _mean(table: SpotTable) -> FittedMean:
        mean = np.zeros(table.targets.shape[1], np.float32)
        for rows, genes in table.groups():
            mean[genes] = table.targets[rows][:, genes].mean(0)
        return FittedMean(mean, gallery_of(table, unit_rows(table.features)))
