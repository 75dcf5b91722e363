"""Fastest batch size of an encoder, and whether to compile it: measured once per machine and stored."""

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
"""Batch sizes to measure."""

BATCHES = 3
"""Number of timed batches per size; the fastest counts, since other programs can only slow one down."""

GAIN = 1.03
"""A larger batch must be faster by this factor, because it needs more memory and maps update less often."""

LONG_ENOUGH_S = 20.0
"""Larger batches are not measured once the batches of one size have taken this many seconds."""

NO_GAIN = 4
"""Batches this many times larger than the best so far are not measured."""

SLIDE_TILES = 10_000
"""Compiling must pay off within this number of tiles, about a slide of 1.5 x 1.5 cm."""


class Tuning(BaseModel):
    """Fastest settings and measured speeds of an encoder on this machine.

    Attributes
    ----------
    batch_size : int
        Fastest number of tiles per call.
    compiled : bool
        Whether compiling is faster for whole slides.
    tiles_per_s : dict
        Speed at each batch size.
    each_core_tiles_per_s : float or None
        Speed at `batch_size` when every CPU core encodes its own batches, as for whole slides; None on a GPU.
    compiled_tiles_per_s : float or None
        Speed of the compiled network at `batch_size`; None if it cannot be compiled.
    compile_s : float or None
        Additional seconds of the first compiled batch.
    not_compiled : str
        Why the network cannot be compiled; empty if it can.
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
    """Return the stored result of `tune` for an encoder on this machine; None if there is none."""
    try:
        return Tuning.model_validate_json(_file(encoder, cache).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError):
        return None


def tune(encoder: Encoder, cache: Path, progress: Progress = SILENT) -> Tuning:
    """Measure an encoder on tiles of noise, and store the fastest settings for `tuning_of`.

    Parameters
    ----------
    encoder : Encoder
        Encoder to measure; it is compiled afterwards, if it can be.
    cache : Path
        Cache folder of the embeddings, where the result is stored.
    progress : Progress
        Receives a description of each measurement before it starts.

    Raises
    ------
    torch.OutOfMemoryError
        The smallest batch does not fit into the device's memory.
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
    """Measure tiles per second for growing batch sizes, until larger ones no longer help."""
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
    """Measure tiles per second of all CPU cores together, each encoding its own batches; None on a GPU."""
    if encoder.device.type != "cpu":
        return None
    progress.message(f"{len(tiles)} tiles at a time on each core")
    batches = BATCHES * torch.get_num_threads()
    with each_core() as cores:
        seconds = []
        for _ in range(2):  # the first time includes the allocation of memory
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
    """Measure the compiled network at the chosen batch size, and decide whether compiling pays off."""
    size = len(tiles)
    progress.message(f"{size} tiles at a time, compiled")
    try:
        encoder.compile(size)
        first = _timed(encoder, tiles, state)
        seconds = min(_timed(encoder, tiles, state) for _ in range(BATCHES))
    except Exception as error:  # many kinds: a missing compiler, an unknown operator
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
