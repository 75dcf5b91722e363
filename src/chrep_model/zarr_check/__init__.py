"""Safe opening of zarr folders of unknown origin: they are checked first, so that no file in them runs code.

The metadata of a zarr name the codecs that decode its chunks, and some codecs run code (pickle) or fill the
memory. `check_zarr` walks a folder and only allows codecs and types that images and tables use. All code of
this project opens zarr folders with `open_group` or `read_table`.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from chrep_model.errors import ChrepError
from chrep_model.zarr_check.arrays import (
    Array,
    DamagedError,
    RefusedError,
    check_blosc,
    check_sizes,
    more_than,
    shown,
    size_text,
    v2_array,
    v3_array,
)

if TYPE_CHECKING:
    import zarr
    from anndata import AnnData
    from spatialdata import SpatialData

METADATA = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")
"""Names of zarr's metadata files."""

MAX_METADATA_BYTES = 16 * 2**20
MAX_NODES = 20_000
MAX_DEPTH = 32
# Largest ratio of decoded to stored bytes in a store that is read into memory, and decoded bytes that are
# always allowed, because constant columns compress to almost nothing.
_MAX_RATIO, _FREE_BYTES = 1100, 256 * 2**20

_REMEDY = (
    "Do not open it with other programs unless you trust where it came from; write or download it again."
)

_CHUNK = re.compile(r"(c\.)?\d+(\.\d+)*|c")
_OF_PATHS = ("multiscales", "plate", "well")


def open_group(
    path: Path, error: type[ChrepError], *, whole: bool = True, metadata_only: bool = False
) -> zarr.Group:
    """Check that a zarr folder is safe, and open its group for reading.

    Parameters
    ----------
    path, error, whole, metadata_only
        See `check_zarr`.

    Raises
    ------
    ChrepError
        An error of type `error`: see `check_zarr`; or the folder is not a group.
    OSError
        The folder cannot be read.
    """
    import zarr

    check_zarr(path, error, whole=whole, metadata_only=metadata_only)
    # Consolidated metadata may be out of date, as elements are added to and removed from SpatialData stores.
    return zarr.open_group(path, mode="r", use_consolidated=False)


def read_table(path: Path, error: type[ChrepError]) -> AnnData:
    """Check that a zarr folder is safe, and read it as AnnData; raises like `open_group`."""
    import anndata

    return anndata.read_zarr(open_group(path, error))


def read_spatialdata(path: Path, error: type[ChrepError]) -> SpatialData:
    """Check that a zarr folder is safe, and open it as SpatialData, whose images are read lazily.

    Raises like `open_group`; ImportError if the package spatialdata is not installed.
    """
    import spatialdata

    check_zarr(path, error, whole=False)
    return spatialdata.read_zarr(path)


def check_zarr(
    path: Path, error: type[ChrepError], *, whole: bool = True, metadata_only: bool = False
) -> None:
    """Check that a zarr folder (version 2 or 3) is safe to open, by its metadata and the types of its files.

    Parameters
    ----------
    path : Path
        The folder.
    error : type
        Type of `ChrepError` to raise.
    whole : bool
        Whether the folder will be read into memory as a whole; its decoded size is then compared with the
        size of its files.
    metadata_only : bool
        Whether only metadata will be read; chunks are then not checked, which is fast.

    Raises
    ------
    ChrepError
        An error of type `error`, for codecs, filters, data types or fill values that are not allowed, sizes
        beyond the limits, links, pipes and devices, paths that lead out of the folder, or metadata that
        cannot be read.
    OSError
        The folder cannot be read.
    """
    try:
        store = _Store(Path(path), whole and not metadata_only, metadata_only)
        store.walk()
        if store.whole:
            store.weigh()
    except DamagedError as damage:
        remedy = "Copy or download the folder again."
        raise error(f"this zarr folder is damaged: {damage}", path=path, remedy=remedy) from None
    except RefusedError as refused:
        raise error(f"this zarr folder is not opened: {refused}", path=path, remedy=_REMEDY) from None


def read_metadata(file: Path) -> Any:
    """Read a metadata file of zarr: JSON in a regular file of at most 16 MiB.

    Raises
    ------
    ValueError
        The file is not such a file.
    OSError
        The file cannot be read.
    """
    found = file.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise RefusedError(f"{file.name} is no regular file")
    if found.st_size > MAX_METADATA_BYTES:
        raise RefusedError(f"{file.name} has {more_than(found.st_size, MAX_METADATA_BYTES)}")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except RecursionError:
        raise RefusedError(f"{file.name} is nested too deeply") from None
    except ValueError as error:
        raise DamagedError(f"{file.name} cannot be read ({error})") from None


