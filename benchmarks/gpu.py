"""Measure encoding, reading of slides and search on a GPU, and compare encoding with the GPU's matrix rate.

    python benchmarks/gpu.py [--device cuda] [--encoders resnet50,vit_small_patch16_224,vit_large_patch16_224]
        [--batches 64,256,1024] [-o gpu.json]

- The matrix rate is measured with a large product in bf16. Each network's images per second are printed, and
  as a share of the matrix rate, for tensors in memory in bf16, channels-last, without and with compilation by
  torch, at the best of the batch sizes.
- Tiles per second from a JPEG pyramid of 20,000 px to embeddings on disk, in bf16, for the same networks.
- Retrieval of the 50 most similar of 1e6 and 1e7 rows of 256 numbers for a view of 64 tiles; the rows are on
  the device, where they stay between two views, or are copied from the computer's memory block by block.

Networks have random weights. With ``--device cpu`` and small numbers the benchmark can be tested anywhere.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from pyramids import sample_pyramid
from rich.console import Console
from rich.table import Table
from safetensors.torch import save_file
from torch.utils.flop_counter import FlopCounterMode

from chrep_model.calibration.search import nearest
from chrep_model.embeddings.encoding import Need, TileEncoding
from chrep_model.embeddings.rows import GridRows
from chrep_model.embeddings.store import Store
from chrep_model.encoders.opening import open_encoder
from chrep_model.encoders.torchvision_compat import ensure_torchvision
from chrep_model.slides.slide import open_slide
from chrep_model.slides.tiles import TileGrid, TileReader
from chrep_model.statistics import unit_rows

MPP, PX, DIM, K, VIEW = 0.5, 224, 256, 50, 64


def seconds(work: Callable[[], Any], device: torch.device, repeats: int = 10) -> float:
    """Return the median seconds of a call after a warm-up; the device is synchronised before and after."""
    wait: Callable[[], Any] = torch.cuda.synchronize if device.type == "cuda" else _nothing
    took = []
    for _ in range(3 + repeats):
        wait()
        started = time.perf_counter()
        work()
        wait()
        took.append(time.perf_counter() - started)
    return float(np.median(took[3:]))


def _nothing() -> None:
    """Do nothing: calls on a CPU return when they are done."""


def matrix_rate(device: torch.device, side: int) -> float:
    """Return the operations per second of a product of two bf16 matrices."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * side**3 / seconds(lambda: a @ b, device)


@torch.inference_mode()
def images_per_second(
    name: str, device: torch.device, batches: list[int], rate: float
) -> list[dict[str, Any]]:
    """Return a network's rate on tensors in memory, without and with compilation, at its best batch size."""
    import timm

    model: Any = timm.create_model(name, num_classes=0).eval()
    model = model.to(device, memory_format=torch.channels_last)
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, PX, PX, device=device))
    model = model.to(torch.bfloat16)
    found = []
    for form, network in (("as it is", model), ("compiled", torch.compile(model, mode="max-autotune"))):
        best = (0.0, 0)
        for size in batches:
            images = torch.rand(size, 3, PX, PX, device=device).to(torch.bfloat16)
            images = images.contiguous(memory_format=torch.channels_last)
            with contextlib.suppress(torch.OutOfMemoryError):
                each = seconds(lambda: network(images), device) / size  # noqa: B023  (called at once)
                best = max(best, (1 / each, size))
        share = best[0] * counter.get_total_flops() / rate
        found.append(
            {"network": name, "form": form, "images_per_s": best[0], "batch": best[1], "share": share}
        )
    return found


