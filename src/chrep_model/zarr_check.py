"""Opening zarr folders that came from somebody else: checked first, so that no file in them runs code.

Zarr names in its metadata the codecs that decode its chunks, and some codecs run code (pickle) or fill the
memory. `check_zarr` walks a folder and lets through what images and tables are made of, by lists of what is
allowed. Every file of this project that reads a zarr opens it with `open_group` or `read_table`.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from chrep_model.errors import ChrepError

if TYPE_CHECKING:
    import zarr
    from anndata import AnnData

METADATA = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")
"""Names of the files that zarr takes for metadata."""

MAX_CHUNK_BYTES = 2 * 2**30
"""Decoded bytes of one chunk or shard."""

MAX_METADATA_BYTES = 16 * 2**20
MAX_NODES = 20_000
MAX_DEPTH = 32
_MAX_CHUNKS = 2**26
_MAX_ELEMENTS = 2**44
# Of a store that is read into memory as a whole: decoded bytes for each stored byte. Constant columns
# compress to almost nothing, so small stores are free.
_MAX_RATIO, _FREE_BYTES = 1100, 256 * 2**20

_BLOSC_HEADER = 16

_REMEDY = (
    "Do not open it with other programs unless you trust where it came from; write or download it again."
)

# Compression and checksums. What changes types (astype, categorize) or decodes objects (pickle, json2,
# msgpack, vlen-array) is left out.
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
_OF_PATHS = ("multiscales", "plate", "well")


def open_group(
    path: Path, error: type[ChrepError], *, whole: bool = True, metadata_only: bool = False
) -> zarr.Group:
    """Check a zarr folder, and open its group for reading.

    Parameters
    ----------
    path, error, whole, metadata_only
        See `check_zarr`.

    Raises
    ------
    ChrepError
        Of the kind `error`: see `check_zarr`; or it is no group.
    OSError
        It cannot be read.
    """
    import zarr

    check_zarr(path, error, whole=whole, metadata_only=metadata_only)
    # What is consolidated may be out of date: elements of SpatialData are added and removed.
    return zarr.open_group(path, mode="r", use_consolidated=False)


def read_table(path: Path, error: type[ChrepError]) -> AnnData:
    """Check a zarr folder, and read it as AnnData; raises like `open_group`."""
    import anndata

    return anndata.read_zarr(open_group(path, error))


def check_zarr(
    path: Path, error: type[ChrepError], *, whole: bool = True, metadata_only: bool = False
) -> None:
    """Refuse a zarr folder (version 2 or 3) that is not safe to open, by its metadata and kinds of files.

    Parameters
    ----------
    path : Path
        The folder.
    error : type
        Kind of `ChrepError` to raise.
    whole : bool
        Whether it will be read into memory as a whole: its size is then weighed against what is stored.
    metadata_only : bool
        Whether only metadata will be read: chunks are then not looked for, which is fast.

    Raises
    ------
    ChrepError
        Of the kind `error`: codecs, filters, data types or fill values that are not on the lists of what is
        allowed, sizes beyond the limits, links, pipes and devices, paths that lead out of the folder, or
        metadata that cannot be read.
    OSError
        It cannot be read.
    """
    try:
        store = _Store(Path(path), whole and not metadata_only, metadata_only)
        store.walk()
        if store.whole:
            store.weigh()
    except _RefusedError as refused:
        raise error(f"this zarr folder is not opened: {refused}", path=path, remedy=_REMEDY) from None


def read_metadata(file: Path) -> Any:
    """Read a metadata file of zarr: JSON in a regular file of at most 16 MiB.

    Raises
    ------
    ValueError
        It is none.
    OSError
        It cannot be read.
    """
    found = file.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise _RefusedError(f"{file.name} is no regular file")
    if found.st_size > MAX_METADATA_BYTES:
        raise _RefusedError(f"{file.name} has {_size(found.st_size)}, more than {_size(MAX_METADATA_BYTES)}")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except RecursionError:
        raise _RefusedError(f"{file.name} is nested too deeply") from None
    except ValueError as error:
        raise _RefusedError(f"{file.name} is damaged ({error})") from None


def check_blosc(file: Path) -> None:
    """Refuse a chunk that is shorter or longer than its Blosc header says.

    Blosc believes the header: from a chunk that is cut short it returns what lies behind it in memory.

    Raises
    ------
    ValueError
        The chunk is not whole.
    OSError
        It cannot be read.
    """
    with file.open("rb") as stream:
        head = stream.read(_BLOSC_HEADER)
        size = os.fstat(stream.fileno()).st_size
    stored = int.from_bytes(head[12:16], "little")
    if len(head) < _BLOSC_HEADER or stored != size:
        raise _RefusedError(f"its chunk {file.name} is damaged ({size} of {stored} bytes are there)")
    if (decoded := int.from_bytes(head[4:8], "little")) > MAX_CHUNK_BYTES:
        raise _RefusedError(f"its chunk {file.name} has {_size(decoded)}, more than {_size(MAX_CHUNK_BYTES)}")


class _RefusedError(ValueError):
    """Why a folder is not opened."""


@dataclass
class _Store:
    """One walk over a folder: what of it was counted so far."""

    root: Path
    whole: bool
    metadata_only: bool
    nodes: int = 0
    declared: int = 0
    stored: int = 0

    def walk(self) -> None:
        """Look at every file of the folder, metadata before what lies beside it."""
        waiting = [(str(self.root), 0, False)]
        while waiting:
            folder, depth, blosc = waiting.pop()
            if depth > MAX_DEPTH:
                raise _RefusedError(f"its folders are nested more than {MAX_DEPTH} deep")
            array = self._node(Path(folder))
            if array is not None and self.metadata_only:
                continue
            blosc |= array is not None and array.blosc and self.whole
            with os.scandir(folder) as entries:
                waiting += [
                    (entry.path, depth + 1, blosc) for entry in entries if self._is_folder(entry, blosc)
                ]

    def weigh(self) -> None:
        """Refuse what would take far more memory than its files explain."""
        if self.declared > max(_FREE_BYTES, self.stored * _MAX_RATIO):
            raise _RefusedError(
                f"its arrays would take {_size(self.declared)} of memory, "
                f"and only {_size(self.stored)} are stored"
            )

    def _is_folder(self, entry: os.DirEntry[str], blosc: bool) -> bool:
        if entry.is_dir(follow_symlinks=False):
            return True
        if not entry.is_file(follow_symlinks=False):
            kind = "a link" if entry.is_symlink() else "no regular file"
            raise _RefusedError(f"{Path(entry.path).relative_to(self.root).as_posix()} is {kind}")
        if self.whole:
            self.stored += entry.stat(follow_symlinks=False).st_size
        if blosc and not entry.name.startswith(".") and entry.name not in METADATA:
            check_blosc(Path(entry.path))
        return False

    def _node(self, folder: Path) -> _Array | None:
        """Check the metadata in a folder, and return the array that it is."""
        name = folder.relative_to(self.root).as_posix()
        array = None
        for file in METADATA:
            try:
                found = read_metadata(folder / file)
            except FileNotFoundError:
                continue
            except NotADirectoryError:
                raise _RefusedError("it is no folder") from None
            except _RefusedError as refused:
                raise _RefusedError(f"{refused} (in {name})" if name != "." else str(refused)) from None
            try:
                array = self._metadata(file, found, name, folder) or array
            except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
                why = error if isinstance(error, _RefusedError) else f"{file} is damaged ({error!r})"
                raise _RefusedError(f"{why} (in {name})" if name != "." else str(why)) from None
        return array

    def _metadata(self, file: str, found: Any, name: str, folder: Path | None) -> _Array | None:
        """Check the content of one metadata file; `folder` is None for what is consolidated."""
        if not isinstance(found, Mapping):
            raise _RefusedError(f"{file} is damaged")
        if not found:  # which is nothing to zarr
            return None
        if file == ".zattrs":
            _check_paths(found)
            return None
        if file == ".zmetadata":
            for key, inner in _mapping(found, "metadata").items():
                *parts, last = key.split("/")
                _check_key(parts)
                if last in (".zarray", ".zgroup", ".zattrs"):
                    self._metadata(last, inner, "/".join(parts), None)
            return None
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise _RefusedError(f"it has more than {MAX_NODES} groups and arrays")
        version = 3 if file == "zarr.json" else 2
        if found.get("zarr_format") != version:
            raise _RefusedError(f"{file} is of zarr format {found.get('zarr_format')!r:.20}, not {version}")
        if file == ".zgroup":
            return None
        if version == 3:
            _check_paths(_mapping(found, "attributes"))
            consolidated = found.get("consolidated_metadata") or {}
            for key, inner in _mapping(consolidated, "metadata").items():
                _check_key(key.split("/"))
                self._metadata("zarr.json", inner, key, None)
            if found.get("node_type") == "group":
                return None
        array = _v3_array(found) if version == 3 else _v2_array(found)
        _check_sizes(array, folder)
        if folder is not None and not array.kept_whole:
            self.declared += array.nbytes
        return array


@dataclass
class _Array:
    """What counts of an array's metadata; `chunks` are of shards where there are any."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    itemsize: int
    plain: bool
    blosc: bool
    kept_whole: bool = False

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.itemsize


