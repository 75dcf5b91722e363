"""Safe access to untrusted HDF5 files: no links to other files, no datasets larger than the file can hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from chrep_model.errors import CohortError

# Largest plausible compression of counts (mostly zeros); more means a damaged or malicious file.
MAX_EXPANSION = 200
ALWAYS_ALLOWED_BYTES = 1 << 30


def member(group: Any, key: str, path: Path) -> Any:
    """Return a member of an HDF5 group, or None if there is none.

    Raises
    ------
    CohortError
        The member is a link to another place.
    """
    import h5py

    link = group.get(key, getlink=True)
    if link is None:
        return None
    if not isinstance(link, h5py.HardLink):
        raise CohortError(
            f"'{group.name.rstrip('/')}/{key}' is a link to another place, which is not followed",
            path=path,
            remedy="Write the file again with its data inside.",
        )
    return group[key]


def dataset(file: Any, key: str, path: Path) -> Any:
    """Return the dataset of a key such as ``matrix/data``, or None if there is none; errors as `member`."""
    import h5py

    node = file
    for part in key.split("/"):
        node = member(node, part, path) if isinstance(node, h5py.Group) else None
    return node if isinstance(node, h5py.Dataset) else None


def check_budget(pieces: Iterable[Any], path: Path) -> None:
    """Check that all datasets, also those inside groups, lie in this file and are no larger than it can hold.

    Raises
    ------
    CohortError
        Values are stored in other files, or are more than this file can plausibly hold.
    """
    seen: set[int] = set()
    declared = 0
    for part in (part for piece in pieces for part in _datasets(piece, seen, path)):
        if part.is_virtual or part.external:
            raise CohortError(
                f"'{part.name}' keeps its values in other files, which are not opened",
                path=path,
                remedy="Write the file again with its data inside.",
            )
        declared += int(part.size or 0) * part.dtype.itemsize
    size = path.stat().st_size
    if declared > max(ALWAYS_ALLOWED_BYTES, MAX_EXPANSION * size):
        raise CohortError(
            f"it declares {declared / 1e9:.1f} GB of values in a file of {size / 1e9:.3f} GB",
            path=path,
            remedy="It is damaged, or holds dense counts: write it again with sparse ones.",
        )


def _datasets(node: Any, seen: set[int], path: Path) -> Iterator[Any]:
    import h5py

    address = h5py.h5o.get_info(node.id).addr
    if address in seen:  # hard links can form cycles
        return
    seen.add(address)
    if isinstance(node, h5py.Dataset):
        yield node
        return
    for key in node:
        yield from _datasets(member(node, key, path), seen, path)