def tiles_per_second(name: str, path: Path, device: torch.device, batch: int, most: int) -> float:
    """Return the rate of reading tiles of a slide, encoding them and storing the embeddings."""
    import timm

    with tempfile.TemporaryDirectory() as folder, open_slide(path) as slide:
        weights = Path(folder) / "random.safetensors"
        save_file(
            timm.create_model(name, num_classes=0).state_dict(), weights, {"input_size": f"3,{PX},{PX}"}
        )
        encoder = open_encoder(name, weights=weights, mpp=MPP, device=str(device), precision="bf16")
        encoder.encode(np.zeros((batch, PX, PX, 3), np.uint8), {})
        grid = TileGrid(slide.shape, MPP, encoder.spec)
        rows = GridRows(grid, encoder.dim, Store(Path(folder) / "store", encoder.dim))
        scan = grid.scan_order(np.arange(grid.size))[:most]
        encoding = TileEncoding(TileReader(slide, encoder.spec), encoder, batch)
        started = time.perf_counter()
        parts = (scan[i : i + batch] for i in range(0, len(scan), batch))
        for _ in encoding.of_parts(parts, lambda part: [Need(rows, part)], {}):
            pass
        return len(scan) / (time.perf_counter() - started)


def search_ms(size: int, device: torch.device) -> dict[str, Any]:
    """Return the time of retrieval for one view, with rows in the computer's memory and on the device."""
    rng = np.random.default_rng(0)
    rows = np.concatenate(
        [
            unit_rows(rng.standard_normal((min(100_000, size - i), DIM), np.float32))
            for i in range(0, size, 100_000)
        ]
    )
    queries = unit_rows(rng.standard_normal((VIEW, DIM), np.float32))
    streamed = seconds(lambda: nearest(queries, rows, K, device=str(device)), device, repeats=5)
    here, asked = (torch.from_numpy(x).to(device, torch.bfloat16) for x in (rows, queries))
    resident = seconds(lambda: (asked @ here.T).topk(K, dim=1), device, repeats=5)
    return {"rows": size, "exact_ms": 1000 * streamed, "product_and_topk_ms": 1000 * resident}


def main(
    device: Annotated[str, typer.Option()] = "cuda",
    encoders: Annotated[str, typer.Option()] = "resnet50,vit_small_patch16_224,vit_large_patch16_224",
    batches: Annotated[str, typer.Option()] = "64,256,1024",
    rows: Annotated[str, typer.Option()] = "1000000,10000000",
    tiles: Annotated[int, typer.Option(help="At most, from the slide.")] = 7000,
    side: Annotated[int, typer.Option(help="Of the matrices.")] = 8192,
    out: Annotated[Path | None, typer.Option("-o")] = None,
) -> None:
    """Measure and print."""
    ensure_torchvision()
    place, sizes = torch.device(device), [int(size) for size in batches.split(",")]
    rate, names = matrix_rate(place, side), encoders.split(",")
    ready = [row for name in names for row in images_per_second(name, place, sizes, rate)]
    with tempfile.TemporaryDirectory() as folder:
        path = sample_pyramid(Path(folder), 20_000, MPP)
        slide = {name: tiles_per_second(name, path, place, min(sizes[-1], 256), tiles) for name in names}
    searches = [search_ms(int(size), place) for size in rows.split(",")]

    console = Console()
    console.print(f"{device}: {rate / 1e12:.1f} TFLOP/s in bf16 matrix products")
    table = Table("network", "form", "images/s", "batch", "of the matrix rate", "tiles/s from the slide")
    for row in ready:
        table.add_row(
            row["network"], row["form"], f"{row['images_per_s']:,.0f}", str(row["batch"]),
            f"{row['share']:.0%}", f"{slide[row['network']]:,.0f}",
        )  # fmt: skip
    console.print(table)
    table = Table("rows", "exact, from memory, ms", "product and top k on the device, ms")
    for row in searches:
        table.add_row(f"{row['rows']:,}", f"{row['exact_ms']:.2f}", f"{row['product_and_topk_ms']:.2f}")
    console.print(table)
    if out is not None:
        found = {"matrix_flops": rate, "ready": ready, "slide": slide, "search": searches}
        out.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    typer.run(main)
