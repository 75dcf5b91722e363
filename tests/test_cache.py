"""What is kept on the computer, and what is forgotten."""

import os
from pathlib import Path

import numpy as np
import pytest
import zarr

from chrep_model.cache import default_cache, trim_cache


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("CHREP_CACHE", str(tmp_path))
    assert default_cache() == tmp_path
    monkeypatch.delenv("CHREP_CACHE")
    assert default_cache().name == "chrep"


@pytest.fixture
def cache(tmp_path):
    """Three stores of 4,000 bytes and more, the first the one that was not used for longest; and a file."""
    for age, name in enumerate(("new", "older", "oldest")):
        group = zarr.open_group(tmp_path / name, mode="a")
        group.create_array("grid", data=np.random.default_rng(0).random(500), compressors=None)
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    (tmp_path / "rates.json").write_text("{}")
    return tmp_path


def kept(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir()}


def test_the_longest_unused_goes_first(cache):
    trim_cache(cache, 20_000)
    assert kept(cache) == {"new", "older", "oldest", "rates.json"}
    trim_cache(cache, 11_000)
    assert kept(cache) == {"new", "older", "rates.json"}
    trim_cache(cache, 100)
    assert kept(cache) == {"rates.json"}
    trim_cache(cache / "not there", 100)
