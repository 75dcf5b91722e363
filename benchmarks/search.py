"""Exact search in a gallery: on the CPU, on a GPU, and by faiss's flat index; the same rows, queries and k.

    python benchmarks/search.py [--sizes 10000,100000,1000000] [--queries 64] [--rounds 5] [--mapped]
                                [-o search.json]

As many queries as a batch of tiles asks. All sides in turn, over several rounds, medians; the rows found are
compared, which for the CPU and the GPU have to be the same and for faiss the same but for ties. With
``--mapped`` the rows are in a temporary file and searched from there, as of a gallery larger than the memory:
``--sizes 10000000 --mapped`` writes 10 GB. What the search adds to the memory at most is told on Linux.

A column of what is not there (faiss, which the package itself does not use: ``pip install faiss-cpu``; a GPU)
stays empty; faiss is left out with ``--mapped``, as it takes all rows into its memory.
"""

from __future__ import annotations

import importlib.util
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from chrep_model.blocks import blocks, mapped, write
from chrep_model.calibration.gallery import unit_rows
from chrep_model.calibration.search import nearest

DIM, K, PART = 256, 50, 100_000
STATUS = Path("/proc/self/status")
COLUMNS = ("cpu_ms", "gpu_ms", "faiss_ms")


def seconds(work: Callable[[], Any]) -> float:
    """Time one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def peak_mb(work: Callable[[], Any]) -> float | None:
    """By how many MB the memory grows at most, pages of mapped files among it; None where nothing tells."""
    if not STATUS.exists():
        return None
    before = _memory_kb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    work()
    return (_memory_kb("VmHWM") - before) / 1000


def _memory_kb(name: str) -> int:
    return int(STATUS.read_text().split(f"{name}:")[1].split()[0])


def gallery(size: int, on_disk: bool) -> NDArray[np.float32]:
    """Random rows of unit length, in memory or in a file that is gone with the map of it."""
    rng = np.random.default_rng(0)
    pieces = (
        unit_rows(rng.standard_normal((part.stop - part.start, DIM), np.float32))
        for part in blocks(size, PART)
    )
    if not on_disk:
        return np.concatenate(list(pieces))
    with TemporaryFile() as file:
        rows = mapped(file, (size, DIM))
    write(rows, pieces)
    return rows


def measure(size: int, count: int, rounds: int, on_disk: bool) -> dict[str, float | None]:
    """Search all ways that there are, in turn."""
    rows = gallery(size, on_disk)
    queries = unit_rows(np.random.default_rng(1).standard_normal((count, DIM), np.float32))
    ways: dict[str, Callable[[], Any]] = {"cpu_ms": lambda: nearest(queries, rows, K)}
    if torch.cuda.is_available():
        ways["gpu_ms"] = lambda: nearest(queries, rows, K, device="cuda")
    if not on_disk and importlib.util.find_spec("faiss"):
        import faiss

        faiss.omp_set_num_threads(torch.get_num_threads())
        index = faiss.IndexFlatIP(DIM)
        index.add(rows)
        ways["faiss_ms"] = lambda: index.search(queries, K)[::-1]
    peak = peak_mb(ways["cpu_ms"])  # the first time: later ones find the memory of this one
    expected = nearest(queries, rows, K)[0]
    same = {f"same_{name[:-3]}": float((way()[0] == expected).mean()) for name, way in ways.items()}
    took = [{name: 1000 * seconds(way) for name, way in ways.items()} for _ in range(rounds)]
    medians = {name: float(np.median([t[name] for t in took])) for name in ways}
    return {"rows": size, **medians, **same, "peak_mb": peak}


def main(
    sizes: Annotated[str, typer.Option()] = "10000,100000,1000000",
    queries: Annotated[int, typer.Option()] = 64,
    rounds: Annotated[int, typer.Option()] = 5,
    on_disk: Annotated[bool, typer.Option("--mapped")] = False,
    out: Annotated[Path | None, typer.Option("-o")] = None,
) -> None:
    """Measure and print."""
    threads = os.cpu_count() or 1
    torch.set_num_threads(threads)
    found = [measure(int(size), queries, rounds, on_disk) for size in sizes.split(",")]
    table = Table("rows", "CPU, ms", "GPU, ms", "faiss flat, ms", "same rows: GPU", "faiss", "peak, MB")
    for row in found:
        numbers = [_shown(row.get(name), ".1f") for name in COLUMNS]
        shares = [_shown(row.get(f"same_{name}"), ".4%") for name in ("gpu", "faiss")]
        table.add_row(f"{row['rows']:,}", *numbers, *shares, _shown(row["peak_mb"], ".0f"))
    Console().print(table)
    if out is not None:
        facts = {"queries": queries, "k": K, "threads": threads, "mapped": on_disk, "rows": found}
        out.write_text(json.dumps(facts, indent=2))


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


if __name__ == "__main__":
    typer.run(main)
