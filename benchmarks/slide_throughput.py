"""Measure tiles per second from a slide to stored embeddings, beside the encoder alone and other tools.

    python benchmarks/slide_throughput.py [--encoders mobilenetv2_100,resnet18,mobilenetv3_small_100]
        [--across 36] [--rounds 3] [-o slide_throughput.json]

The slide is a JPEG pyramid of 20,000 px made of the sample tissue. The tiles fill a square in its middle and
have 224 px at the slide's own scale, so that no variant has to resample. All variants use the same tiles in
fp32, and run alternately in one process over several rounds; medians are printed.

- *alone*: the network on tiles that are normalised tensors in memory.
- *each core*: the same, with separate batches on every core.
- *ours*: tiles read, encoded and written to a new store, as for whole slides: every core reads and encodes
  separate batches.
- *half stride*: the same for as many tiles that overlap by half.
- *ours, shared*: as *ours* in the viewer, where all cores share a batch, so that the first is done sooner.
- *plain loop*: OpenSlide's `read_region` in a torch Dataset, a DataLoader without workers, and timm's
  unchanged model with the same weights.
- *lazyslide*: its tiles and its feature extraction with the same model, if it is installed
  (``pip install lazyslide``).
- *as it comes*: the network alone, with its batch normalisations, which the encoder merges into convolutions.
- *compiled*: the network alone, compiled by torch as in `chrep tune`; *ours, compiled*: *ours* with it.
- *bf16*: the network alone, under autocast to bfloat16.

With the compiled network all cores share a batch. For all variants, glibc keeps freed memory, as it does
after an encoder is opened, and uses one arena for all threads, as in the command line. Networks have random
weights, which do not change the speed. The largest difference between embeddings is printed as a share of the
largest value.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import openslide
import torch
import typer
from numpy.typing import NDArray
from pyramids import sample_pyramid
from rich.console import Console
from rich.table import Table
from safetensors.torch import save_file

from chrep_model.device import each_core, share_one_arena
from chrep_model.embeddings.encoding import Need, TileEncoding
from chrep_model.embeddings.rows import GridRows
from chrep_model.embeddings.store import Store
from chrep_model.encoders.opening import open_encoder
from chrep_model.encoders.timm_encoder import TimmEncoder
from chrep_model.encoders.torchvision_compat import ensure_torchvision
from chrep_model.slides.slide import open_slide
from chrep_model.slides.tiles import TileGrid, TileReader

SIDE, MPP, PX, BATCH = 20_000, 0.5, 224, 32

Embeddings = NDArray[np.float32]


class Normalise:
    """Transform of a picture (rows, cols, 3) uint8 to the normalised tensor that the network expects."""

    def __init__(self, encoder: TimmEncoder) -> None:
        self.mean, self.std = encoder._mean[0], encoder._std[0]

    def __call__(self, picture: NDArray[np.uint8]) -> torch.Tensor:
        """Return the normalised picture, (3, rows, cols) float32."""
        return (torch.from_numpy(picture).permute(2, 0, 1).float() / 255 - self.mean) / self.std


class Regions(torch.utils.data.Dataset[torch.Tensor]):
    """Data set of regions of a slide as normalised tensors, in the usual plain form."""

    def __init__(self, path: Path, corners: NDArray[np.int64], normalise: Normalise) -> None:
        self.slide, self.corners, self.normalise = openslide.OpenSlide(str(path)), corners, normalise

    def __len__(self) -> int:
        return len(self.corners)

    def __getitem__(self, i: int) -> torch.Tensor:
        x, y = (int(v) for v in self.corners[i])
        return self.normalise(np.array(self.slide.read_region((x, y), 0, (PX, PX)).convert("RGB")))


@torch.inference_mode()
def plain_loop(
    path: Path, centres: NDArray[np.float64], encoder: TimmEncoder, model: torch.nn.Module
) -> Embeddings:
    """Return the embeddings (n, dim) by a plain loop over a DataLoader."""
    corners = np.rint(centres - PX / 2).astype(np.int64)
    loader = torch.utils.data.DataLoader(Regions(path, corners, Normalise(encoder)), batch_size=BATCH)
    return np.concatenate([model(batch).numpy() for batch in loader])


def ours(
    path: Path, stride: float, tiles: NDArray[np.int64], encoder: TimmEncoder, *, in_bulk: bool = True
) -> Embeddings:
    """Return the embeddings (n, dim) by this package; the slide is reopened to empty its cache of tiles."""
    with tempfile.TemporaryDirectory() as folder, open_slide(path) as slide:
        grid = TileGrid(slide.shape, MPP, encoder.spec, stride)
        rows = GridRows(grid, encoder.dim, Store(Path(folder) / "store", encoder.dim))
        scan = grid.scan_order(tiles)
        parts = [scan[i : i + BATCH] for i in range(0, len(scan), BATCH)]
        encoding = TileEncoding(TileReader(slide, encoder.spec), encoder, BATCH, in_bulk=in_bulk)
        for _ in encoding.of_parts(parts, lambda part: [Need(rows, part)], {}):
            pass
        rows.has(tiles)
        return rows[tiles]


@torch.inference_mode()
def alone(ready: list[torch.Tensor], network: Any, dtype: torch.dtype | None = None) -> Embeddings:
    """Return the embeddings (n, dim) of batches in memory."""
    with torch.autocast("cpu", dtype, enabled=dtype is not None):
        return np.concatenate([network(batch).float().numpy() for batch in ready])


def alone_on_each_core(ready: list[torch.Tensor], network: Any) -> Embeddings:
    """Return the embeddings (n, dim) of batches in memory, with one batch on each core."""
    with each_core() as cores:
        return np.concatenate(list(cores.map(lambda batch: alone([batch], network), ready)))


def lazy(
    path: Path, square: tuple[float, float, float], encoder: TimmEncoder, model: torch.nn.Module
) -> Embeddings:
    """Return the embeddings (n, dim) by lazyslide, sorted by rows of tiles."""
    import lazyslide
    from shapely.geometry import box
    from wsidata import open_wsi
    from wsidata.io import add_tissues

    with tempfile.TemporaryDirectory() as folder:
        wsi = open_wsi(path, store=str(Path(folder) / "wsi.zarr"))
        x, y, side = square
        add_tissues(wsi, "tissues", [box(x, y, x + side, y + side)])
        lazyslide.pp.tile_tissues(wsi, PX, background_filter=False)
        found = lazyslide.tl.feature_extraction(
            wsi, model, transform=Normalise(encoder), device="cpu", batch_size=BATCH, pbar=False,
            return_features=True,
        )  # fmt: skip
        corners = wsi.shapes["tiles"].bounds
        return np.asarray(found, np.float32)[np.lexsort((corners["minx"], corners["miny"]))]


def measure(name: str, path: Path, across: int, rounds: int) -> dict[str, Any]:
    """Time all variants of one encoder, and compare their embeddings."""
    encoder, plain = random_encoder(name)
    with open_slide(path) as slide:
        grid = TileGrid(slide.shape, MPP, encoder.spec)
        first = (grid.shape[1] - across) // 2
        lines = np.arange(first, first + across)
        tiles = (lines[:, None] * grid.shape[1] + lines).ravel()
        half = TileGrid(slide.shape, MPP, encoder.spec, 0.5)
        halves = 2 * first + np.arange(across)
        pixels = TileReader(slide, encoder.spec).read(grid.centres(tiles))
        ready = [encoder.ready(pixels[i : i + BATCH]) for i in range(0, len(pixels), BATCH)]
        compiled = random_encoder(name)[0]
        compiled.compile(BATCH)
        work: dict[str, Callable[[], Embeddings]] = {
            "alone": partial(alone, ready, encoder._for_inference),
            "each core": partial(alone_on_each_core, ready, encoder._for_inference),
            "ours": partial(ours, path, 1.0, tiles, encoder),
            "half stride": partial(
                ours, path, 0.5, (halves[:, None] * half.shape[1] + halves).ravel(), encoder
            ),
            "ours, shared": partial(ours, path, 1.0, tiles, encoder, in_bulk=False),
            "plain loop": partial(plain_loop, path, grid.centres(tiles), encoder, plain),
            "as it comes": partial(alone, ready, encoder.model),
            "compiled": partial(alone, ready, compiled._for_inference),
            "ours, compiled": partial(ours, path, 1.0, tiles, compiled, in_bulk=False),
            "bf16": partial(alone, ready, encoder._for_inference, torch.bfloat16),
        }
        if importlib.util.find_spec("lazyslide") is not None:
            square = (first * grid.step_px, first * grid.step_px, across * grid.step_px)
            work["lazyslide"] = partial(lazy, path, square, encoder, plain)
        seconds, found = in_turn(work, rounds)
    rate = {key: across**2 / float(np.median(each)) for key, each in seconds.items()}
    whole = float(np.abs(found["alone"]).max())
    apart = {
        key: float(np.abs(found["alone"] - found[key]).max()) / whole for key in work if key != "half stride"
    }
    return {"encoder": name, "tiles": across**2, "tiles_per_s": rate, "largest_difference": apart}


def in_turn(
    work: dict[str, Callable[[], Embeddings]], rounds: int
) -> tuple[dict[str, list[float]], dict[str, Embeddings]]:
    """Time all variants one after the other in each round; the first round is a warm-up."""
    seconds: dict[str, list[float]] = {key: [] for key in work}
    found: dict[str, Embeddings] = {}
    for _ in range(rounds + 1):
        for key, do in work.items():
            started = time.perf_counter()
            found[key] = do()
            seconds[key].append(time.perf_counter() - started)
    return {key: each[1:] for key, each in seconds.items()}, found


def random_encoder(name: str) -> tuple[TimmEncoder, torch.nn.Module]:
    """Return an encoder with random weights, and timm's model with the same weights."""
    ensure_torchvision()
    import timm

    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0).eval()
    weights = Path(tempfile.mkdtemp()) / "random.safetensors"
    save_file(model.state_dict(), weights, {"input_size": f"3,{PX},{PX}"})
    return cast("TimmEncoder", open_encoder(name, weights=weights, mpp=MPP)), model


def main(
    encoders: Annotated[str, typer.Option()] = "mobilenetv2_100,resnet18,mobilenetv3_small_100",
    across: Annotated[int, typer.Option(help="Tiles across the square.")] = 36,
    rounds: Annotated[int, typer.Option()] = 3,
    out: Annotated[Path | None, typer.Option("-o")] = None,
) -> None:
    """Measure and print."""
    share_one_arena()
    with tempfile.TemporaryDirectory() as folder:
        path = sample_pyramid(Path(folder), SIDE, MPP)
        found = [measure(name, path, across, rounds) for name in encoders.split(",")]
    table = Table("encoder", "variant", "tiles/s", "of alone", "ours is x of it", "apart from alone")
    for entry in found:
        rate, apart = entry["tiles_per_s"], entry["largest_difference"]
        for key, value in rate.items():
            table.add_row(
                entry["encoder"], key, f"{value:.0f}", f"{value / rate['alone']:.2f}",
                f"{rate['ours'] / value:.2f}", f"{apart[key]:.1e}" if key in apart else "",
            )  # fmt: skip
    Console().print(table)
    if out is not None:
        out.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    typer.run(main)
