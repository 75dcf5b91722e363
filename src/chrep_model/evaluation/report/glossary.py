"""Titles and meanings of methods, variants and metrics."""

from __future__ import annotations

from dataclasses import dataclass

from chrep_model.evaluation.metrics import LOG10_SPOT, Z_TRAIN
from chrep_model.evaluation.oracle import ORACLE
from chrep_model.evaluation.scoring import SMOOTHED
from chrep_model.methods.registry import find

_ORACLE = (
    "library size (oracle)",
    "The measured total counts of the test spots alone. No image is looked at and nobody has this number "
    "when predicting: it only says how much of a correlation sequencing depth can explain.",
)

VARIANTS = {
    "raw": "The method's own answer; of CHRep, that of its trained head.",
    "estimate": "Similarity-weighted mean of the training spots that look most alike.",
    "correction": "The estimate plus a learned residual: CHRep's second phase as published.",
    "calibrated": "By default head, estimate, correction, a low-rank ridge and a forest, combined by weights "
    "per gene that were learned on training sections which these had not seen; more than was published.",
    SMOOTHED: "The trusted variant, averaged over every spot and its direct neighbours afterwards. Where it "
    "scores higher, that is noise averaged away at the price of detail, and says nothing about the method.",
}


@dataclass(frozen=True)
class Metric:
    """A metric as the tables show it.

    Attributes
    ----------
    name, space : str
        As in ``scores.csv``.
    title : str
        Title of its column.
    meaning : str
        A sentence or two, with the unit.
    better : int
        1 where more is better, -1 where less is, 0 where neither.
    reference : str
        Where it was published.
    """

    name: str
    title: str
    meaning: str
    better: int = 1
    space: str = LOG10_SPOT
    reference: str = ""


METRICS = (
    Metric(
        "pcc_acg", "PCC (ACG)",
        "Pearson correlation of prediction and truth over the spots of a test section, mean over all genes "
        "considered. No unit; 1 is perfect, 0 is no relation.",
    ),
    Metric(
        "pcc_heg50", "PCC (HEG50)",
        "The same over the 50 genes with the highest mean truth in the test section.",
    ),
    Metric(
        "pcc_top50", "PCC (top 50)",
        "The same over the 50 genes that the method predicts best. They are picked by looking at the truth, "
        "which flatters every method: an upper end, not an expectation.",
    ),
    Metric("mse", "MSE", "Mean squared error over spots and genes, in squared log10-spot units.", -1),
    Metric("mae", "MAE", "Mean absolute error over spots and genes, in log10-spot units.", -1),
    Metric(
        "rvd", "RVD",
        "Relative variance distance, ((variance of the prediction − variance of the truth) / variance of the "
        "truth)² over the spots, mean over genes (Zhu et al. 2025). No unit; 0 is perfect, 1 is a constant "
        "prediction: it tells over-smoothing.", -1,
        reference="RVD: Zhu et al., Stem, arXiv:2501.15598 (2025).",
    ),
    Metric(
        "ssim", "SSIM",
        "Structural similarity of the predicted and the true map of a gene, mean over genes: agreement in "
        "level, contrast and pattern of neighbouring spots (Wang et al. 2004). No unit; 1 is perfect.",
        reference="SSIM: Wang et al., IEEE Transactions on Image Processing 13(4), 600-612 (2004).",
    ),
    Metric(
        "coverage_90", "coverage 90 %",
        "Share of true values inside of the 90 % prediction interval. Best is 0.90, neither more nor less.",
        0,
    ),
)  # fmt: skip
"""Columns of the overview, in this order."""

MORE_METRICS = (
    Metric(
        "width_90", "width 90 %",
        "Mean width of the 90 % prediction interval, in log10-spot units. Less is better only where the "
        "coverage is kept.", 0,
    ),
    Metric(
        "variance_explained", "explained",
        "What the prediction explains of the variance over the spots that is not counting noise. 1 is all, "
        "0 is no more than a constant, below 0 is less.",
    ),
    Metric(
        "pcc_ceiling", "ceiling",
        "Mean noise ceiling of the genes, to hold PCC (ACG) against. It belongs to the section, not to the "
        "method.", 0,
    ),
    Metric("mse", "MSE (z)", "Mean squared error in units of the training variance.", -1, Z_TRAIN),
    Metric("mae", "MAE (z)", "Mean absolute error in units of the training standard deviation.", -1, Z_TRAIN),
)  # fmt: skip
"""Columns of the second table."""

CEILING = (
    "The highest correlation with the measured values that a prediction of the gene can expect, since counts "
    "are few and hence noisy: the square root of the reliability, found by splitting the counts at random "
    "into halves. It knows counting noise only, and a lucky prediction can exceed it."
)

SPACES = {
    LOG10_SPOT: "log10(1 + 10⁴ × share of the spot's counts over the genes considered).",
    Z_TRAIN: "log10-spot minus the training mean, divided by the training standard deviation of the gene.",
}


def method_text(name: str) -> tuple[str, str, str]:
    """Return a method's title, description and reference; the last two are empty where none is known."""
    if name == ORACLE:
        return (*_ORACLE, "")
    method = find(name)
    return (name, "", "") if method is None else (method.title, method.description, method.reference)
