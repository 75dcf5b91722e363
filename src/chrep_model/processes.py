"""Start Python processes that import nothing from the current folder.

``python -m NAME`` and ``python -c CODE`` look into the current folder before anything else, so that a file
``h5py.py`` in a downloaded data set would run as soon as a command works in that folder. So every process of
this project is started from here: with ``-P`` and ``PYTHONSAFEPATH``, and without entries of ``PYTHONPATH``
that mean the current folder (an empty entry does). Its other entries, and the user's own site-packages, may
be where this package is installed; so ``-I``, which would leave them out, is not used.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import Any

_SAFE, _PATH = "PYTHONSAFEPATH", "PYTHONPATH"

# numba heeds .numba_config.yaml in the current folder. It may name a folder of compiled functions, which
# are pickles, and a driver to load. A variable, even an empty one, has the last word.
_NUMBA = {"NUMBA_CACHE_DIR": "", "NUMBA_CUDA_DRIVER": ""}


def python_command(module: str, *arguments: str | os.PathLike[str]) -> list[str]:
    """Return the command line that runs a module in a new Python process."""
    return [sys.executable, "-P", "-m", module, *(os.fspath(argument) for argument in arguments)]


def child_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for a child that must not import from the current folder.

    Parameters
    ----------
    more : mapping of str to str, optional
        Variables to set besides.
    """
    environment = {**_NUMBA, **os.environ, **(more or {}), _SAFE: "1"}
    entries = environment.pop(_PATH, "").split(os.pathsep)
    if kept := [entry for entry in entries if not _means_current_folder(entry)]:
        environment[_PATH] = os.pathsep.join(kept)
    return environment


def run_python(
    module: str, *arguments: str | os.PathLike[str], **options: Any
) -> subprocess.CompletedProcess[bytes]:
    """Run a module in a new process and wait for its end; `options` as for `subprocess.run`."""
    # Our own interpreter on our own module; the arguments are never seen by a shell.
    command = python_command(module, *arguments)
    return subprocess.run(command, env=child_environment(), check=False, **options)  # noqa: S603


def start_python(
    module: str,
    *arguments: str | os.PathLike[str],
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> subprocess.Popen[bytes]:
    """Start a module in a new process.

    Parameters
    ----------
    module : str
        Its dotted name.
    *arguments : str or path
        Its command line.
    environment : mapping of str to str, optional
        Variables to set besides those of this process.
    **options
        As for `subprocess.Popen`.
    """
    command = python_command(module, *arguments)
    return subprocess.Popen(command, env=child_environment(environment), **options)  # noqa: S603


@contextmanager
def spawning() -> Iterator[SpawnContext]:
    """Yield a `multiprocessing` context whose processes import nothing from the current folder.

    Inside of the ``with`` this holds for all processes that libraries start, such as the workers of dask.
    What such a process imports later it finds by the ``sys.path`` of this one.
    """
    before = {name: os.environ.get(name) for name in (_SAFE, _PATH, *_NUMBA)}
    _set_environment()
    try:
        yield multiprocessing.get_context("spawn")  # a forked torch or BLAS can hang
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def leave_out_current_folder() -> None:
    """Stop importing from the current folder, here and in all child processes.

    For the start of a program. Only what ``-m``, ``-c`` or ``PYTHONPATH`` put in front of the standard
    library is taken off ``sys.path``, and not the folder that this package was imported from.
    """
    _set_environment()
    try:
        here = Path.cwd()
    except FileNotFoundError:  # deleted meanwhile: nothing can be imported from it
        return
    library = str(Path(os.__file__).parent)
    in_front = sys.path[: sys.path.index(library)] if library in sys.path else sys.path
    own = Path(__file__).resolve().parents[1]
    sys.path[: len(in_front)] = [path for path in in_front if Path(path).resolve() != here or here == own]


def _set_environment() -> None:
    environment = child_environment()
    if _PATH not in environment:
        os.environ.pop(_PATH, None)
    os.environ.update(environment)


def _means_current_folder(entry: str) -> bool:
    return os.path.normpath(entry or os.curdir) == os.curdir
