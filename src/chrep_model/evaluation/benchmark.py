"""Methods x folds x seeds under one protocol: the same embeddings, folds, genes and test sections for all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from chrep_model.cohorts.cohort import Cohort
from chrep_model.cohorts.genes import read_gene_list
from chrep_model.embeddings import Progress, default_cache
from chrep_model.errors import Cancelled, SettingsError
from chrep_model.evaluation.metrics import gene_correlations, scores
from chrep_model.evaluation.report import write_report
from chrep_model.evaluation.splits import Fold, Split, make_folds
from chrep_model.inference.predictor import choose_device
from chrep_model.methods.model import Model, fit_model
from chrep_model.methods.registry import METHODS, MethodSettings, make_method
from chrep_model.pipeline import DEFAULT_GENES, EncoderSettings, Features, section_features, stopping
from chrep_model.training.run import SILENT, Run

SCORE_COLUMNS = ("method", "variant", "split", "fold", "patient", "seed", "space", "metric", "value")
HEADLINE = ("pcc_acg", "pcc_heg50", "mse", "mae")


class EvaluateSettings(EncoderSettings, MethodSettings):
    """What is compared with what; the methods' own settings stand in `MethodSettings`.

    Attributes
    ----------
    methods : tuple of str
        Of `methods.registry.METHODS`.
    split : {"section", "patient"}
        What is left out.
    genes : int or Path
        How many genes every fold chooses on its training sections, or a file that lists them.
    seeds : int
        Repeats, with seeds 0, 1, ...; a method without chance runs once.
    test_sections : tuple of str
        Test these only.
    """

    methods: tuple[str, ...] = METHODS
    split: Split = "section"
    genes: int | Path = DEFAULT_GENES
    seeds: int = 1
    test_sections: tuple[str, ...] = ()


@dataclass(frozen=True)
class Summary:
    """What came out.

    Attributes
    ----------
    scores : DataFrame
        One row per figure, columns `SCORE_COLUMNS`.
    per_gene : DataFrame
        Correlation per method, variant, fold, seed and gene.
    table : dict
        As written to ``summary.json``.
    folder : Path
        Where it lies.
    """

    scores: pd.DataFrame
    per_gene: pd.DataFrame
    table: dict[str, Any]
    folder: Path


def evaluate(
    cohort: Cohort,
    settings: EvaluateSettings,
    out: str | os.PathLike[str],
    *,
    device: str = "auto",
    cache: Path | None = None,
    progress: Progress | None = None,
    run: Run = SILENT,
    cancelled: Callable[[], bool] | None = None,
) -> Summary:
    """Fit every method on every fold's training sections and score it on the section left out.

    Writes ``scores.csv``, ``per_gene.parquet``, ``summary.json`` and ``report.html`` to `out`.

    Raises
    ------
    SettingsError
        Unknown method, or no seed.
    CohortError
        Too few sections for the split.
    """
    if settings.seeds < 1:
        raise SettingsError("evaluating needs at least one seed", remedy="Give --seeds 1 or more.")
    methods = [make_method(name, settings) for name in settings.methods]
    folds = make_folds(cohort, settings.split, settings.test_sections)
    genes = settings.genes if isinstance(settings.genes, int) else read_gene_list(settings.genes)
    encoder = settings.open(choose_device(device))
    features = section_features(
        cohort.sections, encoder, settings.context_um, batch_size=settings.batch_size,
        cache=cache or default_cache(), progress=progress, cancelled=cancelled,
    )  # fmt: skip
    jobs = [
        (fold, method, seed)
        for fold in folds
        for method in methods
        for seed in range(settings.seeds if method.random else 1)
    ]
    rows: list[dict[str, Any]] = []
    gene_rows: list[pd.DataFrame] = []
    for done, (fold, method, seed) in enumerate(jobs):
        if cancelled is not None and cancelled():
            raise Cancelled("cancelled")
        if progress is not None:
            progress(done, len(jobs), f"{method.name} without {fold.name}")
        training = {s.name: features[s.name] for s in fold.train}
        model = fit_model(method, fold.train, training, genes, seed=seed, run=stopping(run, cancelled))
        facts = {"method": method.name, "split": settings.split, "fold": fold.name}
        new = _score(model, features, fold, {**facts, "patient": fold.test.patient, "seed": seed})
        rows += new[0]
        gene_rows += new[1]
    if progress is not None:
        progress(len(jobs), len(jobs), "done")
    table = pd.DataFrame(rows)[list(SCORE_COLUMNS)]
    per_gene = pd.concat(gene_rows, ignore_index=True)
    summary = summarise(table)
    summary["settings"] = settings.model_dump(mode="json", exclude={"weights", "genes"})
    summary["settings"]["genes"] = genes if isinstance(genes, int) else list(genes)
    summary["encoder_id"], summary["cohort"] = encoder.id, cohort.name
    folder = Path(out)
    _write(folder, table, per_gene, summary)
    return Summary(table, per_gene, summary, folder)


def _score(
    model: Model, features: Features, fold: Fold, facts: dict[str, Any]
) -> tuple[list[dict[str, Any]], list[pd.DataFrame]]:
    """Rows of ``scores.csv`` and of ``per_gene.parquet`` for every variant of a fitted model."""
    rows: list[dict[str, Any]] = []
    gene_rows = []
    truth = model.panel.expression(fold.test)
    response = model.respond(features[fold.name])
    for variant in model.fitted.variants:
        predicted = model.read(response, variant)
        named = {**facts, "variant": variant}
        rows += [
            {**named, "space": space, "metric": metric, "value": value}
            for space, metric, value in scores(truth, predicted, model.panel.sd)
        ]
        r = gene_correlations(truth, predicted)
        gene_rows.append(
            pd.DataFrame({**named, "gene": list(model.panel.genes), "pcc": r, "mean": truth.mean(0)})
        )
    return rows, gene_rows


def summarise(table: pd.DataFrame) -> dict[str, Any]:
    """Means and spreads over folds, and paired differences to ridge and to the best other method.

    Seeds are averaged first: folds are what a method has to generalise over.
    """
    per_fold = table.groupby(["method", "variant", "space", "metric", "fold"], sort=False)["value"].mean()
    entries = []
    for (method, variant, space, metric), values in per_fold.groupby(
        ["method", "variant", "space", "metric"], sort=False
    ):
        entries.append(
            {
                "method": method, "variant": variant, "space": space, "metric": metric,
                "mean": float(values.mean()), "sd": float(values.std(ddof=1)) if len(values) > 1 else None,
                "median": float(values.median()), "folds": len(values),
            }
        )  # fmt: skip
    return {"scores": entries, "differences": _differences(per_fold)}


def _differences(per_fold: pd.Series) -> list[dict[str, Any]]:
    """Paired over folds, of each method's trusted variant; "best" is the best of the other methods."""
    last = {m: v for m, v, *_ in per_fold.index}  # the variant named last is the one to trust
    per_fold = per_fold.sort_index()
    out = []
    for metric in HEADLINE:
        by_method = {m: per_fold[m, v, "log10-spot", metric] for m, v in last.items()}
        better = -1.0 if metric in ("mse", "mae") else 1.0
        for method, values in by_method.items():
            others = {m: v for m, v in by_method.items() if m != method}
            references = {"ridge": "ridge"} if "ridge" in others else {}
            if others:
                references["best"] = max(others, key=lambda m: better * float(others[m].mean()))
            for name, reference in references.items():
                difference = values - others[reference]
                mean = float(others[reference].mean())
                out.append(
                    {
                        "method": method, "metric": metric, "against": name, "reference": reference,
                        "mean": float(difference.mean()),
                        "sd": float(difference.std(ddof=1)) if len(difference) > 1 else None,
                        "ratio": float(values.mean()) / mean if abs(mean) > 1e-9 else None,
                        "folds_better": int((better * difference > 0).sum()), "folds": len(difference),
                    }
                )  # fmt: skip
    return out


def _write(folder: Path, table: pd.DataFrame, per_gene: pd.DataFrame, summary: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)

    def put(name: str, write: Callable[[Path], object]) -> None:
        part = folder / f".{name}.partial"
        write(part)
        with part.open("rb") as stream:
            os.fsync(stream.fileno())
        part.replace(folder / name)

    put("scores.csv", lambda p: table.to_csv(p, index=False))
    put("per_gene.parquet", lambda p: per_gene.to_parquet(p, index=False))
    put("summary.json", lambda p: p.write_text(json.dumps(summary, indent=1), encoding="utf-8"))
    put("report.html", lambda p: write_report(p, table, per_gene, summary))
