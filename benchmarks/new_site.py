"""Compare, on the sections of a new site, a model as it is, calibrated there, and trained only there.

    python benchmarks/new_site.py DATA [--json FILE]

DATA contains the folders ``her2st``, ``her2st_lowres``, ``mob_stutility``, ``mob_stahl2016``. The single
section of a site is cut into four strips, which are used like sections: one is the test section, each in
turn, and the others are for calibration. The last line is the time to calibrate on 5,000 spots.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from chrep_model.cache import default_cache
from chrep_model.cohorts.cohort import open_cohort
from chrep_model.cohorts.gene_panel import GenePanel
from chrep_model.cohorts.section import Section
from chrep_model.evaluation.metrics import scores
from chrep_model.methods.chrep import Chrep, ChrepSettings, FittedChrep, recalibrate
from chrep_model.methods.model import Model, fit_model, spot_table
from chrep_model.methods.ridge import Ridge
from chrep_model.pipeline import DEFAULT_GENES
from chrep_model.training.features import EncoderSettings, Features, section_features
from chrep_model.training.samples import SpotTable

SPOTS = 5000


@dataclass(frozen=True)
class Site:
    """Sections of a new site, and of the site where the model is trained.

    Attributes
    ----------
    name : str
        Title in the printed table.
    base, new : tuple of Section
        Training sections of the model, and measured sections of the new site.
    test : tuple of Section
        Test sections; each is left out of calibration when it is tested.
    encoder : EncoderSettings
        Settings of the encoder for this site.
    """

    name: str
    base: tuple[Section, ...]
    new: tuple[Section, ...]
    test: tuple[Section, ...]
    encoder: EncoderSettings


def sites(data: Path) -> Iterator[Site]:
    """Yield the sites to test."""
    breast = {s.name: s for s in open_cohort(data / "her2st").sections}
    coarse = EncoderSettings(mpp=3.2)
    bulb = EncoderSettings(mpp=4.42)
    yield Site(
        "same tumour: C2, C3 -> C4, tested on C5",
        (breast["C2"], breast["C3"]), strips(breast["C4"], 3), (breast["C5"],), EncoderSettings(),
    )  # fmt: skip
    (other,) = open_cohort(data / "her2st_lowres").sections
    parts = strips(other, 4)
    yield Site("another patient and scanner: C2-C5 -> A1", tuple(breast.values()), parts, parts, coarse)
    mouse = open_cohort(data / "mob_stutility").sections
    (replicate,) = open_cohort(data / "mob_stahl2016").sections
    parts = strips(replicate, 4)
    yield Site("another laboratory: olfactory bulb, 2020 -> 2016", tuple(mouse), parts, parts, bulb)


def strips(section: Section, count: int) -> tuple[Section, ...]:
    """Cut a section from left to right into strips with equal numbers of spots."""
    order = np.argsort(section.xy[:, 0], kind="stable")
    parts = [np.sort(rows) for rows in np.array_split(order, count)]
    return tuple(
        replace(
            section,
            name=f"{section.name}/{i + 1}",
            counts=section.counts[rows],
            xy=section.xy[rows],
            spot_ids=tuple(section.spot_ids[r] for r in rows),
        )
        for i, rows in enumerate(parts)
    )


def compare(site: Site) -> Iterator[dict[str, str | float]]:
    """Yield the scores of each test section by each of the models."""
    sections = {s.name: s for s in (*site.base, *site.new, *site.test)}
    features = section_features(
        list(sections.values()), site.encoder.open("cpu"), site.encoder.context_um, cache=default_cache()
    )
    chrep = Chrep(ChrepSettings())
    chosen = GenePanel.fit(site.base, DEFAULT_GENES).genes
    genes = [g for g in chosen if all(g in s.genes for s in site.new)]
    base = fit_model(chrep, site.base, features, genes, seed=0)
    for test in site.test:
        known = [s for s in site.new if s.name != test.name]
        ways = {
            "as it is": (base, "calibrated"),
            "calibrated at the site": (calibrated(base, known, features), "calibrated"),
            "trained at the site alone": (fit_model(chrep, known, features, genes, seed=0), "calibrated"),
            "ridge at the site alone": (fit_model(Ridge(), known, features, genes, seed=0), "raw"),
        }
        truth = base.panel.expression(test)
        for way, (model, variant) in ways.items():
            predicted = model.read(model.respond(features[test.name]), variant)
            for space, metric, value in scores(truth, predicted, base.panel.sd):
                if space == "log10-spot" and metric in ("pcc_acg", "pcc_heg50", "mse"):
                    yield {"site": site.name, "way": way, "test": test.name, "metric": metric, "value": value}


def calibrated(base: Model, sections: Sequence[Section], features: Features) -> Model:
    """Return the model with the site's gallery, corrector and combination; encoder and heads unchanged."""
    assert isinstance(base.fitted, FittedChrep)  # noqa: S101
    table = spot_table(sections, features, base.panel, base.scale)
    return replace(base, fitted=recalibrate(base.fitted, table, ChrepSettings(), seed=0))


def seconds_for(spots: int, data: Path) -> float:
    """Return the seconds of a calibration on `spots` spots, drawn with repetition from real sections."""
    settings, cohort = EncoderSettings(), open_cohort(data / "her2st")
    features = section_features(
        cohort.sections, settings.open("cpu"), settings.context_um, cache=default_cache()
    )
    model = fit_model(Chrep(ChrepSettings()), cohort.sections, features, DEFAULT_GENES, seed=0)
    assert isinstance(model.fitted, FittedChrep)  # noqa: S101
    table = spot_table(cohort.sections, features, model.panel, model.scale)
    rng = np.random.default_rng(0)
    rows = np.sort(rng.integers(0, len(table), spots))
    started = time.perf_counter()
    recalibrate(model.fitted, repeated(table, rows, rng), ChrepSettings(), seed=0)
    return time.perf_counter() - started


def repeated(table: SpotTable, rows: NDArray[np.int64], rng: np.random.Generator) -> SpotTable:
    """Return some rows of a table, with a little noise so that repeated rows differ."""
    noise = rng.standard_normal((len(rows), table.features.shape[1])).astype(np.float32)
    return replace(
        table,
        features=table.features[rows] + 0.1 * noise,
        targets=table.targets[rows],
        section=table.section[rows],
        patient=table.patient[rows],
        position=table.position[rows],
        depth=table.depth[rows],
    )


def main(
    data: Path,
    out: Annotated[Path | None, typer.Option("--json", help="Where to write every figure.")] = None,
) -> None:
    """Print the table: mean and sd over the test sections."""
    rows = [row for site in sites(data) for row in compare(site)]
    seconds = seconds_for(SPOTS, data)
    if out is not None:
        out.write_text(json.dumps({"rows": rows, "seconds": seconds}, indent=1), encoding="utf-8")
    print("| site | model | PCC(ACG) | PCC(HEG50) | MSE |\n|---|---|---|---|---|")
    for site, way in dict.fromkeys((r["site"], r["way"]) for r in rows):
        cells = []
        for metric in ("pcc_acg", "pcc_heg50", "mse"):
            key = (site, way, metric)
            values = [float(r["value"]) for r in rows if (r["site"], r["way"], r["metric"]) == key]
            cells.append(f"{np.mean(values):.3f} ± {np.std(values):.3f}")
        print(f"| {site} | {way} | {' | '.join(cells)} |")
    print(f"\ncalibrated on {SPOTS} spots in {seconds:.0f} s")


if __name__ == "__main__":
    typer.run(main)
