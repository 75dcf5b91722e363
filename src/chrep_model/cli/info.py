"""``chrep info``: describe a slide, cohort, bundle or prediction."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chrep_model.cli import console, options
from chrep_model.errors import ChrepError

if TYPE_CHECKING:
    from chrep_model.calibration.trust import Trust
    from chrep_model.cohorts.readers import Source

Facts = dict[str, Any]

#: Key of the first error of a cohort, which is raised after the facts are printed.
_WRONG = "wrong"

EXAMPLE = options.example("chrep info slide.svs", "chrep info cohort/ --json")


def info(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A slide, cohort, bundle, h5ad or zarr.")],
    scene: options.Scene = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Say what a slide, cohort, bundle or prediction is."""
    facts = _facts_of(path, scene)
    wrong = facts.pop(_WRONG, None)
    if as_json:
        console.say_json(facts)
    else:
        _print_facts(facts)
    if wrong is not None:
        raise wrong


def _print_facts(facts: Facts) -> None:
    rows = facts.pop("sections", None) or facts.pop("levels", None)
    for row in rows or ():
        row.pop("findings", None)  # printed already, on stderr
    width = max(len(key) for key in facts) + 2
    for key, value in facts.items():
        console.say(f"{key.replace('_', ' '):{width}}{_text(value)}".rstrip())
    if rows:
        console.say()
        console.table(
            [[_text(v) for v in row.values()] for row in rows], [k.replace("_", " ") for k in rows[0]]
        )


def _facts_of(path: Path, scene: str | None) -> Facts:
    from chrep_model.cohorts.readers import find_source, find_sources
    from chrep_model.export.writing import is_prediction

    if not path.exists():
        raise ChrepError("there is no such file or folder", path=path, remedy="Check the name.")
    if (path / "card.json").is_file():
        return _bundle(path)
    if path.suffix.lower() == ".h5ad":
        return _h5ad(path)
    if path.is_dir():
        if any((path / name).exists() for name in (".zgroup", "zarr.json")):
            return _zarr(path) if is_prediction(path) else _slide(path, scene)
        if any(path.glob("*.[hH]5[aA][dD]")):
            return _cohort(path)
        if (source := find_source(path)) is not None:
            return _source(source)
        if find_sources(path):
            return _cohort(path)
    elif path.suffix.lower() in (".yaml", ".yml"):
        return _cohort(path)
    return _slide(path, scene)


def _slide(path: Path, scene: str | None) -> Facts:
    from chrep_model.slides.slide import open_slide

    with open_slide(path, scene=scene) as slide:
        rows, cols = slide.shape
        mpp = slide.mpp
        facts: Facts = {"kind": "slide", "name": slide.name, "width_px": cols, "height_px": rows}
        if mpp is None:
            facts |= {"um_per_px": None, "um_per_px_source": "not in the file: give --mpp to predict"}
        else:
            facts |= {
                "um_per_px": mpp.value, "um_per_px_source": mpp.source,
                "size_mm": f"{cols * mpp.value / 1000:.2f} x {rows * mpp.value / 1000:.2f}",
            }  # fmt: skip
        if slide.scenes:
            facts |= {"scene": slide.scene, "scenes": list(slide.scenes)}
        return facts | {
            **slide.properties,
            "fingerprint": slide.fingerprint,
            "levels": [
                {
                    "level": number, "width_px": level.shape[1], "height_px": level.shape[0],
                    "downsample": round(level.downsample, 5),
                    "um_per_px": None if mpp is None else round(mpp.value * level.downsample, 4),
                }
                for number, level in enumerate(slide.levels)
            ],
        }  # fmt: skip


def _cohort(path: Path) -> Facts:
    from chrep_model.cli.cohorts import print_findings, read_and_check
    from chrep_model.cohorts.pair_check import first_error

    with console.progress() as progress:
        cohort, found = read_and_check(path, progress=progress)
    print_findings(cohort, found)
    shared = set.intersection(*(set(section.genes) for section in cohort))
    return {
        _WRONG: first_error(cohort, found),
        "kind": "cohort",
        "name": cohort.name,
        "patients": len(cohort.patients),
        "spots": sum(len(section) for section in cohort),
        "genes_in_all_sections": len(shared),
        "sections": [
            {
                "section": section.name, "patient": section.patient, "slide": section.slide_path.name,
                "um_per_px": section.mpp, "spots": len(section), "genes": len(section.genes),
                "median_counts": _median_counts(section.counts),
                "findings": [
                    {"level": finding.level, "text": finding.text, "remedy": finding.remedy}
                    for finding in found[section.name]
                ],
            }
            for section in cohort
        ],
    }  # fmt: skip


