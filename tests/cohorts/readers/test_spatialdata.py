"""SpatialData stores: the table's spots brought onto the image, and nothing that runs code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from chrep_model.cohorts.readers import find_source
from chrep_model.cohorts.section import read_section
from chrep_model.errors import CohortError

spatialdata = pytest.importorskip("spatialdata")

MPP = 0.5


def right_xy(array: np.ndarray) -> np.ndarray:
    """Return (x, y) in px of Visium's array at 0.5 µm per px."""
    return np.stack([60 + array[:, 1] * 50 / MPP, 60 + array[:, 0] * 50 * np.sqrt(3) / MPP], axis=1)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store whose image is twice as fine as the coordinates of its spots, which are moved besides."""
    import anndata
    from spatialdata.models import Image2DModel, ShapesModel, TableModel
    from spatialdata.transformations import Affine, Scale

    rng = np.random.default_rng(1)
    array = np.array([(row, col) for row in range(5) for col in range(row % 2, 10, 2)])
    image = np.full((3, 1024, 1200), 210, np.uint8)
    image[:, 40:900, 40:1100] = rng.integers(90, 200, (3, 860, 1060))
    # px of the image = 2 x the common system; the common system = the shapes' own, moved by (10, 20)
    picture = Image2DModel.parse(
        image,
        dims=("c", "y", "x"),
        c_coords=["r", "g", "b"],
        transformations={"global": Scale([0.5, 0.5], ("x", "y"))},
    )
    moved = Affine(np.array([[1, 0, 10], [0, 1, 20], [0, 0, 1]]), ("x", "y"), ("x", "y"))
    centres = right_xy(array) / 2 - (10, 20)
    order = rng.permutation(len(array))
    spots = ShapesModel.parse(
        centres[order], geometry=0, radius=27.5, index=pd.Index(order), transformations={"global": moved}
    )
    table = anndata.AnnData(rng.poisson(3, (len(array), 5)).astype(np.float32))
    table.var_names = ["A", "B", "C", "A1", "CD3"]
    table.var["gene_ids"] = [f"ENSG{i}" for i in range(5)]
    table.var["feature_types"] = ["Gene Expression"] * 4 + ["Antibody Capture"]
    table.obs = pd.DataFrame(
        {
            "array_row": array[:, 0],
            "array_col": array[:, 1],
            "in_tissue": (np.arange(len(array)) != 4).astype(int),
            "spot": np.arange(len(array)),
            "region": pd.Categorical(["spots"] * len(array)),
        },
        index=[f"s{i}" for i in range(len(array))],
    )
    parsed = TableModel.parse(table, region="spots", region_key="region", instance_key="spot")
    data = spatialdata.SpatialData(images={"he": picture}, shapes={"spots": spots}, tables={"table": parsed})
    data.write(tmp_path / "liver.zarr")
    return tmp_path / "liver.zarr"


def test_a_store_is_a_section(store):
    source = find_source(store)
    assert (source.kind, source.name) == ("SpatialData store", "liver")
    section = read_section(None, store)
    assert len(section) == 24 and "s4" not in section.spot_ids
    array = np.array([(row, col) for row in range(5) for col in range(row % 2, 10, 2)])
    right = right_xy(array)[[int(name[1:]) for name in section.spot_ids]]
    assert section.xy == pytest.approx(right)
    assert section.mpp == pytest.approx(MPP) and section.spot_diameter_px == pytest.approx(110)
    assert section.genes == ("A", "B", "C", "A1") and section.gene_ids[0] == "ENSG0"
    rng_counts = spatialdata.read_zarr(store).tables["table"].to_df().loc[list(section.spot_ids)]
    assert (section.counts.toarray() == rng_counts[["A", "B", "C", "A1"]].to_numpy()).all()


def test_a_store_with_python_objects_is_not_opened(store, monkeypatch):
    marked = next(store.rglob("zarr.json"))
    other = store / "tables" / "table" / "evil"
    other.mkdir()
    array = {"zarr_format": 2, "shape": [1], "chunks": [1], "dtype": "|O", "compressor": None}
    array |= {"filters": [{"id": "pickle"}], "fill_value": None, "order": "C"}
    (other / ".zarray").write_text(json.dumps(array))
    monkeypatch.setattr(spatialdata, "read_zarr", lambda _: pytest.fail("the store was opened"))
    with pytest.raises(CohortError, match=r"not opened.*(pickle|object)"):
        read_section(None, store)
    (other / ".zarray").unlink()
    (other / "away").symlink_to(marked.parent.parent.parent)
    with pytest.raises(CohortError, match="link"):
        read_section(None, store)
