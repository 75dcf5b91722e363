"""Scoring of one fitted model on one test section: all metrics of all variants, as tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from chrep_model.calibration.trust import LEVELS
from chrep_model.cohorts.gene_panel import GenePanel
from chrep_model.cohorts.section import Section
from chrep_model.evaluation.ceiling import ceiling, reliability, variance_explained
from chrep_model.evaluation.metrics import (
    LOG10_SPOT,
    Figure,
    interval_scores,
    measured_columns,
    relative_variance_distance,
    scores,
)
from chrep_model.evaluation.structure import Raster
from chrep_model.geometry import px_to_um
from chrep_model.methods.base import Response
from chrep_model.methods.model import Model
from chrep_model.networks.graph import spot_graph
from chrep_model.statistics import gene_correlations, mean_of_known

SMOOTHED = "smoothed"
"""Name of an additional variant: the final one averaged over each spot and its direct neighbours."""

TRUTH = "truth"
HEADLINE_LEVEL = 0.9

MAP_CANDIDATES = 64
"""Number of genes whose predictions are stored per spot: the section's most reliably measured ones."""


@dataclass(frozen=True)
class FitScores:
    """The scores of one method on one test section.

    Attributes
    ----------
    scores : DataFrame
        Columns variant, space, metric, value.
    genes : DataFrame
        Columns variant, gene, pcc, mean, ssim, rvd, ceiling; NaN for a gene that was not measured.
    intervals : DataFrame
        Columns variant, level, coverage, width; no row for a method without intervals.
    maps : DataFrame
        Log10-spot values of `MAP_CANDIDATES` genes: columns variant, x_um, y_um and one per gene, a row per
        spot; variant ``truth`` holds the measured values.
    """

    scores: pd.DataFrame
    genes: pd.DataFrame
    intervals: pd.DataFrame
    maps: pd.DataFrame


@dataclass(frozen=True)
class MeasuredSection:
    """Measured expression of a test section, its reliability, and the spots' positions, for scoring.

    Attributes
    ----------
    panel : GenePanel
        Gene panel of the fold.
    truth : ndarray
        (n, genes) float32, log10-spot; NaN for a gene that the section did not measure.
    reliability : ndarray
        (genes,), see `ceiling.reliability`.
    position : ndarray
        (n, 2) spot centres in µm.
    raster : Raster
        The spots on their array.
    """

    panel: GenePanel
    truth: NDArray[np.float32]
    reliability: NDArray[np.float64]
    position: NDArray[np.float64]
    raster: Raster

    @classmethod
    def of(cls, section: Section, panel: GenePanel) -> MeasuredSection:
        """Prepare a test section for scoring."""
        position = px_to_um(1.0, section.mpp) * section.xy
        return cls(
            panel, panel.expression(section), reliability(section, panel), position, Raster.of(position)
        )

    def figures(self, predicted: NDArray[np.float32]) -> tuple[list[Figure], pd.DataFrame]:
        """Compute the metrics over all genes and the table per gene for a prediction (n, genes)."""
        overall = scores(self.truth, predicted, self.panel.sd)
        columns = measured_columns(self.truth)
        truth, predicted, reliability = (
            self.truth[:, columns],
            predicted[:, columns],
            self.reliability[columns],
        )
        genes = pd.DataFrame(
            {
                "gene": list(np.array(self.panel.genes, object)[columns]),
                "pcc": gene_correlations(truth, predicted),
                "mean": truth.mean(0),
                "ssim": self.raster.similarity(truth, predicted),
                "rvd": relative_variance_distance(truth, predicted),
                "ceiling": ceiling(reliability),
            }
        )
        overall += [
            (LOG10_SPOT, "ssim", mean_of_known(genes["ssim"].to_numpy())),
            (LOG10_SPOT, "pcc_ceiling", mean_of_known(genes["ceiling"].to_numpy())),
            (LOG10_SPOT, "variance_explained", variance_explained(truth, predicted, reliability)),
        ]
        if len(genes) < len(self.panel):
            genes = genes.set_index("gene").reindex(list(self.panel.genes)).reset_index()
        return overall, genes

    def map_genes(self) -> NDArray[np.int64]:
        """Return the columns of the measured genes whose maps are stored, in the panel's order."""
        by_reliability = np.argsort(-np.nan_to_num(self.reliability, nan=-1.0), kind="stable")
        measured = ~np.isnan(self.truth[:, by_reliability]).any(0)
        return np.sort(by_reliability[measured][:MAP_CANDIDATES])