def _source(source: Source) -> Facts:
    """Return the facts about another program's output, even if its picture is not found."""
    from chrep_model.cohorts.probe import probe
    from chrep_model.cohorts.readers import Options

    try:
        picture: Path | None = source.picture()
        missing = {}
    except ChrepError as error:
        picture, missing = None, {"no_slide": f"{error.what}. {error.remedy}"}
    probe(source.hdf5())
    spots = source.with_options(Options(image=picture)).read()
    return {
        "kind": source.kind, "section": source.name, "slide": None if picture is None else picture.name,
        **missing, "spots": len(spots.spot_ids), "genes": len(spots.genes),
        "first_genes": options.shown(spots.genes), "median_counts": _median_counts(spots.counts),
        **spots.facts, "noticed": " ".join(finding.text for finding in spots.findings),
    }  # fmt: skip


def _median_counts(counts: Any) -> int:
    import numpy as np

    return int(np.median(np.asarray(counts.sum(axis=1))))


def _bundle(path: Path) -> Facts:
    from chrep_model.bundle import load_bundle

    bundle = load_bundle(path)
    card = bundle.card
    return {
        "kind": "bundle", "name": card.name, "method": card.method, "variants": card.variants,
        "encoder": card.encoder, "encoder_id": card.encoder_id, "tile_um": bundle.spec.um,
        "tile_px": card.px, "tile_um_per_px": card.mpp, "context_um": card.context_um,
        "genes": card.genes, "first_genes": options.shown(bundle.genes), "units": card.units,
        **_accuracy(bundle.trust), "cohort": card.cohort, "seed": card.seed, "created": card.created,
        "chrep_version": card.chrep_version, "note": card.note, "hash": bundle.hash,
        "size": console.size_of(path), "sections": card.sections,
    }  # fmt: skip


def _accuracy(trust: Trust | None) -> Facts:
    """Return the median expected accuracy of the genes, and the number of predictable genes."""
    if trust is None:
        return {"median_accuracy": None, "predictable_genes": None}
    import numpy as np

    return {
        "median_accuracy": round(float(np.nanmedian(trust.accuracy)), 3),
        "predictable_genes": int(trust.predictable.sum()),
    }


def _h5ad(path: Path) -> Facts:
    from chrep_model.cohorts.h5ad import read_counts_file
    from chrep_model.cohorts.probe import probe
    from chrep_model.export.writing import is_prediction

    if path.is_file():
        probe([path])
    if is_prediction(path):
        import anndata

        return _prediction(anndata.read_h5ad(path, backed="r"))
    spots = read_counts_file(path)
    for finding in spots.findings:
        console.warn(f"{finding.text} {finding.remedy}".rstrip())
    return {
        "kind": "measured spots", "spots": len(spots.spot_ids), "genes": len(spots.genes),
        "first_genes": options.shown(spots.genes), "median_counts": _median_counts(spots.counts),
        **spots.facts,
    }  # fmt: skip


def _zarr(path: Path) -> Facts:
    from chrep_model.errors import PredictionError
    from chrep_model.prediction.recognition import TABLE
    from chrep_model.zarr_check import read_table

    inner = path / "tables" / TABLE
    return _prediction(read_table(inner if inner.is_dir() else path, PredictionError))


def _prediction(table: Any) -> Facts:
    from chrep_model.prediction.table import INTERVAL_LAYER

    return {
        "kind": "prediction",
        "tiles": table.n_obs,
        "genes": table.n_vars,
        "first_genes": options.shown(table.var_names),
        "variants": sorted(set(table.layers.keys()) - {INTERVAL_LAYER}),
        **dict(sorted(table.uns["chrep"].items())),
    }


def _text(value: Any) -> str:
    if value is None:
        return "unknown"
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(part) for part in value)
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)
