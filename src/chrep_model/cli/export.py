"""``chrep export``: write a stored prediction in another format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from chrep_model.cli import console, options
from chrep_model.errors import PredictionError, SettingsError

EXAMPLE = options.example(
    "chrep export predictions/slide.h5ad -o slide.csv --genes ERBB2,CD3E",
    "chrep export predictions/slide.h5ad -o slide.sdata.zarr",
    "chrep export predictions/slide.h5ad -o ERBB2.pdf --genes ERBB2",
)


def export(
    prediction: Annotated[
        Path, typer.Argument(metavar="PREDICTION", help="A prediction as h5ad, zarr or SpatialData.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="File or zarr folder to write.")],
    genes: options.OnlyGenes = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="h5ad, zarr, spatialdata, ome-zarr, csv, parquet, geojson (QuPath); png, svg or pdf for a "
            "figure of one gene.  [default: by the name of FILE]",
        ),
    ] = None,
    debug: options.Debug = False,
) -> None:
    """Write a prediction in another format; neither the model nor the slide is needed.

    The name of FILE says the format: .h5ad, .zarr, .sdata.zarr (SpatialData), .ome.zarr, .csv, .parquet,
    .geojson, .png, .svg, .pdf. A figure shows the slide too, which is looked for where it was, beside the
    prediction, and in the folder above.
    """
    from chrep_model import files
    from chrep_model.export.figure import write_figure
    from chrep_model.export.writing import FIGURES, check_format, check_target, format_of, write_prediction
    from chrep_model.prediction.stored import read_prediction
    from chrep_model.prediction.table import spatial_facts

    kind = format_of(out, format)
    if out.resolve() == prediction.resolve():
        raise SettingsError(f"{out} is the prediction itself", remedy="Choose another name for the new file.")
    stored = read_prediction(prediction)
    chosen = options.names(genes) or stored.genes
    with options.naming(prediction):
        stored.bundle.panel.indices(chosen)
    if kind in FIGURES:
        if len(chosen) != 1:
            raise SettingsError(
                f"a figure shows one gene, and these are {len(chosen)}", remedy="Name one, with --genes GENE."
            )
        if out.exists():  # a picture does not show whether chrep wrote it, so it is not replaced
            raise PredictionError("there is a file under this name already", path=out, remedy="Remove it.")
        files.make_writable(out.parent)
        write_figure(stored, chosen[0], out)
    else:
        check_format(kind, len(chosen))
        check_target(out)
        files.make_writable(out.parent)
        write_prediction(stored, out, kind, chosen)
        spatial = kind in ("h5ad", "zarr", "spatialdata")
        if spatial and not spatial_facts(stored.slide, stored.grid.tile_px)["images"]:
            console.warn(
                f"{out} has no picture of the slide: {stored.slide.path.name} was not found, or cannot be "
                "read. Plots need img_key=None (scanpy) or img=False (squidpy)."
            )
    console.say(f"{out}: {len(stored)} tiles, {len(chosen)} {'gene' if len(chosen) == 1 else 'genes'}")
