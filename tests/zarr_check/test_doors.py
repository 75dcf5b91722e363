"""No zarr from outside runs code: every door refuses what is not on the lists of what is allowed."""

from __future__ import annotations

import ast
import json
import pickle
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numcodecs.pickles
import numpy as np
import pytest
import zarr

from chrep_model.errors import BundleError, ChrepError, CohortError, PredictionError, SlideError
from chrep_model.zarr_check import open_group, read_spatialdata, read_table

REPOSITORY = Path(__file__).resolve().parents[2]
SRC = REPOSITORY / "src"
DEMO = REPOSITORY / "sample_data" / "SYNTHETIC_demo.chrep"
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 64, 64), np.uint8)


class Evil:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.canary,)


V2: dict[str, Any] = {
    "zarr_format": 2, "compressor": None, "fill_value": 0, "order": "C", "filters": None,
    "dimension_separator": ".",
}  # fmt: skip
POISONS: dict[str, tuple[str, dict[str, Any]]] = {
    "filters": (
        ".zarray",
        V2 | {"dtype": "|O", "fill_value": "", "filters": [{"id": "vlen-utf8"}, {"id": "pickle"}]},
    ),
    "compressor": (".zarray", V2 | {"dtype": "|u1", "compressor": {"id": "pickle", "protocol": 5}}),
    "objects": (".zarray", V2 | {"dtype": "|O", "fill_value": "", "filters": [{"id": "pickle"}]}),
    "no filter": (".zarray", V2 | {"dtype": "|O", "fill_value": ""}),
    "json": (".zarray", V2 | {"dtype": "|O", "fill_value": "", "filters": [{"id": "json2"}]}),
    "version 3": (
        "zarr.json",
        {
            "zarr_format": 3, "node_type": "array", "data_type": "uint8", "fill_value": 0, "attributes": {},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "codecs": [{"name": "bytes"}, {"name": "numcodecs.pickle", "configuration": {}}],
        },
    ),
}  # fmt: skip


def poison(array: Path, kind: str, canary: Path) -> None:
    """Put an array in the place of another that runs code when it is decoded by zarr without a check."""
    shape = list(zarr.open_array(array, mode="r").shape)
    shutil.rmtree(array)
    array.mkdir()
    file, metadata = POISONS[kind]
    if file == ".zarray":
        metadata = metadata | {"shape": shape, "chunks": shape}
        chunk = array / (".".join("0" for _ in shape) or "0")
        (array / ".zattrs").write_text(
            json.dumps({"encoding-type": "string-array", "encoding-version": "0.2.0"})
        )
    else:
        grid = {"name": "regular", "configuration": {"chunk_shape": shape}}
        metadata = metadata | {"shape": shape, "chunk_grid": grid}
        chunk = array.joinpath("c", *("0" for _ in shape))
    (array / file).write_text(json.dumps(metadata))
    chunk.parent.mkdir(parents=True, exist_ok=True)
    chunk.write_bytes(pickle.dumps(Evil(canary)))


def make_slide(folder: Path, zarr_format: int = 2) -> Path:
    group = zarr.open_group(folder, mode="w", zarr_format=zarr_format)
    group.create_array("0", data=PIXELS)
    axes = [{"name": "c", "type": "channel"}, *({"name": n, "type": "space"} for n in "yx")]
    multiscale = {"axes": axes, "datasets": [{"path": "0"}], "version": "0.4"}
    group.attrs.update({"multiscales": [multiscale]})
    return folder


def make_table(folder: Path, zarr_format: int = 2) -> Path:
    import anndata
    import pandas as pd

    table = anndata.AnnData(np.ones((4, 3), np.float32), obs=pd.DataFrame(index=list("abcd")))
    table.uns["chrep"] = {"bundle": "a", "genes": np.array(["A", "B"])}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        group = zarr.open_group(folder, mode="w", zarr_format=zarr_format)
        anndata.io.write_elem(group, "/", table)
    return folder


@dataclass(frozen=True)
class Door:
    """One way by which a zarr from outside is read: how to make it, which array to poison, how to read it."""

    make: Callable[[Path], Path]
    array: str
    read: Callable[[Path], object]
    error: type[ChrepError]


def read_slide(path: Path) -> object:
    from chrep_model.slides.slide import is_slide, open_slide

    is_slide(path)
    with open_slide(path) as slide:
        return slide.read(0, 0, 64, 64)


def read_stored(path: Path) -> object:
    from chrep_model.prediction.stored import read_prediction

    return read_prediction(path)


def look(path: Path) -> object:
    from chrep_model.cli import info

    return info.info(path)


def reopen(path: Path) -> object:
    from napari_chrep.io.reader import get_reader, read_stored
    from napari_chrep.io.stored_predictions import read_with_slide

    assert get_reader(path) is read_stored
    return read_with_slide(path, [])


def drop_slide(path: Path) -> object:
    from napari_chrep.io.reader import get_reader, read_slides

    get_reader(path)
    ((data, _, _),) = read_slides(path)
    return np.asarray(data)


def make_sdata(folder: Path) -> Path:
    zarr.open_group(folder, mode="w", zarr_format=2)
    make_table(folder / "tables" / "prediction")
    return folder


def make_store_of_spatialdata(folder: Path) -> Path:
    spatialdata = pytest.importorskip("spatialdata")
    import anndata
    import pandas as pd
    from spatialdata.models import Image2DModel

    table = anndata.AnnData(np.ones((4, 3), np.float32), obs=pd.DataFrame(index=list("abcd")))
    image = Image2DModel.parse(PIXELS, dims=("c", "y", "x"), c_coords=["r", "g", "b"], scale_factors=[2])
    spatialdata.SpatialData(images={"he": image}, tables={"prediction": table}).write(folder)
    return folder


