"""Nearest neighbours on unchanged embeddings."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

from chrep_model.calibration.gallery import Gallery, Neighbours, weighted_mean
from chrep_model.methods.base import (
    ALL,
    Arrays,
    FittedMethod,
    Genes,
    Method,
    Response,
    gallery_of,
    leave_section_out,
)
from chrep_model.methods.registry import register
from chrep_model.statistics import unit_rows
from chrep_model.training.run import SILENT_RUN, Run
from chrep_model.training.samples import SpotTable

NEIGHBOURS = (25, 50, 100, 200)
TEMPERATURES = (0.02, 0.05, 0.1, 0.2)


class FittedKnn(FittedMethod):
    """A fitted `Knn`."""

    k: int
    temperature: float

    def __init__(self, k: int, temperature: float, gallery: Gallery) -> None:
        self.k, self.temperature, self.gallery = k, temperature, gallery

    def _respond(self, features: NDArray[np.float32], z: NDArray[np.float32]) -> Response:
        return {}

    def read(self, response: Response, variant: str, genes: Genes = ALL) -> NDArray[np.float32]:
        """Return the weighted mean of the neighbours' measured values."""
        found = self.neighbours(response)
        values = self.gallery.expression[:, genes]
        return weighted_mean(found, self.temperature, values, self.gallery.known(genes))

    def arrays(self) -> Arrays:
        """Return k and temperature."""
        return {"k": np.array([self.k]), "temperature": np.array([self.temperature])}

    @classmethod
    def from_arrays(cls, arrays: Arrays, gallery: Gallery) -> FittedKnn:
        """Build it from stored `arrays`."""
        return cls(int(arrays["k"][0]), float(arrays["temperature"][0]), gallery)


@register
class Knn(Method):
    """Predicts the weighted mean of the most similar training spots, by cosine of the embeddings."""

    name = "knn"
    title = "nearest neighbours"
    description = "Mean of the most similar training spots on the encoder's features."
    kind = "baseline"
    fitted_class = FittedKnn

    def fit(self, table: SpotTable, *, seed: int, run: Run = SILENT_RUN) -> FittedKnn:
        """Choose k and temperature on held-out training sections; `seed` has no effect."""
        z = unit_rows(table.features)
        k, temperature = choose_neighbourhood(table, z)
        return FittedKnn(k, temperature, gallery_of(table, z))


def choose_neighbourhood(table: SpotTable, z: NDArray[np.float32]) -> tuple[int, float]:
    """Return the (k, temperature) with the smallest squared error over the held-out training sections.

    Parameters
    ----------
    table : SpotTable
        Training spots.
    z : ndarray
        (n, d) float32 unit rows to compare them by.
    """
    if len(np.unique(table.section)) < 2:
        return NEIGHBOURS[1], TEMPERATURES[2]
    grid = list(product(NEIGHBOURS, TEMPERATURES))
    errors = np.zeros(len(grid))
    for train, test in leave_section_out(table):
        gallery = gallery_of(table.rows(train), z[train])
        found, genes = gallery.search(z[test], max(NEIGHBOURS)), table.testable(table.section[test][0])
        for i, (k, temperature) in enumerate(grid):
            near = Neighbours(found.index[:, :k], found.similarity[:, :k])
            answer = weighted_mean(near, temperature, gallery.expression, gallery.known())
            errors[i] += np.mean((answer - table.targets[test])[:, genes] ** 2)
    return grid[int(errors.argmin())]
