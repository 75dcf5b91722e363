"""Write files and folders so that they exist either complete or not at all."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from chrep_model.errors import ChrepError, PredictionError

_WHAT = "cannot be written"
_REMEDY = "Choose another folder, or see that this one can be written and has room."

_TRIES, _PAUSE_S = 20, 0.05

# The HDF5 library reports a full disk as a RuntimeError with the system's error number in its text.
_ERRNO = re.compile(r"errno = (\d+)")


@contextmanager
def write_atomically(
    target: Path,
    error: type[ChrepError] = PredictionError,
    what: str = _WHAT,
    remedy: str = _REMEDY,
    *,
    about: Path | None = None,
    once: bool = False,
) -> Iterator[Path]:
    """Yield a temporary path beside `target`, which replaces `target` when it is completely written.

    Parameters
    ----------
    target : Path
        Path of a file, or of a folder (of a zarr store). A file never replaces a folder, nor a folder a file.
    error, what, remedy
        Class and text of the error, see `unwritable_as_error`.
    about : Path, optional
        Path in the error; by default `target`.
    once : bool
        Whether an existing folder at `target` is kept, because another process has written the same.

    Raises
    ------
    ChrepError
        The disk is full, or the folder cannot be written; an older target is kept, and the new one removed.
    """
    part = _beside(target, "partial")
    with unwritable_as_error(about or target, error, what, remedy):
        try:
            yield part
            sync(part)
            _replace(part, target, once)
        finally:
            _remove(part)


def make_writable(
    folder: Path,
    error: type[ChrepError] = PredictionError,
    what: str = _WHAT,
    remedy: str = _REMEDY,
    *,
    about: Path | None = None,
) -> None:
    """Create a folder, and check that files can be written in it, before long work starts.

    Parameters
    ----------
    folder : Path
        Folder to create, with its parents.
    error, what, remedy, about
        See `write_atomically`.

    Raises
    ------
    ChrepError
        The folder cannot be created, or no file can be written in it.
    """
    with unwritable_as_error(about or folder, error, what, remedy):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


@contextmanager
def unwritable_as_error(
    path: Path, error: type[ChrepError] = PredictionError, what: str = _WHAT, remedy: str = _REMEDY
) -> Iterator[None]:
    """Convert errors of the operating system while writing to a ChrepError for the user.

    Parameters
    ----------
    path : Path
        Path in the error.
    error : type
        Class of the error.
    what : str
        Text about the problem; the system's reason follows in brackets.
    remedy : str
        Text about what the user can do.
    """
    try:
        yield
    except (OSError, RuntimeError) as fault:
        if isinstance(fault, OSError):
            reason = fault.strerror or str(fault)
        elif number := _ERRNO.search(str(fault)):
            reason = os.strerror(int(number[1]))
        else:
            raise
        raise error(f"{what} ({reason})", path=path, remedy=remedy) from fault


def _beside(target: Path, ending: str) -> Path:
    """Return a hidden path in the folder of `target` that no other process or thread uses."""
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}.{ending}")


def sync(path: Path) -> None:
    """Write a file, or all files of a folder, from the system's memory to the disk."""
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file():
            _sync_one(file)


def _sync_one(path: Path) -> None:
    with suppress(PermissionError):  # Windows cannot open folders, and does not need to
        # Windows syncs only files that are open for writing.
        descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _replace(new: Path, target: Path, once: bool) -> None:
    """Replace `target` by a new file or folder; an old folder is removed only after the new one is there."""
    if once or not (new.is_dir() and target.is_dir()):
        try:
            new.replace(target)
        except OSError:
            if not (once and target.is_dir()):
                raise
    else:
        old = _beside(target, "old")
        target.rename(old)
        try:
            new.rename(target)
        except OSError:
            old.rename(target)
            raise
        shutil.rmtree(old, ignore_errors=True)
    _sync_one(target.parent)


def _remove(path: Path) -> None:
    if path.is_dir():
        for _ in range(_TRIES):  # after an error in one of zarr's threads, others may still be writing
            shutil.rmtree(path, ignore_errors=True)
            if not path.exists():
                return
            time.sleep(_PAUSE_S)
    else:
        with suppress(OSError):
            path.unlink()
