"""Small real pairs of a picture and an h5ad."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
from PIL import Image
from scipy import sparse

MakePair = Callable[..., tuple[Path, Path]]


@pytest.fixture
def make_pair(tmp_path: Path) -> MakePair:
    """Write ``NAME.png`` and ``NAME.h5ad``; keywords replace parts of a valid section of 4 spots, 3 genes."""

    def make(
        name: str = "A",
        *,
        folder: Path | None = None,
        size: tuple[int, int] = (120, 80),
        counts: Any = None,
        genes: Any = None,
        spots: Any = None,
        xy: Any = ((10, 10), (110, 10), (10, 70), (110, 70)),
        **uns: Any,
    ) -> tuple[Path, Path]:
        folder = folder or tmp_path
        folder.mkdir(exist_ok=True)
        if counts is None:
            counts = sparse.csr_matrix(np.array([[5, 0, 1], [0, 2, 0], [3, 3, 3], [0, 0, 0]], np.int32))
        n_spots, n_genes = counts.shape
        table = anndata.AnnData(counts)
        table.var_names = list(genes) if genes is not None else [f"GENE{i}" for i in range(n_genes)]
        table.obs_names = list(spots) if spots is not None else [f"{name}_{i}" for i in range(n_spots)]
        if xy is not None:
            table.obsm["spatial"] = np.asarray(xy, dtype=np.float64)
        for key, value in ({"um_per_px": 0.5} | uns).items():
            if value is not None:
                table.uns[key] = value
        picture, h5ad = folder / f"{name}.png", folder / f"{name}.h5ad"
        Image.new("RGB", size, (200, 150, 190)).save(picture)
        table.write_h5ad(h5ad)
        return picture, h5ad

    return make
