"""Tables of an evaluation, assembled from the results of its jobs in the order of the plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from chrep_model.evaluation.fits import FitTask
from chrep_model.evaluation.oracle import ORACLE
from chrep_model.evaluation.scoring import TRUTH, FitScores
from chrep_model.evaluation.splits import Fold
from chrep_model.evaluation.summary import trusted_variants
from chrep_model.files import write_atomically

SCORE_COLUMNS = ("method", "variant", "split", "fold", "patient", "seed", "space", "metric", "value")
GENE_COLUMNS = (
    *("method", "split", "fold", "patient", "seed", "variant"),
    *("gene", "pcc", "mean", "ssim", "rvd", "ceiling"),
)
INTERVAL_COLUMNS = ("method", "variant", "fold", "seed", "level", "coverage", "width")
MAP_COLUMNS = ("fold", "gene", "method", "variant", "x_um", "y_um", "truth", "value")

MAPPED = 6
"""Number of genes per test section whose values are stored per spot."""


@dataclass(frozen=True)
class Tables:
    """The tables of an evaluation.

    Attributes
    ----------
    scores : DataFrame
        One row per metric, `SCORE_COLUMNS`.
    per_gene : DataFrame
        One row per gene, fold, method, variant and seed, `GENE_COLUMNS`.
    intervals : DataFrame
        Coverage and mean width (log10-spot) of prediction intervals by nominal level, `INTERVAL_COLUMNS`.
    maps : DataFrame
        Truth and prediction (log10-spot) per spot for a few genes and seed 0, `MAP_COLUMNS`: in every test
        section the `MAPPED` genes with the highest mean correlation over the methods.
    """

    scores: pd.DataFrame
    per_gene: pd.DataFrame
    intervals: pd.DataFrame
    maps: pd.DataFrame

    @classmethod
    def of(cls, jobs: Sequence[FitTask], outcomes: Sequence[FitScores], folds: Mapping[str, Fold]) -> Tables:
        """Assemble the tables from the outcomes of `jobs`, in their order."""

        def collected(part: Callable[[FitScores], pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
            frames = [
                part(outcome).assign(
                    method=job.method, fold=job.fold, seed=job.seed,
                    split=folds[job.fold].split, patient=folds[job.fold].test.patient,
                )
                for job, outcome in zip(jobs, outcomes, strict=True)
            ]  # fmt: skip
            filled = [frame for frame in frames if len(frame)] or frames[:1]
            return pd.concat(filled, ignore_index=True)[list(columns)]

        scores = collected(lambda o: o.scores, SCORE_COLUMNS)
        per_gene = collected(lambda o: o.genes, GENE_COLUMNS)
        intervals = collected(lambda o: o.intervals, INTERVAL_COLUMNS)
        return cls(scores, per_gene, intervals, _maps(jobs, outcomes, per_gene, trusted_variants(scores)))

    def write(self, folder: Path) -> None:
        """Write ``scores.csv``, ``per_gene.parquet``, ``intervals.parquet`` and ``maps.parquet``."""
        with write_atomically(folder / "scores.csv") as path:
            self.scores.to_csv(path, index=False)
        for name in ("per_gene", "intervals", "maps"):
            with write_atomically(folder / f"{name}.parquet") as path:
                getattr(self, name).to_parquet(path, index=False)


def _maps(
    jobs: Sequence[FitTask], outcomes: Sequence[FitScores], per_gene: pd.DataFrame, trusted: Mapping[str, str]
) -> pd.DataFrame:
    frames = [pd.DataFrame(columns=list(MAP_COLUMNS))]
    kept: dict[str, list[tuple[FitTask, pd.DataFrame]]] = {}
    for job, outcome in zip(jobs, outcomes, strict=True):
        if len(outcome.maps):
            kept.setdefault(job.fold, []).append((job, outcome.maps))
    judged = per_gene[(per_gene["seed"] == 0) & (per_gene["method"] != ORACLE)]
    judged = judged[judged["variant"] == judged["method"].map(trusted)]
    for fold, maps in kept.items():
        candidates = [name for name in maps[0][1] if name not in ("variant", "x_um", "y_um")]
        found = judged[(judged["fold"] == fold) & judged["gene"].isin(candidates)]
        mean = found.groupby("gene", sort=False)["pcc"].mean().sort_values(ascending=False, kind="stable")
        frames += [_map(job, frame, str(gene)) for gene in mean.index[:MAPPED] for job, frame in maps]
    return pd.concat(frames[1:] or frames, ignore_index=True)


def _map(job: FitTask, frame: pd.DataFrame, gene: str) -> pd.DataFrame:
    measured = frame.loc[frame["variant"] == TRUTH, gene].to_numpy()
    predicted = frame[frame["variant"] != TRUTH]
    return pd.DataFrame(
        {
            "fold": job.fold, "gene": gene, "method": job.method, "variant": predicted["variant"],
            "x_um": predicted["x_um"], "y_um": predicted["y_um"],
            "truth": list(measured) * (len(predicted) // len(measured)), "value": predicted[gene],
        }
    )[list(MAP_COLUMNS)]  # fmt: skip
