"""Made-up output folders of other programs, whose right counts, positions and scales are known."""

from __future__ import annotations

import gzip
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import io as scipy_io
from scipy import sparse

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
def tissue(tiny_cohort: Path) -> dict[str, Path]:
    """Three pictures of tissue at 0.7 µm per px, by name."""
    return {picture.stem: picture for picture in sorted(tiny_cohort.glob("*.jpg"))}


@pytest.fixture
def make_outs(tissue: dict[str, Path], tmp_path: Path) -> MakeOuts:
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
        original = list(tissue.values())[which]
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
