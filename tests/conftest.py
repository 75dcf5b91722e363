"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent

# The tests' networks are tiny: more threads only wait for each other, for minutes on a busy machine.
# torch reads this when it is imported, and the processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")


# Modules that a downloaded folder could bring along: of libraries, of Python itself, and of ours.
PLANTED = (
    *("h5py", "numpy", "pandas", "torch", "scipy", "anndata", "squidpy", "distributed", "zarr", "PIL"),
    *("json", "pickle", "struct", "socket", "multiprocessing", "runpy", "typing", "subprocess", "tempfile"),
    *("sitecustomize", "usercustomize", "chrep_model", "napari_chrep"),
)


def _shared(part: str) -> Path:
    root = Path(os.environ.get("CHREP_SHARED") or REPOSITORY.parent / "shared")
    if not (root / part).is_dir():
        pytest.skip(f"no {part} in {root}: set CHREP_SHARED to the folder of the real sections")
    return root / part


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real sections and slides; the test is skipped where it is absent."""
    return _shared("data")


@pytest.fixture(scope="session")
def shared_weights() -> Path:
    """Folder of real encoder weights; the test is skipped where it is absent."""
    return _shared("weights")


@pytest.fixture(scope="session")
def tiny_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a SYNTHETIC cohort: three sections of about 50 spots and 60 genes. Only to be read."""
    from chrep_model.cohorts.synthetic import write_tiny_cohort

    folder = tmp_path_factory.mktemp("cohort") / "tiny"
    write_tiny_cohort(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_bundle(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundle of 40 genes, trained on `tiny_cohort` with given settings and few epochs. Only to be read."""
    from chrep_model.calibration.corrector import CorrectorSettings
    from chrep_model.cohorts.cohort import open_cohort
    from chrep_model.methods.chrep import ChrepSettings
    from chrep_model.methods.phase1 import Phase1Settings
    from chrep_model.pipeline import TrainSettings, train

    folder = tmp_path_factory.mktemp("bundle")
    phase1, corrector = Phase1Settings(members=1, epochs=10), CorrectorSettings(epochs=10)
    chrep = ChrepSettings(phase1=phase1, corrector=corrector, k=50, trees=20)
    settings = TrainSettings(genes=40, context_um=(300.0,), chrep=chrep, note="SYNTHETIC test data")
    train(open_cohort(tiny_cohort), settings, folder / "tiny.chrep", device="cpu", cache=folder / "cache")
    return folder / "tiny.chrep"


@pytest.fixture(scope="session")
def trusting_bundle(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundle of 20 genes that says how far to trust it (`mean` on coarse tiles). Only to be read."""
    from chrep_model.cohorts.cohort import open_cohort
    from chrep_model.pipeline import TrainSettings, train

    folder = tmp_path_factory.mktemp("trusting")
    settings = TrainSettings(method="mean", tile_um=100, mpp=2.0, context_um=(200.0,), genes=20)
    train(open_cohort(tiny_cohort), settings, folder / "mean.chrep", device="cpu", cache=folder / "cache")
    return folder / "mean.chrep"


@pytest.fixture
def canaries(tiny_cohort: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A cohort with `PLANTED` modules in its folder; those that are run leave a file in the second folder."""
    folder, ran = tmp_path / "downloaded", tmp_path / "ran"
    shutil.copytree(tiny_cohort, folder)
    ran.mkdir()
    for name in PLANTED:
        code = f"open({str(ran / name)!r}, 'w').close()\nraise ImportError('{name} was run')\n"
        (folder / f"{name}.py").write_text(code)
    return folder, ran


@pytest.fixture
def striped_slide(tmp_path: Path) -> Path:
    """A picture (0.7 µm/px) that passes for tissue and is like none: coarse stripes."""
    from PIL import Image

    y, x = np.mgrid[:1000, :1000]
    stripes = ((x // 8 + y // 300) % 2)[..., None] * np.array([96, 60, 36])
    picture = np.full((1200, 1200, 3), 244, np.uint8)
    picture[100:1100, 100:1100] = np.array([200, 120, 190]) - stripes
    Image.fromarray(picture).save(tmp_path / "striped.png")
    return tmp_path / "striped.png"


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Name and random weights of timm's smallest convolutional model, for tiles of 64 px."""
    from safetensors.torch import save_file

    from chrep_model.networks.torchvision_compat import ensure_torchvision

    ensure_torchvision()
    import timm
    import torch

    torch.manual_seed(0)
    name, path = "test_efficientnet", tmp_path_factory.mktemp("weights") / "start.safetensors"
    said = {"mean": "0.5,0.5,0.5", "std": "0.25,0.25,0.25", "input_size": "3,64,64"}
    save_file(timm.create_model(name, num_classes=0).state_dict(), path, said)
    return name, path


@pytest.fixture
def write_pyramid(tmp_path: Path) -> Callable[..., Path]:
    """Write arrays as a tiled, pyramidal OME-TIFF.

    ``write_pyramid(image, mpp=0.5, levels=3, name="slide.ome.tif", tile=256, **options)`` takes a uint8
    array (rows, cols, 3), halves it by 2 x 2 means for each further level, and returns the path. `mpp` may be
    ``None`` or a pair (x, y). `options` go to `tifffile.TiffWriter.write`.
    """

    def write(
        image: np.ndarray,
        *,
        mpp: float | tuple[float, float] | None = 0.5,
        levels: int = 3,
        name: str = "slide.ome.tif",
        tile: int = 256,
        **options: Any,
    ) -> Path:
        import tifffile

        path = tmp_path / name
        metadata: dict[str, Any] = {"axes": "YXS"}
        if mpp is not None:
            x, y = mpp if isinstance(mpp, tuple) else (mpp, mpp)
            metadata |= {"PhysicalSizeX": x, "PhysicalSizeY": y}
            metadata |= {"PhysicalSizeXUnit": "µm", "PhysicalSizeYUnit": "µm"}
        options = {"photometric": "rgb", "tile": (tile, tile)} | options
        with tifffile.TiffWriter(path, ome=".ome." in name) as writer:
            writer.write(image, subifds=levels - 1, metadata=metadata, **options)
            for _ in range(levels - 1):
                image = halve(image)
                writer.write(image, subfiletype=1, **options)
        return path

    return write


@pytest.fixture(scope="session")
def growth_mb() -> Callable[..., float]:
    """By how many MB a program's memory grows at most: ``growth_mb(setup, measured, arg, ...)``.

    Both are Python; `setup` finds numpy as ``np`` and the arguments in ``sys.argv[1:]``. Pages of
    mapped files count.
    """
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("only Linux tells a process's peak of memory since a given moment")
    frame = """
import sys
import numpy as np
def memory_kb(name):
    return int(open("/proc/self/status").read().split(name + ":")[1].split()[0])
{setup}
before = memory_kb("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
{measured}
print((memory_kb("VmHWM") - before) / 1000)
"""

    def measure(setup: str, measured: str, *args: object) -> float:
        command = [sys.executable, "-c", frame.format(setup=setup, measured=measured), *map(str, args)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return float(done.stdout.split()[-1])

    return measure


def halve(image: np.ndarray) -> np.ndarray:
    """Return the 2 x 2 means of (rows, cols, 3), rounded to uint8; an odd last row or column is dropped."""
    rows, cols = image.shape[0] // 2, image.shape[1] // 2
    blocks = image[: rows * 2, : cols * 2].reshape(rows, 2, cols, 2, 3)
    return np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)
