"""Comparison of methods over folds and seeds, with the same embeddings, genes and test sections."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from chrep_model.cache import default_cache
from chrep_model.cohorts.cohort import Cohort
from chrep_model.cohorts.gene_lists import read_gene_list
from chrep_model.cohorts.gene_panel import GenePanel
from chrep_model.cohorts.section import Section
from chrep_model.device import choose_device
from chrep_model.errors import SettingsError
from chrep_model.evaluation.fits import FitTask, JobStore, Plan, section_digest
from chrep_model.evaluation.guard import check_distinct
from chrep_model.evaluation.oracle import ORACLE
from chrep_model.evaluation.parallel import do_jobs
from chrep_model.evaluation.report import write_report
from chrep_model.evaluation.splits import Fold, Split, make_folds
from chrep_model.evaluation.summary import summarise, trusted_variants
from chrep_model.evaluation.tables import Tables
from chrep_model.files import make_writable, write_atomically
from chrep_model.methods.method_settings import MethodSettings, make_method
from chrep_model.methods.registry import names
from chrep_model.pipeline import DEFAULT_GENES
from chrep_model.progress import SILENT, Progress
from chrep_model.training.features import EncoderSettings, section_features


class EvaluateSettings(EncoderSettings, MethodSettings):
    """Methods to compare, and the protocol to compare them by.

    Attributes
    ----------
    methods : tuple of str
        Names from `methods.registry.names`; all unless given.
    split : {"section", "patient"}
        Whether each fold holds out one section or one patient.
    genes : int or Path
        Number of genes that every fold chooses on its training sections, or a file that lists them.
    seeds : int
        Number of repeats, with seeds 0, 1, ...; deterministic methods run once.
    test_sections : tuple of str
        Sections to test; all if empty.
    """

    methods: tuple[str, ...] = Field(default_factory=names)
    split: Split = "section"
    genes: int | Path = DEFAULT_GENES
    seeds: int = 1
    test_sections: tuple[str, ...] = ()


@dataclass(frozen=True)
class Summary(Tables):
    """Result of an evaluation: its tables, and what they say together.

    Attributes
    ----------
    table : dict
        Content of ``summary.json``.
    folder : Path
        Folder of the results.
    """

    table: dict[str, Any]
    folder: Path


def evaluate(
    cohort: Cohort,
    settings: EvaluateSettings,
    out: str | os.PathLike[str],
    *,
    device: str = "auto",
    cache: Path | None = None,
    processes: int = 1,
    progress: Progress = SILENT,
) -> Summary:
    """Fit every method on every fold's training sections, and score it on the held-out section.

    The result of every job (one method on one fold with one seed) is stored in ``out/jobs`` at once; called
    again, only jobs that are missing or have changed are run. Then ``scores.csv``, ``per_gene.parquet``,
    ``intervals.parquet``, ``maps.parquet``, ``summary.json`` and ``report.html`` are written to `out`.

    Parameters
    ----------
    cohort : Cohort
        All sections.
    settings : EvaluateSettings
        Methods and protocol.
    out : path
        Output folder.
    device : str
        ``"auto"`` or a torch device, for the encoder.
    cache : Path, optional
        Cache folder of the embeddings; `default_cache()` unless given.
    processes : int
        Number of jobs at a time; it does not change the results. With more than 1, processes are started, so
        that a script that calls this needs an ``if __name__ == "__main__"`` guard.
    progress : Progress
        Receives the tiles and jobs done and warnings about genes that sections did not measure; asked for
        cancellation between batches, between jobs, and between the parts of a fit.

    Raises
    ------
    SettingsError
        A method is unknown, or the number of seeds or processes is 0.
    CohortError
        There are too few sections for the split.
    LeakError
        A method has read data of a test section, or the cohort holds a section twice.
    ChrepError
        Error of the first job that failed, with the job's name.
    """
    _check(settings, processes)
    check_distinct(cohort.sections)
    folds = make_folds(cohort, settings.split, settings.test_sections)
    genes = settings.genes if isinstance(settings.genes, int) else read_gene_list(settings.genes)
    panel = GenePanel.fit(cohort.sections, genes, warn=progress.warn)
    for line in panel.gaps(cohort.sections):
        progress.warn(line)
    encoder = settings.open(choose_device(device))
    features = section_features(
        cohort.sections, encoder, settings.context_um, batch_size=settings.batch_size,
        cache=cache or default_cache(), progress=progress,
    )  # fmt: skip
    plan = Plan(
        {fold.name: fold.with_features(cohort, features) for fold in folds}, genes,
        settings, encoder.id, {s.name: section_digest(s, features[s.name]) for s in cohort},
    )  # fmt: skip
    jobs, store = _jobs(settings, folds), JobStore(Path(out) / "jobs")
    do_jobs(plan, jobs, store, processes=processes, progress=progress)
    tables = Tables.of(jobs, [store.read(job) for job in jobs], plan.folds)
    facts = settings.model_dump(mode="json", exclude={"weights", "genes"})
    facts["genes"] = genes if isinstance(genes, int) else list(genes)
    summary = {
        **summarise(tables.scores), "trusted": trusted_variants(tables.scores),
        "settings": facts, "encoder_id": encoder.id, "cohort": cohort.name,
    }  # fmt: skip
    _write(Path(out), tables, summary, [cohort[name] for name in plan.folds])
    return Summary(**vars(tables), table=summary, folder=Path(out))


def _check(settings: EvaluateSettings, processes: int) -> None:
    if settings.seeds < 1:
        raise SettingsError("evaluating needs at least one seed", remedy="Give --seeds 1 or more.")
    if processes < 1:
        raise SettingsError("evaluating needs at least one process", remedy="Give --jobs 1 or more.")
    if not settings.methods:
        raise SettingsError("no method is named", remedy=f"Choose from {', '.join(names())}.")
    for name in settings.methods:
        make_method(name, settings)


def _jobs(settings: EvaluateSettings, folds: Sequence[Fold]) -> list[FitTask]:
    """Return one job per method, fold and seed, always including those of the oracle."""
    repeats = {
        name: settings.seeds if make_method(name, settings).random else 1
        for name in dict.fromkeys(settings.methods)
    }
    return [
        FitTask(name, fold.name, seed)
        for fold in folds
        for name, count in {**repeats, ORACLE: 1}.items()
        for seed in range(count)
    ]


def _write(folder: Path, tables: Tables, summary: dict[str, Any], tested: Sequence[Section]) -> None:
    make_writable(folder)
    tables.write(folder)
    with write_atomically(folder / "summary.json") as path:
        path.write_text(json.dumps(summary, indent=1, allow_nan=False), encoding="utf-8")
    with write_atomically(folder / "report.html") as path:
        write_report(path, tables, summary, tested)
