"""What of a zarr folder is refused, and with which words."""

from __future__ import annotations

import json
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr

from chrep_model.errors import BundleError, PredictionError, SlideError
from chrep_model.zarr_check import MAX_METADATA_BYTES, check_zarr

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 64, 64), np.uint8)


def make_group(folder: Path, zarr_format: int = 2) -> Path:
    zarr.open_group(folder, mode="w", zarr_format=zarr_format).create_array("0", data=PIXELS)
    return folder


def change(path: Path, file: str, **values: Any) -> None:
    metadata = json.loads((path / file).read_text())
    (path / file).write_text(json.dumps(metadata | values))


def attack(name: str, path: Path) -> str:
    """Make a folder unsafe in one way; returns a word of the message."""
    array = path / "0"
    chunk = next(file for file in sorted(array.rglob("*")) if file.is_file() and file.name[0] == "0")
    if name == "link to a file":
        chunk.unlink()
        chunk.symlink_to("/dev/zero")
        return "is a link"
    if name == "link to a folder":
        (path / "other").symlink_to(path.parent, target_is_directory=True)
        return "is a link"
    if name == "link in place of metadata":
        (array / ".zarray").rename(path.parent / "elsewhere")
        (array / ".zarray").symlink_to(path.parent / "elsewhere")
        return "no regular file"
    if name == "pipe":
        chunk.unlink()
        os.mkfifo(chunk)
        return "no regular file"
    if name == "socket":
        chunk.unlink()
        with socket.socket(socket.AF_UNIX) as server:
            os.chdir(array)
            server.bind(chunk.name)
        return "no regular file"
    if name == "huge metadata":
        (array / ".zattrs").write_text(json.dumps({"a": "x" * MAX_METADATA_BYTES}))
        return "more than 16.0 MB"
    if name == "deep metadata":
        (array / ".zattrs").write_text("[" * 100_000)
        return "nested"
    if name == "deep folders":
        path.joinpath(*["d"] * 40).mkdir(parents=True)
        return "deep"
    if name == "huge chunk":
        change(array, ".zarray", shape=[3, 100_000, 100_000], chunks=[3, 100_000, 100_000])
        return "more than 2.0 GB"
    if name == "huge shape":
        change(array, ".zarray", shape=[2**40, 2**40, 3])
        return "elements"
    if name == "many chunks":
        change(array, ".zarray", shape=[3, 2**18, 2**18], chunks=[1, 1, 1])
        return "chunks"
    if name == "negative shape":
        change(array, ".zarray", shape=[3, -64, 64])
        return "length"
    if name == "chunks of no size":
        change(array, ".zarray", chunks=[3, 0, 64])
        return "length"
    if name == "fill value":
        change(array, ".zarray", fill_value={"a": 1})
        return "fill value"
    if name == "array in an array":
        shutil.copytree(array, array / "inner")
        change(array / "inner", ".zarray", compressor={"id": "pickle"})
        return "'pickle'"
    if name == "path in the attributes":
        multiscale = {"axes": list("cyx"), "datasets": [{"path": "../../elsewhere/0"}], "version": "0.4"}
        change(path, ".zattrs", multiscales=[multiscale])
        return "leads out"
    if name == "consolidated":
        evil = json.loads((array / ".zarray").read_text()) | {"filters": [{"id": "pickle"}]}
        (path / ".zmetadata").write_text(json.dumps({"metadata": {"0/.zarray": evil}}))
        return "'pickle'"
    if name == "consolidated key":
        (path / ".zmetadata").write_text(json.dumps({"metadata": {"../0/.zarray": {}}}))
        return "leads out"
    if name == "structured type":
        change(array, ".zarray", dtype=[["a", "|O"]])
        return "of the type"
    assert name == "astype"
    change(array, ".zarray", filters=[{"id": "astype", "encode_dtype": "|u1", "decode_dtype": "|O"}])
    return "'astype'"


