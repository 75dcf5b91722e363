"""Check of one array in a zarr folder: its codecs, data type, sizes and fill value."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_CHUNK_BYTES = 2 * 2**30
"""Largest number of decoded bytes in one chunk or shard."""

_MAX_CHUNKS = 2**26
_MAX_ELEMENTS = 2**44
_BLOSC_HEADER = 16

# Allowed codecs: compression and checksums, but none that changes types (astype, categorize) or decodes
# objects (pickle, json2, msgpack, vlen-array).
_PLAIN = {"blosc", "zlib", "gzip", "zstd", "lz4", "bz2", "lzma", "shuffle"}
_PLAIN |= {"crc32", "crc32c", "adler32", "fletcher32"}
_TEXT = "vlen-utf8"
_V3_CODECS = {"bytes", "endian", "transpose", "blosc", "gzip", "zstd", "crc32c"}
_V3_CODECS |= {f"numcodecs.{name}" for name in _PLAIN}
_SHARDING = "sharding_indexed"
_V2_TYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|c8|c16|[SU]\d{1,6}|[mM]8(\[[0-9a-zA-Z]{1,8}\])?)")
_V3_TYPES = {
    "bool": 1,
    "float16": 2,
    "float32": 4,
    "float64": 8,
    "complex64": 8,
    "complex128": 16,
    "string": 8,
}
_V3_TYPES |= {f"{sign}int{8 * size}": size for sign in ("", "u") for size in (1, 2, 4, 8)}
_V3_SIZED = {"fixed_length_utf32", "null_terminated_bytes"}
_V3_TIMES = {"numpy.datetime64", "numpy.timedelta64"}


class RefusedError(ValueError):
    """Raised for a folder that is unsafe to open; the message is the reason."""


class DamagedError(RefusedError):
    """Raised for a folder with damaged metadata."""


@dataclass
class Array:
    """Checked metadata of an array; `chunks` is the shape of its shards if it has any."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    itemsize: int
    plain: bool
    blosc: bool
    kept_whole: bool = False

    @property
    def nbytes(self) -> int:
        """Decoded bytes of the whole array."""
        return math.prod(self.shape) * self.itemsize


def v2_array(found: Mapping[str, Any]) -> Array:
    """Check the metadata in a ``.zarray`` file; raises `RefusedError`, or any other error if damaged."""
    filters = [_codec_name(codec, "id") for codec in found.get("filters") or ()]
    compressor = found.get("compressor")
    codecs = [*filters, *([_codec_name(compressor, "id")] if compressor is not None else [])]
    dtype = found["dtype"]
    if dtype == "|O":
        if filters != [_TEXT]:
            raise RefusedError(
                f"it holds Python objects (filters {', '.join(filters) or 'none'}) that are no text"
            )
        itemsize, codecs = 8, codecs[1:]
    else:
        itemsize = _v2_itemsize(dtype)
    _allow(codecs, _PLAIN)
    if found.get("order", "C") not in ("C", "F") or found.get("dimension_separator", ".") not in (
        ".",
        "/",
        None,
    ):
        raise RefusedError("its order or the names of its chunks are unknown")
    _check_fill(found.get("fill_value"))
    shape, chunks = _lengths(found["shape"]), _lengths(found["chunks"], least=1)
    return Array(shape, chunks, itemsize, plain=not codecs, blosc=codecs[-1:] == ["blosc"])


def _v2_itemsize(dtype: Any) -> int:
    if not isinstance(dtype, str) or not _V2_TYPE.fullmatch(dtype):
        raise RefusedError(f"it has data of the type {shown(dtype)}")
    kind, size = dtype.lstrip("<>|=")[0], int(re.findall(r"\d+", dtype)[0])
    return size * 4 if kind == "U" else size


def v3_array(found: Mapping[str, Any]) -> Array:
    """Check the metadata in an array's ``zarr.json`` file; raises like `v2_array`."""
    if found.get("node_type") != "array":
        raise RefusedError(f"it is of the kind {shown(found.get('node_type'))}")
    if found.get("storage_transformers"):
        raise RefusedError("it has storage transformers")
    grid, keys = found["chunk_grid"], found["chunk_key_encoding"]
    if grid["name"] != "regular":
        raise RefusedError(f"it has a chunk grid of the kind {shown(grid['name'])}")
    separator = (keys.get("configuration") or {}).get("separator", "/")
    if keys["name"] not in ("default", "v2") or separator not in (".", "/"):
        raise RefusedError("the names of its chunks are of an unknown kind")
    dtype = found["data_type"]
    chunks = _lengths(grid["configuration"]["chunk_shape"], least=1)
    plain = _check_v3_codecs(found["codecs"], chunks, text=dtype == "string")
    _check_fill(found.get("fill_value"))
    last = _codec_name(found["codecs"][-1], "name")
    return Array(_lengths(found["shape"]), chunks, _v3_itemsize(dtype), plain, blosc=last.endswith("blosc"))


def _v3_itemsize(dtype: Any) -> int:
    if isinstance(dtype, str) and dtype in _V3_TYPES:
        return _V3_TYPES[dtype]
    if isinstance(dtype, Mapping):
        settings = dtype.get("configuration") or {}
        if dtype.get("name") in _V3_SIZED:
            (size,) = _lengths([settings["length_bytes"]], least=1)
            return size
        if dtype.get("name") in _V3_TIMES:
            return 8
    raise RefusedError(f"it has data of the type {shown(dtype)}")


