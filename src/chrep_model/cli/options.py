"""Options that several commands share, and functions that parse their values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chrep_model.errors import GeneError, SettingsError

if TYPE_CHECKING:
    from chrep_model.encoders.encoder import Precision
    from chrep_model.geometry import Rect

_DEBUG = "chrep.debug"


def _remember_debug(ctx: typer.Context, wanted: bool) -> bool:
    ctx.meta[_DEBUG] = wanted or ctx.meta.get(
        _DEBUG, False
    )  # the option may stand before or after the command's name
    return wanted


def wants_debug(ctx: typer.Context) -> bool:
    """Return whether the user asked for tracebacks."""
    return bool(ctx.meta.get(_DEBUG, False))


Debug = Annotated[
    bool,
    typer.Option(
        "--debug", callback=_remember_debug, is_eager=True, help="Show the traceback when something fails."
    ),
]
Scene = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Which picture of a file that holds several, by name or number.  [default: the largest]",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Device = Annotated[str, typer.Option(help="auto (a GPU where there is one), cpu, cuda, cuda:1, mps.")]
BatchSize = Annotated[int | None, typer.Option(help="Tiles at a time.  [default: 32]", min=1)]
TunedBatchSize = Annotated[
    int | None, typer.Option(help="Tiles at a time.  [default: what `chrep tune` found here, else 32]", min=1)
]
InPrecision = Annotated[
    str,
    typer.Option(help="fp32, or bf16: faster on a GPU, with rounding that shows. For encoders of timm."),
]
CohortArgument = Annotated[
    Path,
    typer.Argument(
        metavar="COHORT",
        help="Folder of pairs NAME.<image> + NAME.h5ad, or of runs; or YAML manifest.",
    ),
]
BundleOut = Annotated[Path, typer.Option("-o", "--out", metavar="BUNDLE", help="Folder of the bundle.")]
Encoder = Annotated[
    str | None, typer.Option(help="stainbank (built in), or the name of a timm model.  [default: stainbank]")
]
Weights = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Local .safetensors with the weights of a timm encoder.")
]
Genes = Annotated[
    str | None,
    typer.Option(
        metavar="N|FILE", help="How many genes to choose, or a file with one a line.  [default: 785]"
    ),
]
TileUm = Annotated[float | None, typer.Option(help="Side of a tile in µm.  [default: 150]")]
TileMpp = Annotated[
    float | None, typer.Option("--mpp", help="µm per pixel of a tile.  [default: what the encoder needs]")
]
ContextUm = Annotated[
    str | None,
    typer.Option(
        metavar="R,R", help="Radii in µm of the surroundings that are read too; 'none'.  [default: 300,600]"
    ),
]
OnlyGenes = Annotated[str | None, typer.Option(metavar="A,B", help="Write these genes only.  [default: all]")]
Config = Annotated[
    Path | None, typer.Option(metavar="YAML", help="Settings from a file; options given here win.")
]


def example(*lines: str) -> str:
    """Return the text with examples for the end of a command's help."""
    return "\n".join(["\b", "Example:" if len(lines) == 1 else "Examples:", *(f"  {line}" for line in lines)])


def names(text: str | None) -> tuple[str, ...]:
    """Split names such as ``A,B``; empty parts are dropped, and a repeated name is kept once."""
    return tuple(dict.fromkeys(part.strip() for part in (text or "").split(",") if part.strip()))


def numbers(text: str, option: str) -> tuple[float, ...]:
    """Split numbers such as ``300,600``; SettingsError if a part is not a number."""
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise SettingsError(
            f"{option} {text!r} is no list of numbers", remedy=f"Write for example {option} 300,600."
        ) from None


def rect(text: str) -> Rect:
    """Parse a rectangle ``X,Y,W,H`` in level-0 px."""
    from chrep_model.geometry import Rect

    values = numbers(text, "--region")
    try:
        return Rect.of(values)
    except ValueError:
        raise SettingsError(
            f"--region {text!r} is no rectangle",
            remedy="Write X,Y,WIDTH,HEIGHT in pixels of the full resolution, such as 1000,2000,4000,3000.",
        ) from None


def shard(text: str) -> tuple[int, int]:
    """Parse a shard ``I/N``, with I from 1 to N."""
    part, _, whole = text.partition("/")
    if part.strip().isdigit() and whole.strip().isdigit() and 1 <= int(part) <= int(whole):
        return int(part), int(whole)
    raise SettingsError(
        f"--shard {text!r} is no part of a whole", remedy="Write I/N with I from 1 to N, such as 1/4."
    )


def precision(text: str) -> Precision:
    """Return the value of ``--precision`` if it is ``fp32`` or ``bf16``; SettingsError for any other."""
    known: dict[str, Precision] = {"fp32": "fp32", "bf16": "bf16"}
    if text in known:
        return known[text]
    raise SettingsError(f"--precision {text!r} is none that is known", remedy="Write fp32 or bf16.")


def merged(config: Path | None, **given: Any) -> dict[str, Any]:
    """Return the settings of a YAML file, overridden by the options that were given.

    Paths in the file are relative to the file.
    """
    values: dict[str, Any] = {}
    if config is not None:
        from chrep_model.config import read_yaml

        values = read_yaml(config)
        for key in ("genes", "weights"):
            if isinstance(value := values.get(key), str) and not value.isdigit():
                values[key] = config.parent / value
    if (genes := given.get("genes")) is not None:
        given["genes"] = int(genes) if genes.lstrip("-").isdigit() else Path(genes)
    if (context := given.get("context_um")) is not None:
        given["context_um"] = () if context == "none" else numbers(context, "--context-um")
    return values | {key: value for key, value in given.items() if value is not None}


@contextmanager
def naming(path: Path | None) -> Iterator[None]:
    """Add the file's path to any error about genes that has no path."""
    try:
        yield
    except GeneError as error:
        if path is None or error.path is not None:
            raise
        raise GeneError(error.what, path=path, remedy=error.remedy) from error


def shown(items: Iterable[str], most: int = 6) -> str:
    """Return the first few of many names as text."""
    listed = list(items)
    more = f", ... ({len(listed)} in all)" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more
