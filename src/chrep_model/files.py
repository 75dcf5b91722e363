"""Write files and folders so that they exist either complete or not at all."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from chrep_model.errors import PredictionError

_REMEDY = "Choose another folder, or see that this one can be written and has room."

_TRIES, _PAUSE_S = 20, 0.05

# The HDF5 library tells a full disk as a RuntimeError that has the system's number in its text.
_ERRNO = re.compile(r"errno = (\d+)")


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; after writing, it is synced and replaces `target`.

    Parameters
    ----------
    target : Path
        A file, or a folder (of a zarr store); an older one is replaced at the end.

    Raises
    ------
    PredictionError
        The disk is full, or the folder cannot be written; nothing is left behind, an older target stays.
    """
    part = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        _remove(part)
        yield part
        sync(part)
        swap(part, target)
    except OSError as error:
        raise unwritable(target, error) from error
    except RuntimeError as error:
        if (number := _ERRNO.search(str(error))) is None:
            raise
        code = int(number[1])
        raise unwritable(target, OSError(code, os.strerror(code))) from error
    finally:
        _remove(part)


def make_writable(folder: Path) -> None:
    """Create a folder, and check that files can be written there, before hours of work.

    Raises
    ------
    PredictionError
        It cannot be made, or nothing can be written in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise unwritable(folder, error) from error


def unwritable(path: Path, error: OSError) -> PredictionError:
    """Return a PredictionError for an error of the operating system while writing."""
    reason = error.strerror or str(error)
    return PredictionError(f"cannot be written ({reason})", path=path, remedy=_REMEDY)


def _remove(path: Path) -> None:
    if path.is_dir():
        for _ in range(_TRIES):  # when one of zarr's threads has failed, the others may still be writing
            shutil.rmtree(path, ignore_errors=True)
            if not path.exists():
                return
            time.sleep(_PAUSE_S)
    else:
        with suppress(OSError):
            path.unlink()


def sync(path: Path) -> None:
    """Bring a file, or all files of a folder, from the system's memory to the disk."""
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file():
            _sync_one(file)


def swap(new: Path, target: Path) -> None:
    """Put a file or folder in the place of `target`; an old folder goes only after the new one is there."""
    if not target.is_dir():
        new.replace(target)
    else:
        old = target.with_name(f".{target.name}.{os.getpid()}.old")
        target.rename(old)
        try:
            new.rename(target)
        except OSError:
            old.rename(target)
            raise
        shutil.rmtree(old, ignore_errors=True)
    _sync_one(target.parent)


def _sync_one(path: Path) -> None:
    with suppress(PermissionError):  # a folder cannot be opened on Windows, and need not be
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
