"""Exact search in a gallery against faiss's flat index: the same rows, queries, k and number of threads.

    python benchmarks/search.py [--sizes 10000,100000,1000000] [--queries 64] [--rounds 5] [-o search.json]

As many queries as a batch of tiles asks. Both sides in turn, over several rounds, medians; the rows found
are compared, which they have to be but for ties. Needs faiss (``pip install faiss-cpu``), which the package
itself does not use.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from chrep_model.calibration.gallery import unit_rows
from chrep_model.calibration.search import nearest

DIM, K = 256, 50


def seconds(work: Callable[[], Any]) -> float:
    """Time one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure(size: int, count: int, rounds: int) -> dict[str, float]:
    """Search both ways, in turn."""
    import faiss

    rng = np.random.default_rng(0)
    rows = unit_rows(rng.standard_normal((size, DIM), np.float32))
    queries = unit_rows(rng.standard_normal((count, DIM), np.float32))
    index = faiss.IndexFlatIP(DIM)
    index.add(rows)
    same = float((nearest(queries, rows, K)[0] == index.search(queries, K)[1]).mean())
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(seconds(lambda: nearest(queries, rows, K)))
        theirs.append(seconds(lambda: index.search(queries, K)))
    mine, flat = float(np.median(ours)), float(np.median(theirs))
    return {"rows": size, "ours_ms": 1000 * mine, "faiss_ms": 1000 * flat, "ratio": flat / mine, "same": same}


def main(
    sizes: Annotated[str, typer.Option()] = "10000,100000,1000000",
    queries: Annotated[int, typer.Option()] = 64,
    rounds: Annotated[int, typer.Option()] = 5,
    out: Annotated[Path | None, typer.Option("-o")] = None,
) -> None:
    """Measure and print."""
    import faiss

    threads = os.cpu_count() or 1
    torch.set_num_threads(threads)
    faiss.omp_set_num_threads(threads)
    found = [measure(int(size), queries, rounds) for size in sizes.split(",")]
    table = Table("rows", "ours, ms", "faiss flat, ms", "faiss / ours", "same rows")
    for row in found:
        numbers = (f"{row['ours_ms']:.1f}", f"{row['faiss_ms']:.1f}", f"{row['ratio']:.2f}")
        table.add_row(f"{row['rows']:,}", *numbers, f"{row['same']:.4%}")
    Console().print(table)
    if out is not None:
        out.write_text(json.dumps({"queries": queries, "k": K, "threads": threads, "rows": found}, indent=2))


if __name__ == "__main__":
    typer.run(main)
