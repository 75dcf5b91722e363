"""Spatial variability of genes on a slide: Moran's I of their predicted maps, computed with squidpy.

Importing squidpy and compiling with numba takes seconds and would block a viewer in the same process. So a
second Python process, ``python -m chrep_model.analysis.variability``, receives values through a pipe and
returns I through another; it can be ended at any time.
"""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chrep_model.errors import PredictionError
from chrep_model.processes import start_python
from chrep_model.progress import SILENT, Progress

if TYPE_CHECKING:
    from chrep_model.prediction.prediction import Prediction

MOST_TILES = 3000
"""Largest number of tiles used; of a larger prediction, blocks of neighbouring tiles from all over it."""

FEWEST_TILES = 30
"""With fewer tiles, I is dominated by chance."""

_BLOCK = 16
_PATIENCE_S = 0.1
_GENES_AT_ONCE = 64
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class Variability:
    """Moran's I of a few genes.

    Attributes
    ----------
    genes : tuple of str
    moran : ndarray
        (len(genes),) float32: 0 for randomly scattered values, 1 for regions, NaN for a constant map.
    """

    genes: tuple[str, ...]
    moran: NDArray[np.float32]


def variability(prediction: Prediction, *, progress: Progress = SILENT) -> Iterator[Variability]:
    """Compute Moran's I of the predicted maps of all genes, using the last variant.

    ``I = n / sum_ij w_ij * sum_ij w_ij (x_i - m)(x_j - m) / sum_i (x_i - m)^2`` over the tiles i with their
    mean m (Moran 1950); w_ij is 1 for the four neighbours of a tile on the grid, as far as they are
    predicted, divided by their number.

    Parameters
    ----------
    prediction : Prediction
        At most `MOST_TILES` of its current tiles are used, see `some_of`.
    progress : Progress
        Asked several times a second whether to stop.

    Yields
    ------
    Variability
        Results for a few genes at a time, in the model's order; none with fewer than `FEWEST_TILES` tiles.

    Raises
    ------
    PredictionError
        The computing process failed.
    Cancelled
        `progress.cancelled` returned True.
    """
    chosen = prediction.only(some_of(prediction.indices, prediction.grid.shape[1]), progress=progress)
    if len(chosen) < FEWEST_TILES:
        return
    with ThreadPoolExecutor(1) as reader, _process() as (to_it, from_it):
        _send(to_it, np.stack(np.divmod(chosen.indices, chosen.grid.shape[1]), axis=1))
        for first in range(0, len(chosen.genes), _GENES_AT_ONCE):
            columns = np.arange(first, min(first + _GENES_AT_ONCE, len(chosen.genes)))
            _send(to_it, chosen.values(columns))
            answer = reader.submit(_receive, from_it)
            while not wait([answer], _PATIENCE_S).done:
                progress.raise_if_cancelled()
            moran = answer.result()
            if moran is None:
                raise PredictionError(
                    "the process that computes Moran's I ended early",
                    remedy="See with `chrep doctor` whether squidpy is installed as it should.",
                )
            yield Variability(tuple(chosen.genes[i] for i in columns), moran)


def some_of(indices: NDArray[np.int64], cols: int, most: int = MOST_TILES) -> NDArray[np.int64]:
    """Choose tiles that keep their neighbours: random square blocks from all over the grid.

    Parameters
    ----------
    indices : ndarray
        (n,) int64 flat indices of a grid with `cols` columns.
    cols : int
        Number of columns of the grid.
    most : int
        Largest number of tiles.

    Returns
    -------
    ndarray
        (m,) int64, always the same for the same tiles.
    """
    if len(indices) <= most:
        return indices
    row, col = np.divmod(indices, cols)
    _, block, size = np.unique(
        (row // _BLOCK) * cols + col // _BLOCK, return_inverse=True, return_counts=True
    )
    order = np.random.default_rng(0).permutation(len(size))
    fits = np.cumsum(size[order]) <= most
    return indices[np.isin(block, order[fits])]


def morans_i(places: NDArray[np.int64], values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute Moran's I of values on tiles with squidpy.

    Parameters
    ----------
    places : ndarray
        (n, 2) int64, rows and columns of the tiles.
    values : ndarray
        (n, G) float32.

    Returns
    -------
    ndarray
        (G,) float32; see `variability`.
    """
    import anndata
    from squidpy.gr import spatial_autocorr, spatial_neighbors

    table = anndata.AnnData(np.asarray(values, np.float64), obsm={"spatial": np.asarray(places, np.float64)})
    spatial_neighbors(table, coord_type="grid", n_neighs=4)
    found = spatial_autocorr(table, mode="moran", corr_method=None, n_jobs=1, copy=True)
    moran = found["I"].reindex(table.var_names).to_numpy(np.float32)
    return np.where(np.ptp(values, axis=0) > 0, moran, np.float32(np.nan))


@contextmanager
def _process() -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Run a second Python process, and yield its input and output; it is killed afterwards."""
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    process = start_python(
        __name__,
        environment=one_thread,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    )
    assert process.stdin is not None and process.stdout is not None  # noqa: S101  (they are pipes)
    try:
        yield process.stdin, process.stdout
    finally:
        process.kill()
        with suppress(BrokenPipeError):  # for data that the process did not read
            process.stdin.close()
        process.stdout.close()
        process.wait()


def _send(stream: IO[bytes], array: NDArray[Any]) -> None:
    whole = io.BytesIO()
    np.save(whole, array, allow_pickle=False)
    try:
        stream.write(_LENGTH.pack(len(whole.getbuffer())))
        stream.write(whole.getbuffer())
        stream.flush()
    except BrokenPipeError:
        pass  # the process has ended, which the caller notices as a missing answer


def _receive(stream: IO[bytes]) -> NDArray[Any] | None:
    """Read an array; None if the other side has ended."""
    start = stream.read(_LENGTH.size)
    if len(start) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(start)
    whole = stream.read(length)
    return np.load(io.BytesIO(whole), allow_pickle=False) if len(whole) == length else None


def _serve() -> None:
    """Answer each array of values with Moran's I, until no more arrive."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # output of libraries must not mix with the answers
    if hasattr(os, "nice"):
        os.nice(10)  # give the viewer priority
    places = _receive(sys.stdin.buffer)
    while places is not None and (values := _receive(sys.stdin.buffer)) is not None:
        _send(answers, morans_i(places, values))


if __name__ == "__main__":
    _serve()