def make_bundle(folder: Path) -> Path:
    return Path(shutil.copytree(DEMO, folder))


def read_bundle(path: Path) -> object:
    """Read it as somebody would have sealed it who wants it to be opened."""
    from chrep_model.bundle.card import Card
    from chrep_model.bundle.reading import folder_hash, load_bundle

    facts = json.loads((path / "card.json").read_text())
    facts["files"]["gallery.zarr"] = folder_hash(path / "gallery.zarr")
    (path / "card.json").write_text(Card.model_validate(facts).sealed().model_dump_json(indent=1))
    return load_bundle(path).model


def make_store(folder: Path) -> Path:
    from chrep_model.embeddings.store import Store

    Store(folder, 4).set_points("spots", np.ones((5, 4), np.float32))
    return folder


def read_store(path: Path) -> object:
    from chrep_model.embeddings.store import Store

    return Store(path, 4).points("spots")


def read_sdata(path: Path) -> object:
    return read_spatialdata(path, CohortError).tables["prediction"].obs_names.tolist()


DOORS = {
    "measured SpatialData": Door(make_sdata, "tables/prediction/obs/_index", read_sdata, CohortError),
    "slide": Door(make_slide, "0", read_slide, SlideError),
    "prediction": Door(make_table, "obs/_index", read_stored, PredictionError),
    "SpatialData": Door(make_sdata, "tables/prediction/obs/_index", read_stored, PredictionError),
    "chrep info": Door(make_table, "obs/_index", look, PredictionError),
    "chrep info of SpatialData": Door(make_sdata, "tables/prediction/X", look, PredictionError),
    "chrep info of a slide": Door(make_slide, "0", look, SlideError),
    "bundle": Door(make_bundle, "gallery.zarr/z", read_bundle, BundleError),
    "embeddings": Door(make_store, "points/spots/values", read_store, ChrepError),
    "napari, prediction": Door(make_table, "obs/_index", reopen, PredictionError),
    "napari, slide": Door(make_slide, "0", drop_slide, SlideError),
}


@pytest.mark.parametrize("kind", POISONS)
@pytest.mark.parametrize("door", DOORS)
def test_no_door_runs_code(door, kind, tmp_path, monkeypatch):
    # As all versions of numcodecs did before this one.
    monkeypatch.setattr(numcodecs.pickles, "ALLOW_UNSAFE_PICKLE_DECODE", True)
    canary, here = tmp_path / "canary", DOORS[door]
    path = here.make(tmp_path / "a.zarr")
    poison(path / here.array, kind, canary)
    with pytest.raises(here.error) as caught:
        here.read(path)
    assert not canary.exists()
    assert "not opened" in str(caught.value) or door == "embeddings"
    assert str(path) in str(caught.value)


def test_the_poison_works_without_the_check(tmp_path, monkeypatch):
    monkeypatch.setattr(numcodecs.pickles, "ALLOW_UNSAFE_PICKLE_DECODE", True)
    canary = tmp_path / "canary"
    path = make_slide(tmp_path / "a.zarr")
    poison(path / "0", "filters", canary)  # this version of zarr itself refuses the others
    with pytest.raises(TypeError):
        zarr.open_group(path, mode="r")["0"][:]
    assert canary.exists()


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_what_libraries_write_is_opened(tmp_path, zarr_format):
    table = read_table(make_table(tmp_path / "a.zarr", zarr_format), PredictionError)
    assert list(table.obs_names) == list("abcd") and table.uns["chrep"]["bundle"] == "a"
    store = make_store_of_spatialdata(tmp_path / "c.zarr")
    assert read_sdata(store) == list("abcd")
    group = open_group(make_slide(tmp_path / "b.zarr", zarr_format), SlideError)
    np.testing.assert_array_equal(group["0"][:], PIXELS)


READERS = {"open", "open_group", "open_array", "open_consolidated", "open_like", "load", "read_zarr", "group"}
READERS |= {"array", "tree", "ZipStore", "LocalStore", "from_zarr"}
MODULES = {"zarr", "anndata", "ad", "spatialdata", "sd", "da", "xarray", "xr", "io", "dask"}
CREATES = {"w", "w-", "a"}


def opens_unchecked(source: str) -> list[int]:
    """Lines that open a zarr for reading by themselves."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("zarr", "spatialdata"):
            found += [node.lineno for alias in node.names if alias.name in READERS]
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owner = node.func.value
        name = owner.id if isinstance(owner, ast.Name) else getattr(owner, "attr", "")
        modes = {
            k.value.value for k in node.keywords if k.arg == "mode" and isinstance(k.value, ast.Constant)
        }
        if node.func.attr == "read_zarr" or (
            node.func.attr in READERS and name in MODULES and name != "da" and not modes & CREATES
        ):
            found.append(node.lineno)
    return found


def test_no_other_file_opens_a_zarr_for_reading():
    places = {
        f"{path.relative_to(SRC)}:{line}"
        for path in sorted(SRC.rglob("*.py"))
        if path.parent.name != "zarr_check"
        for line in opens_unchecked(path.read_text(encoding="utf-8"))
    }
    assert places == set()


@pytest.mark.parametrize(
    "code",
    [
        "zarr.open(path)", "zarr.open_group(path, mode='r')", "anndata.read_zarr(path)",
        "import spatialdata as x\nx.read_zarr(path)", "from zarr import open_group", "zarr.load(path)",
    ],
)  # fmt: skip
def test_what_opens_a_zarr_is_noticed(code):
    assert opens_unchecked(code)
    assert not opens_unchecked("zarr.open_group(path, mode='w')")
