"""``chrep evaluate``: compare methods on sections that are left out of training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chrep_model.cli import console, options
from chrep_model.methods.registry import names

if TYPE_CHECKING:
    from chrep_model.evaluation.benchmark import Summary


EXAMPLE = options.example(
    "chrep evaluate cohort/ -o report --methods mean,ridge,chrep --split patient",
    "chrep evaluate cohort/ -o report --seeds 3 --jobs 4     # again after a stop: goes on from there",
)


def evaluate(
    cohort: options.CohortArgument,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder of scores and report.")],
    methods: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help=f"Which of {', '.join(names())}.  [default: all]",
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="What is left out in turn: section or patient.  [default: section]")
    ] = None,
    encoder: options.Encoder = None,
    weights: options.Weights = None,
    genes: options.Genes = None,
    tile_um: options.TileUm = None,
    mpp: options.TileMpp = None,
    context_um: options.ContextUm = None,
    seeds: Annotated[int | None, typer.Option(help="Repeats of methods with chance.  [default: 1]")] = None,
    test_sections: Annotated[
        str | None, typer.Option(metavar="A,B", help="Leave only these out.  [default: all in turn]")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(help="Fits at a time, each a process.  [default: as many as cores]", min=1),
    ] = None,
    config: options.Config = None,
    device: options.Device = "auto",
    batch_size: options.BatchSize = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Compare methods on sections left out of training.

    All see the same encoder, folds and genes. Writes scores.csv, per_gene.parquet, intervals.parquet,
    maps.parquet, summary.json and report.html. What every fit found is kept in DIR/jobs: the same command
    goes on where it was stopped, and with one more method does that alone.
    """
    values = options.merged(
        config, methods=options.names(methods) or None, split=split, encoder=encoder, weights=weights,
        genes=genes,
        tile_um=tile_um, mpp=mpp, context_um=context_um, seeds=seeds,
        test_sections=options.names(test_sections) or None, batch_size=batch_size,
    )  # fmt: skip
    from chrep_model.files import make_writable

    make_writable(out)
    from chrep_model.cli.cohorts import checked_cohort
    from chrep_model.config import validated
    from chrep_model.evaluation import benchmark
    from chrep_model.evaluation.parallel import usable_cores

    settings = validated(benchmark.EvaluateSettings, values, path=config, command="evaluate")
    listed = settings.genes if isinstance(settings.genes, Path) else None
    with console.progress() as progress, options.naming(listed):
        summary = benchmark.evaluate(
            checked_cohort(cohort, progress=progress), settings, out,
            device=device, processes=jobs or usable_cores(), progress=progress,
        )  # fmt: skip
    if as_json:
        console.say_json(summary.table)
    else:
        _print_table(summary)
        console.say(f"{summary.folder / 'report.html'}")


def _print_table(summary: Summary) -> None:
    """Print the mean and standard deviation over folds, one line per method and variant."""
    from chrep_model.evaluation.summary import HEADLINE

    cells: dict[tuple[str, str], dict[str, str]] = {}
    for entry in summary.table["scores"]:
        if entry["space"] == "log10-spot" and entry["metric"] in HEADLINE:
            row = cells.setdefault((entry["method"], entry["variant"]), {})
            row[entry["metric"]] = _mean_and_sd(entry)
    rows = [(*key, *(row.get(metric, "") for metric in HEADLINE)) for key, row in cells.items()]
    console.table(rows, ("method", "variant", *HEADLINE))


def _mean_and_sd(entry: dict[str, Any]) -> str:
    sd = "" if entry["sd"] is None else f" ± {entry['sd']:.3f}"
    return f"{entry['mean']:.3f}{sd}"