@dataclass
class _Store:
    """State of one walk over a folder: nodes, declared bytes and stored bytes so far."""

    root: Path
    whole: bool
    metadata_only: bool
    nodes: int = 0
    declared: int = 0
    stored: int = 0

    def walk(self) -> None:
        """Check every file of the folder, and metadata before other files."""
        waiting = [(str(self.root), 0, False)]
        while waiting:
            folder, depth, blosc = waiting.pop()
            if depth > MAX_DEPTH:
                raise RefusedError(f"its folders are nested more than {MAX_DEPTH} deep")
            array = self._node(Path(folder))
            if array is not None and self.metadata_only:
                continue
            blosc |= array is not None and array.blosc and self.whole
            with os.scandir(folder) as entries:
                waiting += [
                    (entry.path, depth + 1, blosc) for entry in entries if self._is_folder(entry, blosc)
                ]

    def weigh(self) -> None:
        """Check that arrays do not decode to far more bytes than their files can hold."""
        if self.declared > max(_FREE_BYTES, self.stored * _MAX_RATIO):
            raise RefusedError(
                f"its arrays would take {size_text(self.declared)} of memory, "
                f"and only {size_text(self.stored)} are stored"
            )

    def _is_folder(self, entry: os.DirEntry[str], blosc: bool) -> bool:
        if entry.is_dir(follow_symlinks=False):
            return True
        if not entry.is_file(follow_symlinks=False):
            kind = "a link" if entry.is_symlink() else "no regular file"
            raise RefusedError(f"{Path(entry.path).relative_to(self.root).as_posix()} is {kind}")
        if self.whole:
            self.stored += entry.stat(follow_symlinks=False).st_size
        if blosc and _CHUNK.fullmatch(entry.name):
            check_blosc(Path(entry.path))
        return False

    def _node(self, folder: Path) -> Array | None:
        """Check the metadata in a folder; return its array, or None if it is not an array."""
        name = folder.relative_to(self.root).as_posix()
        array = None
        where = "" if name == "." else f" (in {name})"
        for file in METADATA:
            try:
                array = self._metadata(file, read_metadata(folder / file), name, folder) or array
            except FileNotFoundError:
                continue
            except NotADirectoryError:
                raise RefusedError("it is no folder") from None
            except RefusedError as refused:
                raise type(refused)(f"{refused}{where}") from None
            except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
                raise DamagedError(f"{file} cannot be understood ({error!r}){where}") from None
        return array

    def _metadata(self, file: str, found: Any, name: str, folder: Path | None) -> Array | None:
        """Check the content of one metadata file; `folder` is None for consolidated metadata."""
        if not isinstance(found, Mapping):
            raise DamagedError(f"{file} is no list of names and values")
        if not found:  # zarr ignores empty metadata
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
            raise RefusedError(f"it has more than {MAX_NODES} groups and arrays")
        version = 3 if file == "zarr.json" else 2
        if found.get("zarr_format") != version:
            raise RefusedError(f"{file} is of zarr format {found.get('zarr_format')!r:.20}, not {version}")
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
        array = v3_array(found) if version == 3 else v2_array(found)
        check_sizes(array, folder)
        if folder is not None and not array.kept_whole:
            self.declared += array.nbytes
        return array


def _check_key(parts: Iterable[str]) -> None:
    if any(part in ("..", ".") or "\\" in part for part in parts):
        raise RefusedError(f"the key {shown('/'.join(parts))} leads out of it")


def _check_paths(attributes: Mapping[str, Any]) -> None:
    """Check that no path in the attributes of OME-Zarr leads out of the folder."""
    inner = attributes.get("ome", attributes)
    if isinstance(inner, Mapping):
        for name in _paths([inner.get(key) for key in _OF_PATHS]):
            parts = PurePosixPath(name).parts
            if ".." in parts or name.startswith("/") or "\\" in name or ":" in name:
                raise RefusedError(f"the path {shown(name)} in its attributes leads out of it")


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
        raise RefusedError(f"its {key} are damaged")
    return value
