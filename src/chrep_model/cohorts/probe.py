"""Test reading of HDF5 files in another process, so that a damaged file cannot crash this one.

The HDF5 library trusts a file's metadata. A few wrong bits can make it loop forever or write to wrong memory,
which would crash the window or the training. So all files of a cohort are first read once by a small separate
process, which costs a fraction of a second. Errors that can be caught are ignored there, since reading the
file afterwards reports them better.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from chrep_model.errors import ChrepError, CohortError
from chrep_model.processes import run_python

START_SECONDS = 120.0
SLOWEST_BYTES_PER_SECOND = 5e6

_READY, _DONE = "ready", "done"


def probe(paths: Sequence[str | os.PathLike[str]]) -> None:
    """Read HDF5 files in another process; CohortError for one that crashes it or takes too long."""
    files = [Path(path).absolute() for path in paths if Path(path).is_file()]
    if not files:
        return
    patience = START_SECONDS + sum(file.stat().st_size for file in files) / SLOWEST_BYTES_PER_SECOND
    try:
        finished = run_python(
            __name__, *files, stdin=subprocess.DEVNULL, capture_output=True, timeout=patience
        )
        output, ended_well, how = finished.stdout, finished.returncode == 0, "ends the process that reads it"
    except subprocess.TimeoutExpired as expired:
        output, ended_well, how = expired.stdout or b"", False, f"was not read in {patience:.0f} s"
    except OSError:  # no process can be started: the files are read without this test
        return
    lines = output.decode(errors="replace").split()
    if ended_well or _READY not in lines:
        return
    culprit = files[min(lines.count(_DONE), len(files) - 1)]
    raise CohortError(
        f"this file is damaged: it {how}",
        path=culprit,
        remedy="Copy or download the file again, or write it again with anndata.",
    )


def _read_everything(path: Path) -> None:
    import h5py

    from chrep_model.cohorts.readers.hest import locate_unplaced
    from chrep_model.cohorts.readers.matrix import locate_h5
    from chrep_model.cohorts.tables.pieces import locate

    with h5py.File(path, "r") as file:
        waiting: list[Any] = []
        for pieces_of in (locate, locate_unplaced, locate_h5):  # all but the file's own format raise errors
            with suppress(ChrepError, AttributeError, KeyError, TypeError):
                waiting = list(pieces_of(file, path).values())
                break
        while waiting:
            node = waiting.pop()
            dict(node.attrs)
            if isinstance(node, h5py.Dataset):
                node[()]
            else:
                waiting += list(node.values())


def _main() -> None:
    _say(_READY)
    for name in sys.argv[1:]:
        # Errors that can be caught are reported when the file is read afterwards.
        with suppress(Exception):
            _read_everything(Path(name))
        _say(_DONE)


def _say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()  # before the next file can crash the process


if __name__ == "__main__":
    _main()
