"""``chrep import``: write the sections of Space Ranger or another program as pairs of slide and counts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chrep_model.cli import console, options

if TYPE_CHECKING:
    from chrep_model.cohorts.importing import Imported
    from chrep_model.cohorts.readers import Source

EXAMPLE = options.example(
    "chrep import run1/outs -o cohort --image run1_HE.tif --patient P1",
    "chrep import hd/outs -o cohort --bin-um 16",
)


def import_counts(
    path: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="A Space Ranger folder, or a folder of several sections.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FOLDER", help="Folder of the pairs.")],
    image: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The full-resolution picture.  [default: looked for beside SOURCE]"
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the section.  [default: the run's]")] = None,
    patient: Annotated[
        str | None, typer.Option(help="Whose tissue it is.  [default: the section's name]")
    ] = None,
    bin_um: Annotated[
        float | None,
        typer.Option(help="Side in µm of squares to sum bins or cells into.", min=1),
    ] = None,
    um_per_px: Annotated[
        float | None, typer.Option(help="Scale of the picture.  [default: by the spots]", min=0.01)
    ] = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Write counts of another program and their slide as pairs that the other commands take."""
    from chrep_model.cohorts.importing import import_section
    from chrep_model.cohorts.readers import Options

    sources = _sources(path, alone=image is not None or name is not None)
    written = []
    for source in sources:
        with console.progress() as progress:
            imported = import_section(
                source.with_options(Options(image, bin_um)),
                out,
                name=name,
                patient=patient,
                um_per_px=um_per_px,
                progress=progress,
            )
        written.append(imported)
        if not as_json:
            _print_section(imported, source)
    if as_json:
        console.say_json({"folder": out, "sections": [_facts(imported) for imported in written]})


def _sources(path: Path, *, alone: bool) -> list[Source]:
    from chrep_model.cohorts.readers import find_source, find_sources, open_source
    from chrep_model.errors import SettingsError

    found = find_source(path)
    if found is not None or not path.is_dir():
        return [found or open_source(path)]
    sources = find_sources(path) or [open_source(path)]
    if len(sources) > 1 and alone:
        raise SettingsError(
            f"{path} holds {len(sources)} sections, and --image and --name are of one",
            remedy=f"Import them one by one: {options.shown(str(source.place) for source in sources)}.",
        )
    return sources


def _facts(imported: Imported) -> dict[str, object]:
    section = imported.section
    return {
        "section": section.name, "patient": section.patient, "counts": imported.counts,
        "slide": imported.slide, "picture": imported.picture, "spots": len(section),
        "spots_on_tissue": int(imported.on_tissue.sum()), "genes": len(section.genes),
        "um_per_px": section.mpp, "findings": [finding.text for finding in imported.findings],
    }  # fmt: skip


def _print_section(imported: Imported, source: Source) -> None:
    section, on_tissue = imported.section, int(imported.on_tissue.sum())
    console.say(f"{section.name} ({source.kind}): {len(section):,} spots, {len(section.genes):,} genes")
    console.say(f"  {on_tissue:,} of {len(section):,} spots lie on tissue ({on_tissue / len(section):.0%})")
    for finding in imported.findings:
        console.say(f"  {f'{finding.text} {finding.remedy}'.strip()}")
    console.say(f"  {imported.counts}, {imported.slide.name}; look at {imported.picture.name}")
