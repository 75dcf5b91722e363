"""Fixtures shared by all tests."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import io as scipy_io
from scipy import sparse

if TYPE_CHECKING:
    from chrep_model.prediction.prediction import Prediction

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
    from chrep_model.synthetic import write_tiny_cohort

    folder = tmp_path_factory.mktemp("cohort") / "tiny"
    write_tiny_cohort(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_bundle(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundle of 40 genes, trained on `tiny_cohort` with given settings and few epochs. Only to be read."""
    from chrep_model.calibration.corrector import CorrectorSettings
    from chrep_model.cohorts.cohort import open_cohort
    from chrep_model.methods.chrep import ChrepSettings
    from chrep_model.methods.chrep.phase1 import Phase1Settings
    from chrep_model.pipeline import TrainSettings, train

    folder = tmp_path_factory.mktemp("bundle")
    phase1, corrector = Phase1Settings(members=1, epochs=10), CorrectorSettings(epochs=10)
    chrep = ChrepSettings(phase1=phase1, corrector=corrector, k=50, trees=20)
    settings = TrainSettings(genes=40, mpp=1.5, context_um=(300.0,), chrep=chrep, note="SYNTHETIC test data")
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


@pytest.fixture(scope="session")
def prediction(tiny_cohort: Path, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Prediction:
    """A tiny section predicted with half overlapping tiles. Only to be read."""
    from chrep_model.bundle import load_bundle
    from chrep_model.prediction.predictor import Predictor
    from chrep_model.slides.slide import open_slide

    slide = open_slide(tiny_cohort / "SYNTHETIC_P1A.jpg", mpp=0.7)
    predictor = Predictor(load_bundle(tiny_bundle), device="cpu", cache_dir=tmp_path_factory.mktemp("cache"))
    return predictor.predict(slide, stride=0.5)


@pytest.fixture(scope="session")
def trusting(
    tiny_cohort: Path, trusting_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Prediction:
    """A prediction by a model that says how far to trust it. Only to be read."""
    from chrep_model.bundle import load_bundle
    from chrep_model.prediction.predictor import Predictor
    from chrep_model.slides.slide import open_slide

    slide = open_slide(tiny_cohort / "SYNTHETIC_P1A.jpg", mpp=0.7)
    cache = tmp_path_factory.mktemp("cache")
    return Predictor(load_bundle(trusting_bundle), device="cpu", batch_size=7, cache_dir=cache).predict(slide)


@pytest.fixture
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where slides lie is kept for one test only."""
    monkeypatch.setenv("CHREP_CACHE", str(tmp_path_factory.mktemp("own-cache")))


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

    from chrep_model.encoders.torchvision_compat import ensure_torchvision

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


@pytest.fixture
def write_scn(tmp_path: Path) -> Callable[..., Path]:
    """Write an array as a Leica slide: a scanned part in a larger canvas.

    ``write_scn(name, image, offset, canvas, nm=500)`` takes a uint8 array (rows, cols, 3), its offset (x, y)
    in a canvas (width, height), all in pixels, and nm per pixel; and returns the path.
    """

    def write(
        name: str, image: np.ndarray, offset: tuple[int, int], canvas: tuple[int, int], nm: int = 500
    ) -> Path:
        import tifffile

        path = tmp_path / name
        rows, cols = image.shape[:2]
        xml = (
            '<?xml version="1.0"?>'
            '<scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01" uuid="urn:uuid:0">'
            f'<collection name="c" uuid="urn:uuid:1" sizeX="{canvas[0] * nm}" sizeY="{canvas[1] * nm}">'
            '<image name="i" uuid="urn:uuid:2"><creationDate>2020-01-01T00:00:00Z</creationDate>'
            f'<device model="M" version="1"/><pixels sizeX="{cols}" sizeY="{rows}">'
            f'<dimension sizeX="{cols}" sizeY="{rows}" r="0" ifd="0"/></pixels>'
            f'<view sizeX="{cols * nm}" sizeY="{rows * nm}"'
            f' offsetX="{offset[0] * nm}" offsetY="{offset[1] * nm}"'
            ' spacingZ="0"/><scanSettings><objectiveSettings><objective>20</objective></objectiveSettings>'
            "<illuminationSettings><numericalAperture>0.4</numericalAperture><illuminationSource>brightfield"
            "</illuminationSource></illuminationSettings></scanSettings></image></collection></scn>"
        )
        with tifffile.TiffWriter(path, bigtiff=True) as writer:
            writer.write(
                image, photometric="rgb", tile=(256, 256), compression="jpeg", description=xml, metadata=None,
                software=None, resolution=(20000, 20000), resolutionunit=3,
            )  # fmt: skip
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


# From here on: made-up output folders of Space Ranger, whose right counts, positions and scale are known.

MPP = 0.7
PITCH_PX = 100.0 / MPP
COLUMNS = ("barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres")


@dataclass
class Made:
    """A made-up folder and what is right of it: spots under tissue only, genes only, symbols summed."""

    outs: Path
    picture: Path
    counts: pd.DataFrame
    xy: pd.DataFrame
    ids: dict[str, str]
    mpp: float = MPP


def _write_h5(path: Path, counts: np.ndarray, barcodes: Any, names: Any, ids: Any, types: Any) -> None:
    """Write a count matrix (barcodes x features) as Space Ranger stores it."""
    stored = sparse.csc_matrix(np.asarray(counts).T.astype(np.int32))
    with h5py.File(path, "w") as file:
        matrix = file.create_group("matrix")
        matrix["barcodes"] = np.array(barcodes, "S")
        matrix["data"], matrix["indices"], matrix["indptr"] = stored.data, stored.indices, stored.indptr
        matrix["shape"] = np.array(stored.shape, np.int32)
        features = matrix.create_group("features")
        features["name"], features["id"] = np.array(names, "S"), np.array(ids, "S")
        features["feature_type"] = np.array(types, "S")


def _write_mex(folder: Path, counts: np.ndarray, barcodes: Any, names: Any, ids: Any, types: Any) -> None:
    """Write the same as a MEX folder, gzipped."""
    folder.mkdir()
    text = io.BytesIO()
    scipy_io.mmwrite(text, sparse.coo_matrix(np.asarray(counts).T.astype(np.int32)), field="integer")
    rows = ["\t".join(row) for row in zip(ids, names, types, strict=True)]
    for name, content in (
        ("matrix.mtx.gz", text.getvalue()),
        ("barcodes.tsv.gz", "\n".join(barcodes).encode() + b"\n"),
        ("features.tsv.gz", "\n".join(rows).encode() + b"\n"),
    ):
        with gzip.open(folder / name, "wb") as stream:
            stream.write(content)


@pytest.fixture(scope="session")
def write_h5() -> Callable[..., None]:
    """Give `_write_h5`."""
    return _write_h5


MakeOuts = Callable[..., Made]


@pytest.fixture
def tissue_pictures(tiny_cohort: Path) -> dict[str, Path]:
    """Three pictures of tissue at 0.7 µm per px, by name."""
    return {picture.stem: picture for picture in sorted(tiny_cohort.glob("*.jpg"))}


@pytest.fixture
def make_outs(tissue_pictures: dict[str, Path], tmp_path: Path) -> MakeOuts:
    """Write ``NAME/outs`` of Space Ranger and ``NAME/NAME.jpg``.

    ``make_outs(name="A", which=0, matrix="h5", raw=False, positions="csv", picture=True, into=None)``;
    `matrix` is h5 or mex, `positions` list (1.x), csv (2.x) or parquet. There are 24 genes of which two share
    a symbol, an antibody, and a control; a third of the spots lies beside the tissue.
    """

    def make(
        name: str = "A",
        *,
        which: int = 0,
        matrix: str = "h5",
        raw: bool = False,
        positions: str = "csv",
        picture: bool = True,
        into: Path | None = None,
        hires: bool = True,
    ) -> Made:
        original = list(tissue_pictures.values())[which]
        run = (into or tmp_path / "runs") / name
        spatial = run / "outs" / "spatial"
        spatial.mkdir(parents=True)
        image = run / f"{name}.jpg"
        if picture:
            shutil.copyfile(original, image)
        with Image.open(original) as opened:
            full = opened.convert("RGB")
        width, height = full.size
        rng = np.random.default_rng(which + 1)
        table = []
        for row in range(int((height - 40) / (PITCH_PX * np.sqrt(3) / 2))):
            for col in range(row % 2, int((width - 40) / (PITCH_PX / 2)), 2):
                x, y = 30 + col * PITCH_PX / 2, 30 + row * PITCH_PX * np.sqrt(3) / 2
                letters = "".join(rng.choice(list("ACGT"), 16))
                table.append([f"{letters}-1", int((row + col) % 3 != 0), row, col, round(y), round(x)])
        spots = pd.DataFrame(table, columns=COLUMNS)
        rates = rng.gamma(1.0, 3.0, 26) + 1
        depth = rng.gamma(4.0, 0.5, len(spots)) + 0.2
        counts = rng.poisson(depth[:, None] * rates[None, :])
        names = [f"GENE{i}" for i in range(23)] + ["GENE7", "CD3", "NegControlProbe_1"]
        ids = [f"ENSG{i:011d}" for i in range(24)] + ["CD3.1", "NegControlProbe_1"]
        types = ["Gene Expression"] * 24 + ["Antibody Capture", "Gene Expression"]
        # The matrix has its own order.
        order = rng.permutation(len(spots) if raw else np.flatnonzero(spots["in_tissue"]))
        stem = f"{'raw' if raw else 'filtered'}_feature_bc_matrix"
        content = (counts[order], spots["barcode"].to_numpy()[order], names, ids, types)
        if matrix == "h5":
            _write_h5(run / "outs" / f"{stem}.h5", *content)
        else:
            _write_mex(run / "outs" / stem, *content)
        if positions == "list":
            spots.to_csv(spatial / "tissue_positions_list.csv", header=False, index=False)
        elif positions == "csv":
            spots.to_csv(spatial / "tissue_positions.csv", index=False)
        else:
            spots.to_parquet(spatial / "tissue_positions.parquet", index=False)
        factor = 300 / max(width, height)
        if hires:
            small = full.resize((round(width * factor), round(height * factor)))
            small.save(spatial / "tissue_hires_image.png")
        scale = {"tissue_hires_scalef": factor, "spot_diameter_fullres": 65 / MPP}
        (spatial / "scalefactors_json.json").write_text(json.dumps(scale))
        kept = spots[spots["in_tissue"] == 1].set_index("barcode")
        right = pd.DataFrame(counts[:, :24], index=spots["barcode"], columns=names[:24]).loc[kept.index]
        return Made(
            outs=run / "outs",
            picture=image,
            counts=right.T.groupby(level=0, sort=False).sum().T,
            xy=kept[["pxl_col_in_fullres", "pxl_row_in_fullres"]].astype(float),
            ids={f"GENE{i}": f"ENSG{i:011d}" for i in range(23)},
        )

    return make