def score_model(model: Model, response: Response, measured: MeasuredSection, *, maps: bool) -> FitScores:
    """Score all variants of a model, and its last variant also after smoothing.

    Parameters
    ----------
    model : Model
        Model fitted without the test section.
    response : dict
        Its response to the test section's features.
    measured : MeasuredSection
        Measured values of the test section.
    maps : bool
        Whether to store values per spot, see `MAP_CANDIDATES`.
    """
    return _outcome(_answers(model, response, measured.position), measured, maps)


def score_prediction(predicted: NDArray[np.float32], measured: MeasuredSection, *, maps: bool) -> FitScores:
    """Score a single prediction (n, genes) as variant ``raw``."""
    return _outcome(iter([_Answer("raw", predicted, {})]), measured, maps)


@dataclass(frozen=True)
class _Answer:
    variant: str
    predicted: NDArray[np.float32]
    half_width: dict[float, NDArray[np.float32]]


def _answers(model: Model, response: Response, position: NDArray[np.float64]) -> Iterator[_Answer]:
    predicted = np.empty(0, np.float32)
    for variant in model.fitted.variants:
        predicted = model.read(response, variant)
        half = {level: model.interval(response, variant, level=level) for level in LEVELS}
        yield _Answer(variant, predicted, {level: h for level, h in half.items() if h is not None})
    yield _Answer(SMOOTHED, smoothed(predicted, position), {})


def smoothed(predicted: NDArray[np.float32], position: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the mean over every spot and its direct neighbours, (n, genes).

    Smoothing improves noisy predictions and loses detail of smooth ones. As this does not depend on the
    method, the smoothed variant is listed separately.
    """
    graph = spot_graph(position) + sp.identity(len(position), dtype=np.float32, format="csr")
    share = sp.diags_array(1 / np.asarray(graph.sum(1)).ravel()) @ graph
    out: NDArray[np.float32] = (share @ predicted).astype(np.float32)
    return out


def _outcome(answers: Iterator[_Answer], measured: MeasuredSection, maps: bool) -> FitScores:
    rows: list[tuple[str, str, str, float]] = []
    genes, intervals, spots = [], [], []
    kept = measured.map_genes() if maps else np.empty(0, np.int64)
    if maps:
        spots.append(_spots(TRUTH, measured.truth, measured, kept))
    for answer in answers:
        overall, per_gene = measured.figures(answer.predicted)
        rows += [(answer.variant, *figure) for figure in overall]
        genes.append(per_gene.assign(variant=answer.variant))
        for level, half in answer.half_width.items():
            coverage, width = interval_scores(measured.truth, answer.predicted, half)
            intervals.append((answer.variant, level, coverage, width))
            if level == HEADLINE_LEVEL:
                rows.append((answer.variant, LOG10_SPOT, "coverage_90", coverage))
                rows.append((answer.variant, LOG10_SPOT, "width_90", width))
        if maps:
            spots.append(_spots(answer.variant, answer.predicted, measured, kept))
    columns = ["variant", "gene", "pcc", "mean", "ssim", "rvd", "ceiling"]
    return FitScores(
        pd.DataFrame(rows, columns=["variant", "space", "metric", "value"]),
        pd.concat(genes, ignore_index=True)[columns],
        pd.DataFrame(intervals, columns=["variant", "level", "coverage", "width"]),
        pd.concat(spots, ignore_index=True) if spots else pd.DataFrame(columns=["variant", "x_um", "y_um"]),
    )


def _spots(
    variant: str, values: NDArray[np.float32], measured: MeasuredSection, kept: NDArray[np.int64]
) -> pd.DataFrame:
    frame = pd.DataFrame(values[:, kept], columns=[measured.panel.genes[i] for i in kept])
    x, y = measured.position.T
    frame.insert(0, "variant", variant)
    frame.insert(1, "x_um", x)
    frame.insert(2, "y_um", y)
    return frame