@pytest.mark.parametrize(
    "name",
    [
        "link to a file", "link to a folder", "link in place of metadata", "pipe", "socket", "huge metadata",
        "deep metadata", "deep folders", "huge chunk", "huge shape", "many chunks", "negative shape",
        "chunks of no size", "fill value", "array in an array", "path in the attributes", "consolidated",
        "consolidated key", "structured type", "astype",
    ],
)  # fmt: skip
def test_what_is_not_safe_is_refused_with_its_reason(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = make_group(tmp_path / "a.zarr")
    check_zarr(path, SlideError)
    word = attack(name, path)
    with pytest.raises(SlideError, match=word) as caught:
        check_zarr(path, SlideError, whole=False)
    assert str(path) in str(caught.value)


def v3(path: Path, **values: Any) -> None:
    change(path / "0", "zarr.json", **values)


SHARD = {"codecs": [{"name": "bytes"}], "index_codecs": [{"name": "bytes"}, {"name": "crc32c"}]}


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"codecs": [{"name": "bytes"}, {"name": "numcodecs.msgpack2"}]}, "msgpack2"),
        ({"codecs": [{"name": "vlen-utf8"}]}, "vlen-utf8"),
        ({"codecs": []}, "list of codecs"),
        ({"data_type": {"name": "structured", "configuration": {"fields": []}}}, "of the type"),
        ({"data_type": "variable_length_bytes"}, "of the type"),
        ({"storage_transformers": [{"name": "a"}]}, "storage transformers"),
        ({"chunk_grid": {"name": "rectilinear", "configuration": {}}}, "chunk grid"),
        (
            {
                "codecs": [
                    {
                        "name": "sharding_indexed",
                        "configuration": SHARD
                        | {"chunk_shape": [3, 64, 64], "codecs": [{"name": "numcodecs.pickle"}]},
                    }
                ]
            },
            "pickle",
        ),
        (
            {"codecs": [{"name": "sharding_indexed", "configuration": SHARD | {"chunk_shape": [3, 60, 64]}}]},
            "whole chunks",
        ),
        (
            {
                "codecs": [
                    {
                        "name": "sharding_indexed",
                        "configuration": SHARD
                        | {"chunk_shape": [3, 64, 64], "index_codecs": [{"name": "numcodecs.pickle"}]},
                    }
                ]
            },
            "pickle",
        ),
        ({"zarr_format": 4}, "zarr format"),
    ],
)
def test_version_3_is_checked_in_its_shards_too(tmp_path, values, word):
    path = make_group(tmp_path / "a.zarr", zarr_format=3)
    check_zarr(path, SlideError)
    v3(path, **values)
    with pytest.raises(SlideError, match=word):
        check_zarr(path, SlideError)
    with pytest.raises(SlideError, match=word):
        check_zarr(path, SlideError, metadata_only=True)


def test_consolidated_metadata_of_version_3_are_checked(tmp_path):
    path = make_group(tmp_path / "a.zarr", zarr_format=3)
    evil = json.loads((path / "0" / "zarr.json").read_text()) | {"codecs": ["numcodecs.pickle"]}
    change(path, "zarr.json", consolidated_metadata={"kind": "inline", "metadata": {"0": evil}})
    with pytest.raises(SlideError, match="pickle"):
        check_zarr(path, SlideError)


def test_what_fills_the_memory_out_of_nothing_is_refused(tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    group.create_array("X", shape=(100_000, 100_000), chunks=(1000, 1000), dtype="f4")
    with pytest.raises(PredictionError, match=r"37\.3 GB of memory"):
        check_zarr(tmp_path / "a.zarr", PredictionError)
    check_zarr(tmp_path / "a.zarr", PredictionError, whole=False)  # of which a part is read


def test_one_plain_chunk_may_be_as_large_as_its_file(tmp_path):
    """As the embeddings of a large gallery, which are mapped."""
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    shape = (3_000_000, 200)
    group.create_array("z", shape=shape, chunks=shape, dtype="<f4", compressors=None)
    with pytest.raises(BundleError, match="more than"):
        check_zarr(tmp_path / "a.zarr", BundleError)
    chunk = tmp_path / "a.zarr" / "z" / "c" / "0" / "0"
    chunk.parent.mkdir(parents=True)
    with chunk.open("wb") as stream:
        stream.truncate(4 * 3_000_000 * 200)  # a file of holes
    check_zarr(tmp_path / "a.zarr", BundleError)


@pytest.mark.parametrize("cut", [0, 3, 16, 100, -1])
def test_a_blosc_chunk_that_is_cut_short_is_refused(tmp_path, cut):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    group.create_array("0", data=PIXELS, compressors=numcodecs.Blosc())
    (chunk,) = (tmp_path / "a.zarr" / "0").glob("0.*")
    check_zarr(tmp_path / "a.zarr", PredictionError)
    chunk.write_bytes(chunk.read_bytes()[:cut])
    with pytest.raises(PredictionError, match="not whole"):
        check_zarr(tmp_path / "a.zarr", PredictionError)
