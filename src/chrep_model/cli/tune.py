"""``chrep tune``: measure the fastest settings of a model on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chrep_model.cache import default_cache
from chrep_model.cli import console, options

if TYPE_CHECKING:
    from chrep_model.calibration.index import IndexFacts
    from chrep_model.encoders.tuning import Tuning

EXAMPLE = options.example("chrep tune -b breast.chrep", "chrep tune -b breast.chrep --precision bf16")


def tune(
    bundle: Annotated[Path, typer.Option("-b", "--bundle", metavar="BUNDLE", help="A trained model.")],
    device: options.Device = "auto",
    precision: options.InPrecision = "fp32",
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Measure how many tiles at a time, and compiled or not, make a model's encoder fastest here.

    A gallery of more than a million spots also gets an index, where faiss is installed and an index that
    finds 99 % of the nearest spots is faster than looking at all of them; only a CPU goes by it.

    Later predictions on this machine, of `chrep predict` and of the viewer, take what is found, unless they
    are told otherwise. Takes a minute or two, and some more for an index.
    """
    from chrep_model.bundle import load_bundle
    from chrep_model.calibration import index, index_making
    from chrep_model.device import choose_device
    from chrep_model.encoders import tuning
    from chrep_model.prediction import indexes

    loaded, place = load_bundle(bundle), choose_device(device)
    encoder = loaded.encoder(place, options.precision(precision))
    spots = len(loaded.model.fitted.gallery)
    large = place == "cpu" and spots > index_making.LARGE
    with console.progress() as progress:
        found = tuning.tune(encoder, default_cache(), progress)
        made = indexes.make(loaded, default_cache(), progress) if large and index.available() else None
    if as_json:
        console.say_json({**found.model_dump(), "index": made and made.model_dump()})
        return
    _print_tuning(found)
    if large:
        console.say(_index_text(made, spots))


def _index_text(made: IndexFacts | None, spots: int) -> str:
    from chrep_model.calibration import index, index_making

    if not index.available():
        return f'{spots:,} gallery spots are found faster with an index: pip install "napari-chrep[index]"'
    if made is None:
        share = f"{index_making.RECALL:.0%}"
        return f"no index: to find {share} of the nearest gallery spots, looking at all is as fast"
    times = made.exact_seconds / made.seconds
    return (
        f"kept for later predictions: an index of {spots:,} gallery spots, which finds {made.recall:.1%} "
        f"of the {made.k} nearest, {times:.1f} times as fast as looking at all"
    )


def _print_tuning(found: Tuning) -> None:
    rows = [[str(size), f"{rate:.0f}", ""] for size, rate in found.tiles_per_s.items()]
    if found.each_core_tiles_per_s is not None:
        rate = f"{found.each_core_tiles_per_s:.0f}"
        rows.append([str(found.batch_size), rate, "on each core, as for whole slides"])
    if found.compiled_tiles_per_s is not None:
        rows.append([str(found.batch_size), f"{found.compiled_tiles_per_s:.0f}", "compiled"])
    console.table(rows, ("tiles at a time", "tiles/s", ""))
    if found.not_compiled:
        console.say(f"cannot be compiled here: {found.not_compiled}")
    elif found.compile_s is not None and not found.compiled:
        console.say(f"not compiled: that takes {found.compile_s:.0f} s, more than it saves on a slide")
    form = ", compiled for whole slides" if found.compiled else ""
    console.say(f"kept for later predictions: {found.batch_size} tiles at a time{form}")
