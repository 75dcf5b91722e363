"""How many tiles at a time, and compiled or not: measured on a machine once, and kept there."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chrep_model.device import each_core
from chrep_model.encoders.encoder import Encoder, SlideState
from chrep_model.files import write_atomically
from chrep_model.progress import SILENT, Progress

SIZES = (8, 16, 32, 64, 128, 256, 512)
BATCHES = 3
"""So many are timed; the fastest counts, as whatever else the machine does only slows them."""

GAIN = 1.03
"""More tiles at a time have to bring more than this: they need memory, and maps grow in larger steps."""

LONG_ENOUGH_S = 20.0
"""Larger batches are not tried once those of a size have taken so long."""

NO_GAIN = 4
"""Nor are those so many times as large as the best, where none between was better."""

SLIDE_TILES = 10_000
"""Compiling has to save its own time within so many tiles, about a slide of 1.5 x 1.5 cm."""


class Tuning(BaseModel):
    """What was found to be fastest for an encoder on this machine.

    Attributes
    ----------
    batch_size : int
        Tiles per call.
    compiled : bool
        Whether compiling pays for whole slides.
    tiles_per_s : dict
        What each batch size does.
    each_core_tiles_per_s : float or None
        What the chosen size does where every core of a CPU encodes batches of its own, as for whole slides.
    compiled_tiles_per_s : float or None
        What the chosen size does compiled; None where it cannot be compiled.
    compile_s : float or None
        How much longer the first compiled batch takes.
    not_compiled : str
        Why it cannot be compiled; empty where it can.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    batch_size: int = Field(gt=0)
    compiled: bool
    tiles_per_s: dict[int, float]
    each_core_tiles_per_s: float | None = None
    compiled_tiles_per_s: float | None = None
    compile_s: float | None = None
    not_compiled: str = ""


def tuning_of(encoder: Encoder, cache: Path) -> Tuning | None:
    """Return what `tune` found for an encoder on this machine before; None if it was never asked."""
    try:
        return Tuning.model_validate_json(_file(encoder, cache).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError):
        return None


def tune(encoder: Encoder, cache: Path, progress: Progress = SILENT) -> Tuning:
    """Measure an encoder on tiles of noise, and keep what is fastest for `tuning_of`.

    Parameters
    ----------
    encoder : Encoder
        Is left compiled, if it can be.
    cache : Path
        Folder of the embeddings; the outcome is kept in there.
    progress : Progress
        Told what is being measured.

    Raises
    ------
    torch.OutOfMemoryError
        The device has no room for the smallest batch.
    PredictionError
        The cache cannot be written.
    """
    px = encoder.spec.px
    tiles = np.random.default_rng(0).integers(0, 256, (SIZES[-1], px, px, 3), np.uint8)
    state = encoder.fit_slide(tiles[: SIZES[0]])
    rates = _rates(encoder, tiles, state, progress)
    best = max(rates.values())
    chosen = min(size for size, rate in rates.items() if rate * GAIN >= best)
    plain = Tuning(
        batch_size=chosen, compiled=False, tiles_per_s=rates,
        each_core_tiles_per_s=_each_core(encoder, tiles[:chosen], state, progress),
    )  # fmt: skip
    found = _compiled(encoder, tiles[:chosen], state, plain, progress)
    with write_atomically(_file(encoder, cache)) as part:
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(found.model_dump_json(indent=1), encoding="utf-8")
    return found


def _rates(
    encoder: Encoder, tiles: NDArray[np.uint8], state: SlideState, progress: Progress
) -> dict[int, float]:
    """Tiles per second of each batch size that is worth trying."""
    rates: dict[int, float] = {}
    best = SIZES[0]
    for size in SIZES:
        progress.message(f"{size} tiles at a time")
        try:
            seconds = [_timed(encoder, tiles[:size], state) for _ in range(1 + BATCHES)]
        except torch.OutOfMemoryError:
            if not rates:
                raise
            break
        rates[size] = size / min(seconds[1:])
        if rates[size] > rates[best] * GAIN:
            best = size
        if sum(seconds) > LONG_ENOUGH_S or size >= NO_GAIN * best:
            break
    return rates


def _each_core(
    encoder: Encoder, tiles: NDArray[np.uint8], state: SlideState, progress: Progress
) -> float | None:
    """Tiles per second of all cores of a CPU, each on batches of its own."""
    if encoder.device.type != "cpu":
        return None
    progress.message(f"{len(tiles)} tiles at a time on each core")
    batches = BATCHES * torch.get_num_threads()
    with each_core() as cores:
        seconds = []
        for _ in range(2):  # the first time, memory is taken
            started = time.perf_counter()
            for done in [cores.submit(encoder.encode, tiles, state) for _ in range(batches)]:
                done.result()
            seconds.append(time.perf_counter() - started)
    return batches * len(tiles) / min(seconds)


def _compiled(
    encoder: Encoder,
    tiles: NDArray[np.uint8],
    state: SlideState,
    plain: Tuning,
    progress: Progress,
) -> Tuning:
    """Measure the chosen number of tiles with a compiled network too."""
    size = len(tiles)
    progress.message(f"{size} tiles at a time, compiled")
    try:
        encoder.compile(size)
        first = _timed(encoder, tiles, state)
        seconds = min(_timed(encoder, tiles, state) for _ in range(BATCHES))
    except Exception as error:  # no compiler, an operator that it does not know: it raises many kinds
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return plain.model_copy(update={"not_compiled": why})
    rate, extra = size / seconds, first - seconds
    otherwise = plain.each_core_tiles_per_s or plain.tiles_per_s[size]
    pays = SLIDE_TILES * (1 / otherwise - 1 / rate) > extra
    return plain.model_copy(update={"compiled": pays, "compiled_tiles_per_s": rate, "compile_s": extra})


def _timed(encoder: Encoder, tiles: NDArray[np.uint8], state: SlideState) -> float:
    started = time.perf_counter()
    encoder.encode(tiles, state)
    return time.perf_counter() - started


def _file(encoder: Encoder, cache: Path) -> Path:
    device = encoder.device
    on_gpu = device.type == "cuda"
    machine = torch.cuda.get_device_name(device) if on_gpu else f"{platform.machine()} x {os.cpu_count()}"
    facts = [encoder.id, encoder.precision, device.type, machine, torch.__version__]
    return cache / "tuning" / f"{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:20]}.json"
