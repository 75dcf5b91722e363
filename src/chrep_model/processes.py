"""Start Python processes that import nothing from the current folder.

``python -m NAME`` and ``python -c CODE`` search the current folder first, so that a file ``h5py.py`` in a
downloaded data set would run as soon as a command is used in that folder. Therefore all processes of this
project are started by this module: with ``-P`` and ``PYTHONSAFEPATH``, and without entries of ``PYTHONPATH``
that mean the current folder (an empty entry does). The option ``-I`` is not used, because it would also leave
out other entries and the user's own site-packages, where this package may be installed.
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

# numba reads .numba_config.yaml in the current folder. It may name a folder of compiled functions, which
# are pickles, and a driver to load. An environment variable, even an empty one, overrides it.
_NUMBA = {"NUMBA_CACHE_DIR": "", "NUMBA_CUDA_DRIVER": ""}


def python_command(module: str, *arguments: str | os.PathLike[str]) -> list[str]:
    """Return the command line that runs a module in a new Python process."""
    return [sys.executable, "-P", "-m", module, *(os.fspath(argument) for argument in arguments)]


def child_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a child process that must not import from the current folder.

    Parameters
    ----------
    more : mapping of str to str, optional
        Further variables to set.
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
    # This interpreter runs a module of this project; no shell reads the arguments.
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
        Dotted name of the module.
    *arguments : str or path
        Arguments of its command line.
    environment : mapping of str to str, optional
        Variables to set in addition to those of this process.
    **options
        Options of `subprocess.Popen`.
    """
    command = python_command(module, *arguments)
    return subprocess.Popen(command, env=child_environment(environment), **options)  # noqa: S603


@contextmanager
def spawning() -> Iterator[SpawnContext]:
    """Yield a `multiprocessing` context for new processes that import nothing from the current folder.

    Within the ``with`` block this also holds for processes that libraries start, such as the workers of dask.
    Later imports in such a process use the ``sys.path`` of this one.
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
    """Stop importing from the current folder, in this process and in all child processes.

    To be called at the start of a program. Only entries that ``-m``, ``-c`` or ``PYTHONPATH`` put before the
    standard library are removed from ``sys.path``, and not the folder from which this package was imported.
    """
    _set_environment()
    try:
        here = Path.cwd()
    except FileNotFoundError:  # the folder was deleted, so nothing can be imported from it
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
