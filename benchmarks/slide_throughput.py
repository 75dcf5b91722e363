"""Tiles per second from a slide to embeddings, as a share of what the encoder alone does; and against peers.

    python benchmarks/slide_throughput.py [--encoders mobilenetv2_100,resnet18,mobilenetv3_small_100]
        [--tiles 512] [--rounds 3] [-o slide_throughput.json]

The slide is a JPEG pyramid of 20,000 px made of the sample tissue, the tiles are those of its middle, 224
px at the slide's own scale, so that nobody has to resample. All variants see the same tiles in fp32 and run
in turn in one process, over several rounds; medians. *alone*: the encoder on tiles in memory. *ours*:
`TileReader` and the encoder, as every prediction runs. *plain loop*: OpenSlide's `read_region` in a torch
Dataset, a DataLoader without workers, and timm. Networks have random weights, which are as fast as others.
The embeddings of ours and of the plain loop are compared.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import openslide
import torch
import typer
from numpy.typing import NDArray
from pyramids import sample_pyramid
from rich.console import Console
from rich.table import Table
from safetensors.torch import save_file

from chrep_model.networks.encoder import Encoder, open_encoder
from chrep_model.networks.torchvision_compat import ensure_torchvision
from chrep_model.slides.slide import open_slide
from chrep_model.slides.tiles import TileGrid, TileReader

SIDE, MPP, PX, BATCH = 20_000, 0.5, 224, 32


class Regions(torch.utils.data.Dataset[torch.Tensor]):
    """What everybody writes: a region of the slide as a normalised tensor."""

    def __init__(self, path: Path, corners: NDArray[np.int64], encoder: Any) -> None:
        self.slide, self.corners = openslide.OpenSlide(str(path)), corners
        self.mean, self.std = encoder._mean[0], encoder._std[0]

    def __len__(self) -> int:
        return len(self.corners)

    def __getitem__(self, i: int) -> torch.Tensor:
        x, y = (int(v) for v in self.corners[i])
        picture = np.array(self.slide.read_region((x, y), 0, (PX, PX)).convert("RGB"))
        return (torch.from_numpy(picture).permute(2, 0, 1).float() / 255 - self.mean) / self.std


@torch.inference_mode()
def plain_loop(path: Path, corners: NDArray[np.int64], encoder: Any) -> NDArray[np.float32]:
    """Embeddings (n, dim) the plain way."""
    loader = torch.utils.data.DataLoader(Regions(path, corners, encoder), batch_size=BATCH)
    return np.concatenate([encoder.model(batch).numpy() for batch in loader])


def ours(reader: TileReader, centres: NDArray[np.float64], encoder: Encoder) -> NDArray[np.float32]:
    """Embeddings (n, dim) our way."""
    return np.concatenate([encoder.encode(tiles, {}) for _, tiles in reader.batches(centres, BATCH)])


def alone(tiles: NDArray[np.uint8], encoder: Encoder) -> NDArray[np.float32]:
    """Embeddings (n, dim) of tiles in memory."""
    return np.concatenate([encoder.encode(tiles[i : i + BATCH], {}) for i in range(0, len(tiles), BATCH)])


def measure(name: str, path: Path, count: int, rounds: int) -> dict[str, Any]:
    """Time all variants of one encoder in turn."""
    ensure_torchvision()
    import timm

    torch.manual_seed(0)
    weights = Path(tempfile.mkdtemp()) / "random.safetensors"
    save_file(timm.create_model(name, num_classes=0).state_dict(), weights, {"input_size": f"3,{PX},{PX}"})
    encoder = open_encoder(name, weights=weights, mpp=MPP)
    with open_slide(path) as slide:
        grid = TileGrid(slide.shape, MPP, encoder.spec)
        tiles = grid.order_from((SIDE / 2, SIDE / 2), np.arange(grid.size))[:count]
        centres = grid.centres(np.sort(tiles))
        reader = TileReader(slide, encoder.spec)
        ready = reader.read(centres)
        corners = np.rint(centres - PX / 2).astype(np.int64)
        work = {
            "alone": lambda: alone(ready, encoder),
            "ours": lambda: ours(reader, centres, encoder),
            "plain loop": lambda: plain_loop(path, corners, encoder),
        }
        seconds: dict[str, list[float]] = {key: [] for key in work}
        found: dict[str, Any] = {}
        for _ in range(rounds + 1):  # the first warms up
            for key, do in work.items():
                started = time.perf_counter()
                found[key] = do()
                seconds[key].append(time.perf_counter() - started)
    rate = {key: count / float(np.median(each[1:])) for key, each in seconds.items()}
    apart = float(np.abs(found["ours"] - found["plain loop"]).max())
    return {"encoder": name, "tiles_per_s": rate, "largest_difference": apart}


def main(
    encoders: Annotated[str, typer.Option()] = "mobilenetv2_100,resnet18,mobilenetv3_small_100",
    tiles: Annotated[int, typer.Option()] = 512,
    rounds: Annotated[int, typer.Option()] = 3,
    out: Annotated[Path | None, typer.Option("-o")] = None,
) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        path = sample_pyramid(Path(folder), SIDE, MPP)
        found = [measure(name, path, tiles, rounds) for name in encoders.split(",")]
    table = Table("encoder", "alone, tiles/s", "ours", "plain loop", "ours / alone", "ours / plain", "apart")
    for entry in found:
        rate = entry["tiles_per_s"]
        table.add_row(
            entry["encoder"], *(f"{rate[key]:.0f}" for key in ("alone", "ours", "plain loop")),
            f"{rate['ours'] / rate['alone']:.2f}", f"{rate['ours'] / rate['plain loop']:.2f}",
            f"{entry['largest_difference']:.1e}",
        )  # fmt: skip
    Console().print(table)
    if out is not None:
        out.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    typer.run(main)