def _check_v3_codecs(codecs: Any, chunks: tuple[int, ...], text: bool, depth: int = 0) -> bool:
    """Check a list of codecs, including those inside shards; return whether chunks are uncompressed."""
    plain = True
    if not isinstance(codecs, list) or not 0 < len(codecs) <= 16 or depth > 2:
        raise RefusedError("its list of codecs is damaged")
    for codec in codecs:
        name = codec if isinstance(codec, str) else _codec_name(codec, "name")
        if name == _SHARDING:
            settings = codec["configuration"]
            inner = _lengths(settings["chunk_shape"], least=1)
            if len(inner) != len(chunks) or any(n % m for n, m in zip(chunks, inner, strict=True)):
                raise RefusedError(f"its shards of {chunks} do not hold whole chunks of {inner}")
            if math.prod(chunks) // math.prod(inner) > _MAX_CHUNKS:
                raise RefusedError(f"one of its shards has more than {_MAX_CHUNKS} chunks")
            _check_v3_codecs(settings["codecs"], inner, text, depth + 1)
            _allow([_codec_name(c, "name") for c in settings["index_codecs"]], {"bytes", "crc32c"})
            plain = False
        elif name == _TEXT and text:
            plain = False
        else:
            _allow([name], _V3_CODECS)
            plain &= name in ("bytes", "transpose")
    return plain


def _codec_name(codec: Any, key: str) -> str:
    name = codec.get(key) if isinstance(codec, Mapping) else codec
    if not isinstance(name, str):
        raise RefusedError("its list of codecs is damaged")
    return name


def _allow(codecs: Iterable[str], known: set[str]) -> None:
    for name in codecs:
        if name not in known:
            raise RefusedError(
                f"it is stored with the codec {shown(name)}, which is not on the list of safe ones"
            )


def _lengths(values: Any, least: int = 0) -> tuple[int, ...]:
    if not isinstance(values, list) or len(values) > 16:
        raise RefusedError("its shape is damaged")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**62:
            raise RefusedError(f"its shape has the length {shown(value)}")
    return tuple(values)


def check_sizes(array: Array, folder: Path | None) -> None:
    """Check an array's sizes against the limits; an uncompressed chunk may be as large as its file."""
    if len(array.shape) != len(array.chunks):
        raise RefusedError(f"its shape {array.shape} and its chunks {array.chunks} do not fit together")
    if math.prod(array.shape) > _MAX_ELEMENTS:
        raise RefusedError(f"its shape {array.shape} has more than {_MAX_ELEMENTS} elements")
    if math.prod(math.ceil(n / m) for n, m in zip(array.shape, array.chunks, strict=True)) > _MAX_CHUNKS:
        raise RefusedError(f"it has more than {_MAX_CHUNKS} chunks")
    chunk = math.prod(array.chunks) * array.itemsize
    array.kept_whole = array.plain and folder is not None and _is_there(folder, len(array.shape), chunk)
    if chunk > MAX_CHUNK_BYTES and not array.kept_whole:
        raise RefusedError(f"one of its chunks has {more_than(chunk, MAX_CHUNK_BYTES)}")


def _is_there(folder: Path, dimensions: int, size: int) -> bool:
    """Return whether the first chunk of an array has its full size on disk, as in memory-mapped galleries."""
    try:
        return folder.joinpath("c", *["0"] * dimensions).lstat().st_size == size
    except OSError:
        return False


def _check_fill(value: Any) -> None:
    plain = (
        value is None
        or isinstance(value, (bool, int, float))
        or (isinstance(value, str) and len(value) < 256)
    )
    complex_pair = (
        isinstance(value, list) and len(value) == 2 and all(isinstance(v, (int, float, str)) for v in value)
    )
    if not plain and not complex_pair:
        raise RefusedError(f"its fill value {shown(value)} is no number or text")


def check_blosc(file: Path) -> None:
    """Check that a chunk has exactly the length stated in its Blosc header.

    Blosc does not check this: for a truncated chunk it returns memory beyond the chunk's end.

    Raises
    ------
    ValueError
        The chunk is not complete.
    OSError
        The chunk cannot be read.
    """
    with file.open("rb") as stream:
        head = stream.read(_BLOSC_HEADER)
        size = os.fstat(stream.fileno()).st_size
    stored = int.from_bytes(head[12:16], "little")
    if len(head) < _BLOSC_HEADER or stored != size:
        raise DamagedError(f"its chunk {file.name} is not whole ({size} of {stored} bytes are there)")
    if (decoded := int.from_bytes(head[4:8], "little")) > MAX_CHUNK_BYTES:
        raise RefusedError(f"its chunk {file.name} has {more_than(decoded, MAX_CHUNK_BYTES)}")


def shown(value: Any) -> str:
    """Return a value as short text for a message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def size_text(count: int) -> str:
    """Return a number of bytes as text for a message."""
    return f"{count / 2**30:,.1f} GB" if count >= 2**30 else f"{count / 2**20:,.1f} MB"


def more_than(count: int, limit: int) -> str:
    """Return a number of bytes and its limit as text for a message."""
    return f"{size_text(count)}, more than {size_text(limit)}"
