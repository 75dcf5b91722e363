"""Remove the parts of literal CHRep one at a time, on real sections, and compare with its paper.

    python benchmarks/ablation.py COHORT [--encoder NAME --weights FILE] [--seeds 3] [--json FILE]

Features, folds, genes, settings and seeds stay the same. The published figures are from other cohorts and a
network trained end to end, so only the direction of a difference can be compared.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.progress import track

from chrep_model.cache import default_cache
from chrep_model.calibration.corrector import CorrectorSettings, fit_corrector
from chrep_model.calibration.gallery import weighted_mean
from chrep_model.cohorts.cohort import open_cohort
from chrep_model.cohorts.gene_panel import GenePanel
from chrep_model.evaluation.guard import GuardStage
from chrep_model.evaluation.metrics import scores
from chrep_model.evaluation.splits import Fold, make_folds
from chrep_model.methods.base import gallery_of
from chrep_model.methods.chrep import ChrepSettings
from chrep_model.methods.chrep.phase1 import Phase1, fit_phase1
from chrep_model.methods.model import FeatureScale, spot_table
from chrep_model.pipeline import DEFAULT_GENES
from chrep_model.statistics import unit_rows
from chrep_model.training.features import EncoderSettings, section_features
from chrep_model.training.samples import SpotTable

PUBLISHED = {
    "estimate only": "Alex+10x .2079",
    "correction only": "Alex+10x .2434 (MSE .2300)",
    "both, no magnitude penalty": "Alex+10x .2604 (MSE .2652)",
    "full": "Alex+10x .2676 (MSE .2150), cSCC .3522 (MSE .4191)",
    "without topology": "cSCC .3412",
    "without contrast": "cSCC .3321",
    "without regression": "cSCC .3482",
    "full, own section in the gallery": "what the paper describes",
    "regression head (thrown away)": "not printed",
}
"""PCC(ACG) as printed in tables II and III of the paper, by variant."""

LOSSES = {
    "full": {},
    "without topology": {"spa": 0.0},
    "without contrast": {"con": 0.0},
    "without regression": {"reg": 0.0},
}

METRICS = ("pcc_acg", "pcc_heg50", "mse")

Prediction = NDArray[np.float32]


def predictions(
    table: SpotTable, x: Prediction, s: ChrepSettings, seed: int
) -> Iterator[tuple[str, Prediction]]:
    """Yield each variant's standardised prediction (n, genes) for features `x` (n, d)."""
    for name, losses in LOSSES.items():
        phase1 = fit_phase1(table, s.phase1.model_copy(update=losses), seed)
        if name != "full":
            yield name, second_phase(phase1, table, x, s, seed)
            continue
        yield "regression head (thrown away)", phase1.read(phase1.hidden(x))
        gallery = gallery_of(table, unit_rows(phase1.feature(table.features)))
        found = gallery.search(unit_rows(phase1.feature(x)), s.k)
        yield "estimate only", weighted_mean(found, s.temperature, table.targets)
        yield "correction only", second_phase(phase1, table, x, s, seed, estimate=False)
        yield "both, no magnitude penalty", second_phase(phase1, table, x, s, seed, rho=0.0)
        yield "full", second_phase(phase1, table, x, s, seed)
        own = s.model_copy(update={"exclude": "self"})
        yield "full, own section in the gallery", second_phase(phase1, table, x, own, seed)


def second_phase(
    phase1: Phase1,
    table: SpotTable,
    x: Prediction,
    s: ChrepSettings,
    seed: int,
    *,
    estimate: bool = True,
    rho: float | None = None,
) -> Prediction:
    """Return estimate plus correction; without `estimate`, the output of the corrector alone."""
    gallery = gallery_of(table, unit_rows(phase1.feature(table.features)))
    z = unit_rows(phase1.feature(x))
    near = gallery.search(gallery.z, s.k, exclude=s.exclude, section=table.section, patient=table.patient)
    start = weighted_mean(near, s.temperature, table.targets)
    base = weighted_mean(gallery.search(z, s.k), s.temperature, table.targets)
    if not estimate:
        start, base = np.zeros_like(start), np.zeros_like(base)
    settings = s.corrector if rho is None else CorrectorSettings(**{**s.corrector.model_dump(), "rho": rho})
    corrector = fit_corrector(
        gallery.z,
        start,
        table.targets,
        table.section,
        settings,
        mae=s.phase1.mae,
        pcc=s.phase1.pcc,
        seed=seed,
    )
    with torch.inference_mode():
        residual: Prediction = corrector.eval()(torch.from_numpy(z)).numpy()
    return base + residual


def ablate(fold: Fold, s: ChrepSettings, seeds: int) -> Iterator[dict[str, str | float]]:
    """Yield the scores of each variant on a fold's test section."""
    panel = GenePanel.fit(fold.train, DEFAULT_GENES)
    scale = FeatureScale.fit(np.concatenate([fold.features[t.name] for t in fold.train]))
    table = spot_table(fold.train, fold.features, panel, scale)
    with fold.test.during(GuardStage.PREDICTING):
        x = scale(fold.test.features)
    for seed in range(seeds):
        for name, z in predictions(table, x, s, seed):
            with fold.test.during(GuardStage.SCORING):
                truth = panel.expression(fold.test)
            for space, metric, value in scores(truth, panel.unstandardise(z), panel.sd):
                if space == "log10-spot" and metric in METRICS:
                    yield {"variant": name, "fold": fold.name, "seed": seed, "metric": metric, "value": value}


def main(
    cohort: Path,
    encoder: str = "stainbank",
    weights: Path | None = None,
    seeds: int = 3,
    out: Annotated[Path | None, typer.Option("--json", help="Where to write every single figure.")] = None,
) -> None:
    """Print the table: mean over folds and seeds, sd over folds."""
    opened = open_cohort(cohort)
    settings = EncoderSettings(encoder=encoder, weights=weights)
    features = section_features(
        opened.sections, settings.open("cpu"), settings.context_um, cache=default_cache()
    )
    folds = [fold.with_features(opened, features) for fold in make_folds(opened, "section")]
    literal = ChrepSettings(calibration="literal")
    rows = [row for fold in track(folds, "folds") for row in ablate(fold, literal, seeds)]
    if out is not None:
        out.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    print(
        f"| variant ({encoder}) | PCC(ACG) | PCC(HEG50) | MSE | published PCC(ACG) |\n|---|---|---|---|---|"
    )
    for name, printed in PUBLISHED.items():
        cells = " | ".join(_cell(rows, name, metric) for metric in METRICS)
        print(f"| {name} | {cells} | {printed} |")


def _cell(rows: list[dict[str, str | float]], variant: str, metric: str) -> str:
    mine = [r for r in rows if r["variant"] == variant and r["metric"] == metric]
    names = dict.fromkeys(r["fold"] for r in mine)
    per_fold = [np.mean([float(r["value"]) for r in mine if r["fold"] == f]) for f in names]
    return f"{np.mean(per_fold):.4f} ± {np.std(per_fold, ddof=1):.3f}"


if __name__ == "__main__":
    typer.run(main)