def _v2_array(found: Mapping[str, Any]) -> _Array:
    filters = [_codec_name(codec, "id") for codec in found.get("filters") or ()]
    compressor = found.get("compressor")
    codecs = [*filters, *([_codec_name(compressor, "id")] if compressor is not None else [])]
    dtype = found["dtype"]
    if dtype == "|O":
        if filters != [_TEXT]:
            raise _RefusedError(
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
        raise _RefusedError("its order or the names of its chunks are unknown")
    _check_fill(found.get("fill_value"))
    shape, chunks = _lengths(found["shape"]), _lengths(found["chunks"], least=1)
    return _Array(shape, chunks, itemsize, plain=not codecs, blosc=codecs[-1:] == ["blosc"])


def _v2_itemsize(dtype: Any) -> int:
    if not isinstance(dtype, str) or not _V2_TYPE.fullmatch(dtype):
        raise _RefusedError(f"it has data of the type {_shown(dtype)}")
    kind, size = dtype.lstrip("<>|=")[0], int(re.findall(r"\d+", dtype)[0])
    return size * 4 if kind == "U" else size


def _v3_array(found: Mapping[str, Any]) -> _Array:
    if found.get("node_type") != "array":
        raise _RefusedError(f"it is of the kind {_shown(found.get('node_type'))}")
    if found.get("storage_transformers"):
        raise _RefusedError("it has storage transformers")
    grid, keys = found["chunk_grid"], found["chunk_key_encoding"]
    if grid["name"] != "regular":
        raise _RefusedError(f"it has a chunk grid of the kind {_shown(grid['name'])}")
    separator = (keys.get("configuration") or {}).get("separator", "/")
    if keys["name"] not in ("default", "v2") or separator not in (".", "/"):
        raise _RefusedError("the names of its chunks are of an unknown kind")
    dtype = found["data_type"]
    chunks = _lengths(grid["configuration"]["chunk_shape"], least=1)
    plain = _check_v3_codecs(found["codecs"], chunks, text=dtype == "string")
    _check_fill(found.get("fill_value"))
    last = _codec_name(found["codecs"][-1], "name")
    return _Array(_lengths(found["shape"]), chunks, _v3_itemsize(dtype), plain, blosc=last.endswith("blosc"))


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
    raise _RefusedError(f"it has data of the type {_shown(dtype)}")


def _check_v3_codecs(codecs: Any, chunks: tuple[int, ...], text: bool, depth: int = 0) -> bool:
    """Check a list of codecs, shards and what is in them too; says whether chunks are stored as they are."""
    plain = True
    if not isinstance(codecs, list) or not 0 < len(codecs) <= 16 or depth > 2:
        raise _RefusedError("its list of codecs is damaged")
    for codec in codecs:
        name = codec if isinstance(codec, str) else _codec_name(codec, "name")
        if name == _SHARDING:
            settings = codec["configuration"]
            inner = _lengths(settings["chunk_shape"], least=1)
            if len(inner) != len(chunks) or any(n % m for n, m in zip(chunks, inner, strict=True)):
                raise _RefusedError(f"its shards of {chunks} do not hold whole chunks of {inner}")
            if math.prod(chunks) // math.prod(inner) > _MAX_CHUNKS:
                raise _RefusedError(f"one of its shards has more than {_MAX_CHUNKS} chunks")
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
        raise _RefusedError("its list of codecs is damaged")
    return name


def _allow(codecs: Iterable[str], known: set[str]) -> None:
    for name in codecs:
        if name not in known:
            raise _RefusedError(
                f"it is stored with the codec {_shown(name)}, which is not on the list of safe ones"
            )


def _lengths(values: Any, least: int = 0) -> tuple[int, ...]:
    if not isinstance(values, list) or len(values) > 16:
        raise _RefusedError("its shape is damaged")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**62:
            raise _RefusedError(f"its shape has the length {_shown(value)}")
    return tuple(values)


def _check_sizes(array: _Array, folder: Path | None) -> None:
    if len(array.shape) != len(array.chunks):
        raise _RefusedError(f"its shape {array.shape} and its chunks {array.chunks} do not fit together")
    if math.prod(array.shape) > _MAX_ELEMENTS:
        raise _RefusedError(f"its shape {array.shape} has more than {_MAX_ELEMENTS} elements")
    if math.prod(math.ceil(n / m) for n, m in zip(array.shape, array.chunks, strict=True)) > _MAX_CHUNKS:
        raise _RefusedError(f"it has more than {_MAX_CHUNKS} chunks")
    chunk = math.prod(array.chunks) * array.itemsize
    array.kept_whole = array.plain and folder is not None and _is_there(folder, len(array.shape), chunk)
    if chunk > MAX_CHUNK_BYTES and not array.kept_whole:
        raise _RefusedError(f"one of its chunks has {_size(chunk)}, more than {_size(MAX_CHUNK_BYTES)}")


def _is_there(folder: Path, dimensions: int, size: int) -> bool:
    """Say whether the first chunk of an array is there with every byte, as those of mapped galleries are."""
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
        raise _RefusedError(f"its fill value {_shown(value)} is no number or text")


def _check_key(parts: Iterable[str]) -> None:
    if any(part in ("..", ".") or "\\" in part for part in parts):
        raise _RefusedError(f"the key {_shown('/'.join(parts))} leads out of it")


def _check_paths(attributes: Mapping[str, Any]) -> None:
    """Refuse paths in the attributes of OME-Zarr that lead out of the folder."""
    inner = attributes.get("ome", attributes)
    if isinstance(inner, Mapping):
        for name in _paths([inner.get(key) for key in _OF_PATHS]):
            parts = PurePosixPath(name).parts
            if ".." in parts or name.startswith("/") or "\\" in name or ":" in name:
                raise _RefusedError(f"the path {_shown(name)} in its attributes leads out of it")


def _paths(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            if isinstance(value.get("path"), str):
                yield value["path"]
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _mapping(found: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = found.get(key) or {}
    if not isinstance(value, Mapping):
        raise _RefusedError(f"its {key} are damaged")
    return value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _size(count: int) -> str:
    return f"{count / 2**30:,.1f} GB" if count >= 2**30 else f"{count / 2**20:,.1f} MB"
