"""Compare the speed of exact search in a gallery on the CPU, on a GPU, and by faiss's flat index.

    python benchmarks/search.py [--sizes 10000,100000,1000000] [--queries 64] [--rounds 5] [--mapped]
                                [--indexed] [-o search.json]

All variants search the same rows with the same queries, as many as a batch of tiles has. They run alternately
over several rounds; medians are printed. The rows found are compared: those of CPU and GPU must be equal, and
those of faiss equal except for ties. With ``--mapped`` the rows are in a temporary file and searched from
there, as for a gallery larger than the memory: ``--sizes 10000000 --mapped`` writes 10 GB. On Linux the peak
memory of the search is printed.

With ``--indexed`` an index of the gallery is built too, as by `chrep tune`. The share of the nearest rows
that it finds for the queries is printed, beside the share that was measured when it was built. Purely random
rows form no groups, which an index needs; therefore rows and queries then lie near a curved sheet of 12
dimensions.

The columns of faiss (``pip install faiss-cpu``) and of the GPU stay empty if they are not available. faiss's
flat index is left out with ``--mapped``, because it copies all rows to memory.
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

from chrep_model.calibration.gallery import Gallery
from chrep_model.calibration.index import Index
from chrep_model.calibration.index_making import make_index
from chrep_model.calibration.search import nearest
from chrep_model.mapped_arrays import map_file, slices, write_rows
from chrep_model.statistics import unit_rows

DIM, K, PART, SHEET, SECTIONS = 256, 50, 100_000, 12, 10
STATUS = Path("/proc/self/status")
COLUMNS = ("cpu_ms", "gpu_ms", "faiss_ms", "index_ms")


def seconds(work: Callable[[], Any]) -> float:
    """Return the seconds of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def peak_mb(work: Callable[[], Any]) -> float | None:
    """Return the growth of memory in MB during a call, with pages of mapped files; None if unknown."""
    if not STATUS.exists():
        return None
    before = _memory_kb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    work()
    return (_memory_kb("VmHWM") - before) / 1000


def _memory_kb(name: str) -> int:
    return int(STATUS.read_text().split(f"{name}:")[1].split()[0])


def random_rows(rng: np.random.Generator, n: int, on_sheet: bool) -> NDArray[np.float32]:
    """Draw random rows (n, DIM) of unit length."""
    if not on_sheet:
        return unit_rows(rng.standard_normal((n, DIM), np.float32))
    fixed = np.random.default_rng(7)  # the same sheet for all rows
    waves, out = (fixed.standard_normal(shape, np.float32) for shape in ((SHEET, DIM), (DIM, DIM)))
    rows = np.sin(rng.standard_normal((n, SHEET), np.float32) @ waves / 2) @ out
    return unit_rows((rows + rng.standard_normal((n, DIM), np.float32) / 4).astype(np.float32))


def gallery(size: int, on_disk: bool, on_sheet: bool) -> NDArray[np.float32]:
    """Draw the random rows of a gallery, in memory or mapped to a temporary file."""
    rng = np.random.default_rng(0)
    pieces = (random_rows(rng, part.stop - part.start, on_sheet) for part in slices(size, PART))
    if not on_disk:
        return np.concatenate(list(pieces))
    with TemporaryFile() as file:
        rows = map_file(file, (size, DIM))
    write_rows(rows, pieces)
    return rows


def measure(size: int, count: int, rounds: int, on_disk: bool, indexed: bool) -> dict[str, float | None]:
    """Time all available variants of the search alternately, and compare their results."""
    rows = gallery(size, on_disk, indexed)
    queries = random_rows(np.random.default_rng(1), count, indexed)
    ways: dict[str, Callable[[], Any]] = {"cpu_ms": lambda: nearest(queries, rows, K)}
    if torch.cuda.is_available():
        ways["gpu_ms"] = lambda: nearest(queries, rows, K, device="cuda")
    if not on_disk and importlib.util.find_spec("faiss"):
        import faiss

        faiss.omp_set_num_threads(torch.get_num_threads())
        flat = faiss.IndexFlatIP(DIM)
        flat.add(rows)
        ways["faiss_ms"] = lambda: flat.search(queries, K)[::-1]
    peak = peak_mb(ways["cpu_ms"])  # measured in the first call, because later ones reuse its memory
    expected = nearest(queries, rows, K)[0]
    same = {f"same_{name[:-3]}": float((way()[0] == expected).mean()) for name, way in ways.items()}
    facts: dict[str, float] = {}
    if indexed:
        index, facts = with_index(rows, queries, expected)
        if index is not None:
            ways["index_ms"] = lambda: index.nearest(queries, rows, K)
    took = [{name: 1000 * seconds(way) for name, way in ways.items()} for _ in range(rounds)]
    medians = {name: float(np.median([t[name] for t in took])) for name in ways}
    return {"rows": size, **medians, **same, **facts, "peak_mb": peak}


def with_index(
    rows: NDArray[np.float32], queries: NDArray[np.float32], expected: NDArray[np.int64]
) -> tuple[Index | None, dict[str, float]]:
    """Build an index of rows as if they were spots of a few sections; None if it would not be faster."""
    section = np.arange(len(rows)) * SECTIONS // len(rows)
    nothing, place = np.empty((len(rows), 0), np.float32), np.zeros((len(rows), 2))
    spots = Gallery(rows, nothing, section, section, place, tuple(map(str, range(SECTIONS))))
    started = time.perf_counter()
    index = make_index(spots, K)
    facts = {"made_s": time.perf_counter() - started}
    if index is not None:
        found = index.nearest(queries, rows, K)[0]
        hits = [np.isin(*pair).mean() for pair in zip(expected, found, strict=True)]
        facts |= {"found": float(np.mean(hits)), "found_when_made": index.facts.recall}
    return index, facts


def main(
    sizes: Annotated[str, typer.Option()] = "10000,100000,1000000",
    queries: Annotated[int, typer.Option()] = 64,
    rounds: Annotated[int, typer.Option()] = 5,
    on_disk: Annotated[bool, typer.Option("--mapped")] = False,
    indexed: Annotated[bool, typer.Option("--indexed")] = False,
    out: Annotated[Path | None, typer.Option("-o")] = None,
) -> None:
    """Measure and print."""
    threads = os.cpu_count() or 1
    torch.set_num_threads(threads)
    found = [measure(int(size), queries, rounds, on_disk, indexed) for size in sizes.split(",")]
    table = Table(
        "rows", "CPU, ms", "GPU, ms", "faiss flat, ms", "index, ms", "same rows: GPU", "faiss", "index finds",
        "when made", "made in, s", "peak, MB",
    )  # fmt: skip
    for row in found:
        numbers = [_shown(row.get(name), ".1f") for name in COLUMNS]
        shares = [_shown(row.get(f"same_{name}"), ".4%") for name in ("gpu", "faiss")]
        of_index = [_shown(row.get(name), ".2%") for name in ("found", "found_when_made")]
        made = _shown(row.get("made_s"), ".0f")
        table.add_row(f"{row['rows']:,}", *numbers, *shares, *of_index, made, _shown(row["peak_mb"], ".0f"))
    Console().print(table)
    if out is not None:
        facts = {
            "queries": queries, "k": K, "threads": threads, "mapped": on_disk, "indexed": indexed,
            "rows": found,
        }  # fmt: skip
        out.write_text(json.dumps(facts, indent=2))


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


if __name__ == "__main__":
    typer.run(main)
