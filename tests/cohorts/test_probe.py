"""Files that would take the process down with them."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pytest

from chrep_model.cohorts import probe as probe_module
from chrep_model.cohorts.cohort import open_cohort
from chrep_model.cohorts.probe import probe
from chrep_model.errors import CohortError


@pytest.fixture
def h5py_that(monkeypatch, tmp_path: Path):
    """Let the probing process find an h5py that treats the file B.h5ad in its own way."""

    def install(treatment: str) -> None:
        fake = tmp_path / "fake"
        fake.mkdir()
        (fake / "h5py.py").write_text(
            "import os, time\n"
            "class Dataset: ...\n"
            "def File(path, mode):\n"
            "    if path.name == 'B.h5ad':\n"
            f"        {treatment}\n"
            "    raise OSError\n"
        )
        monkeypatch.setenv("PYTHONPATH", str(fake))

    return install


@pytest.fixture
def files(make_pair) -> list[Path]:
    return [make_pair(name)[1] for name in "ABC"]


@pytest.mark.skipif(sys.platform == "win32", reason="os.abort opens a dialog there")
def test_a_file_that_kills_its_reader_is_named(files, h5py_that):
    h5py_that("os.abort()")
    with pytest.raises(CohortError, match=r"B\.h5ad: this file is damaged: it ends the process"):
        probe(files)
    with pytest.raises(CohortError, match=r"B\.h5ad"):
        probe(files[1:])


def test_a_file_that_is_never_read_to_its_end_is_named(files, h5py_that, monkeypatch):
    h5py_that("time.sleep(600)")
    start = time.monotonic()
    probe(files[:1])
    patience = 3 + 3 * (time.monotonic() - start)  # it has to start, however busy the machine
    monkeypatch.setattr(probe_module, "START_SECONDS", patience)
    said = rf"B\.h5ad: this file is damaged: it was not read in {patience:.0f} s"
    with pytest.raises(CohortError, match=said):
        probe(files)


def test_good_absent_and_merely_wrong_files_pass(files, tmp_path):
    files[1].write_bytes(b"no HDF5")
    start = time.monotonic()
    probe([*files, tmp_path / "absent.h5ad"])
    probe([])
    assert time.monotonic() - start < 20


@pytest.mark.slow
def test_no_flipped_bit_gets_past_opening(make_pair, tmp_path, monkeypatch):
    """Most are found, some change nothing that is read; none crashes, hangs, or shows another error."""
    monkeypatch.setattr(probe_module, "START_SECONDS", 5.0)
    _, h5ad = make_pair("A", folder=tmp_path / "cohort")
    whole = h5ad.read_bytes()
    refused = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 12):
            damaged[place] ^= 1 << int(rng.integers(8))
        h5ad.write_bytes(bytes(damaged))
        try:
            open_cohort(tmp_path / "cohort")
        except CohortError:
            refused += 1
    assert refused >= 6
