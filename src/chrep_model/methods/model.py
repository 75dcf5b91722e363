"""A model: fitted method, gene panel and feature scale, as a bundle stores them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from chrep_model.cohorts.gene_panel import GenePanel
from chrep_model.cohorts.section import Section
from chrep_model.geometry import px_to_um
from chrep_model.mapped_arrays import temporary_array, write_rows
from chrep_model.methods.base import FittedMethod, Genes, Method, Response
from chrep_model.statistics import divisors
from chrep_model.training.run import SILENT_RUN, Run
from chrep_model.training.samples import SpotTable
from chrep_model.training.streamed import LARGE, Streamed, stacked


@dataclass(frozen=True)
class FeatureScale:
    """Mean and sd of the features over the training spots.

    Embeddings are standardised per slide before; this brings neighbourhood means, which vary less than single
    tiles, to the same footing.

    Attributes
    ----------
    mean, sd : ndarray
        (d,) float32.
    """

    mean: NDArray[np.float32]
    sd: NDArray[np.float32]

    @classmethod
    def fit(cls, features: NDArray[np.float32]) -> FeatureScale:
        """Fit to training features (n, d), which may be streamed."""
        if isinstance(features, Streamed):
            wide, covariance = features.moments()
            mean, sd = wide.astype(np.float32), np.sqrt(np.maximum(np.diag(covariance), 0)).astype(np.float32)
            return cls(mean, divisors(sd))
        return cls(features.mean(0), divisors(features.std(0)))

    def __call__(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Standardise features (n, d); streamed ones as they are read."""
        if isinstance(features, Streamed):
            return cast("NDArray[np.float32]", features.changed(self))
        return ((features - self.mean) / self.sd).astype(np.float32, copy=False)


@dataclass(frozen=True)
class Model:
    """A fitted method with its gene panel and the scale of its features.

    Attributes
    ----------
    panel : GenePanel
        Genes, and the mean and sd by which they were standardised.
    scale : FeatureScale
        Of the features.
    fitted : FittedMethod
        The method after its fit.
    """

    panel: GenePanel
    scale: FeatureScale
    fitted: FittedMethod

    def respond(self, features: NDArray[np.float32]) -> Response:
        """Compute everything that does not depend on the gene, such as neighbours, for features (n, d)."""
        return self.fitted.respond(self.scale(features))

    def read(self, response: Response, variant: str, genes: Genes = slice(None)) -> NDArray[np.float32]:
        """Return expression (n, number of genes) in log10-spot units."""
        z = self.fitted.read(response, variant, genes)
        return z * self.panel.sd[genes] + self.panel.mean[genes]

    def interval(
        self, response: Response, variant: str, genes: Genes = slice(None), level: float = 0.9
    ) -> NDArray[np.float32] | None:
        """Half width (n, number of genes) of intervals, log10-spot units; see `FittedMethod.interval`."""
        half = self.fitted.interval(response, variant, genes, level)
        return None if half is None else half * self.panel.sd[genes]


def spot_table(
    sections: Sequence[Section],
    features: Mapping[str, NDArray[np.float32]],
    panel: GenePanel,
    scale: FeatureScale,
) -> SpotTable:
    """Build one table of several sections' spots; features are streamed if they are many.

    Parameters
    ----------
    sections : sequence of Section
        In the order of the rows.
    features : mapping
        Section name to (n, d) features, in memory or mapped.
    panel, scale : GenePanel, FeatureScale
        Fitted on training sections.
    """
    patients = list(dict.fromkeys(s.patient for s in sections))
    counts = [len(s) for s in sections]
    return SpotTable(
        measured=measured_by(sections, panel),
        features=scale(stacked([features[s.name] for s in sections])),
        targets=_targets(sections, panel),
        section=np.repeat(np.arange(len(sections)), counts),
        patient=np.repeat([patients.index(s.patient) for s in sections], counts),
        position=np.concatenate([px_to_um(1.0, s.mpp) * s.xy for s in sections]),
        section_names=tuple(s.name for s in sections),
        depth=np.concatenate([panel.depth(s) for s in sections]),
    )


def measured_by(sections: Sequence[Section], panel: GenePanel) -> NDArray[np.bool_] | None:
    """Return which section measured which gene, (sections, genes); None if all measured all."""
    measured = np.stack([panel.measured(s) for s in sections])
    return None if measured.all() else measured


def _targets(sections: Sequence[Section], panel: GenePanel) -> NDArray[np.float32]:
    """Return standardised expression of all spots (n, genes), in a temporary file if they are many.

    What a section did not measure is 0, the training mean; see `SpotTable.measured`.
    """
    parts = (_without_gaps(panel.standardise(panel.expression(s)), panel.measured(s)) for s in sections)
    spots = sum(len(s) for s in sections)
    if spots <= LARGE:
        return np.concatenate(list(parts))
    file = temporary_array((spots, len(panel)))
    write_rows(file, parts)
    return file


def _without_gaps(z: NDArray[np.float32], measured: NDArray[np.bool_]) -> NDArray[np.float32]:
    z[:, ~measured] = 0
    return z


def fit_model(
    method: Method,
    sections: Sequence[Section],
    features: Mapping[str, NDArray[np.float32]],
    genes: int | Sequence[str],
    *,
    seed: int,
    run: Run = SILENT_RUN,
) -> Model:
    """Fit panel, feature scale and method on training sections, and nothing else.

    Parameters
    ----------
    method : Method
        What to fit.
    sections : sequence of Section
        Training sections.
    features : mapping
        Section name to (n, d) features, standardised per slide, in memory or mapped; sections not named above
        are not read. Those of many spots are read in parts by a method that `streams`.
    genes : int or sequence of str
        How many genes to choose, or which.
    seed : int
        The one seed.

    Raises
    ------
    SettingsError
        The method needs all features in memory, and they do not fit.
    """
    panel = GenePanel.fit(sections, genes)
    scale = FeatureScale.fit(stacked([features[s.name] for s in sections]))
    table = spot_table(sections, features, panel, scale)
    if not method.streams:
        table = table.in_memory()
    return Model(panel, scale, method.fit(table, seed=seed, run=run))
