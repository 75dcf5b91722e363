"""Show two common errors of evaluation on real sections: the MSE of the mean, and the effect of depth.

    python benchmarks/traps.py COHORT

First table: the MSE of the mean predictor in both spaces, as scored and in closed form (for each gene, the
variance in the test section plus the squared offset of its mean). Second table: the correlation of a spot's
log library size with its genes, with per-spot normalisation and with the per-gene normalisation of the usual
benchmark matrices.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import typer

from chrep_model.cohorts.cohort import open_cohort
from chrep_model.cohorts.gene_panel import GenePanel
from chrep_model.evaluation.metrics import highly_expressed, mean_predictor_mse, scores
from chrep_model.evaluation.oracle import Normalisation, oracle_correlations
from chrep_model.pipeline import DEFAULT_GENES

NORMALISATIONS: tuple[Normalisation, ...] = ("per-spot", "per-gene")


def main(cohort: Path) -> None:
    """Print both tables, section by section."""
    sections = open_cohort(cohort).sections
    print("| test section | space | MSE as scored | closed form | difference |\n|---|---|---|---|---|")
    lines = []
    for test in sections:
        panel = GenePanel.fit([s for s in sections if s is not test], DEFAULT_GENES)
        truth = panel.expression(test)
        mean = np.tile(panel.mean, (len(test), 1))
        scored = {space: value for space, metric, value in scores(truth, mean, panel.sd) if metric == "mse"}
        for space, value in mean_predictor_mse(truth, panel.mean, panel.sd).items():
            difference = abs(scored[space] - value)
            print(f"| {test.name} | {space} | {scored[space]:.7f} | {value:.7f} | {difference:.1e} |")
        top = highly_expressed(truth)
        for kind in NORMALISATIONS:
            r = oracle_correlations(test, panel.genes, kind)
            lines.append((test.name, kind, float(np.nanmean(r)), float(np.nanmean(r[top]))))
    print("\n| test section | normalisation | depth alone: PCC(ACG) | PCC(HEG50) |\n|---|---|---|---|")
    for name, kind, acg, heg in lines:
        print(f"| {name} | {kind} | {acg:.3f} | {heg:.3f} |")
    for kind in NORMALISATIONS:
        acg, heg = np.mean([line[2:] for line in lines if line[1] == kind], axis=0)
        print(f"| mean | {kind} | {acg:.3f} | {heg:.3f} |")


if __name__ == "__main__":
    typer.run(main)
