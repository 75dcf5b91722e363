"""``chrep tune``: what it measures is kept for later predictions."""

from __future__ import annotations

import json

import pytest

from chrep_model.bundle import load_bundle
from chrep_model.calibration import index, index_making
from chrep_model.encoders import tuning
from chrep_model.methods import base
from chrep_model.prediction import indexes


def test_the_command_measures_the_encoder_of_a_bundle(bundle, tmp_path, monkeypatch, chrep):
    monkeypatch.setenv("CHREP_CACHE", str(tmp_path))
    monkeypatch.setattr(tuning, "SIZES", (2, 4))
    done = chrep("tune", "-b", bundle, "--device", "cpu")
    assert done.code == 0
    assert "cannot be compiled here: stainbank has no compiled form" in done.out
    kept = tuning.tuning_of(load_bundle(bundle).encoder("cpu"), tmp_path)
    assert kept is not None
    assert f"kept for later predictions: {kept.batch_size} tiles at a time\n" in done.out


@pytest.mark.slow
def test_a_large_gallery_gets_an_index(bundle, tmp_path, monkeypatch, chrep):
    pytest.importorskip("faiss")
    monkeypatch.setenv("CHREP_CACHE", str(tmp_path))
    monkeypatch.setattr(tuning, "SIZES", (2,))
    monkeypatch.setattr(index_making, "LARGE", 10)
    monkeypatch.setattr(base, "REACH", 10)
    clock = iter([1.0, *[0.1] * 20])
    monkeypatch.setattr(index_making, "_timed", lambda work: (work(), next(clock)))
    done = chrep("tune", "-b", bundle, "--device", "cpu")
    assert done.code == 0
    made = indexes.kept(load_bundle(bundle), tmp_path)
    assert (
        f"an index of {made.rows} gallery spots, which finds {made.recall:.1%} of the {made.k} nearest"
        in done.out
    )
    assert "10.0 times as fast as looking at all" in done.out

    monkeypatch.setattr(index_making, "_timed", lambda work: (work(), 1.0))
    assert "no index: to find 99% of the nearest" in chrep("tune", "-b", bundle, "--device", "cpu").out
    assert json.loads(chrep("tune", "-b", bundle, "--device", "cpu", "--json").out)["index"] is None

    monkeypatch.setattr(index, "available", lambda: False)
    done = chrep("tune", "-b", bundle, "--device", "cpu")
    assert 'with an index: pip install "napari-chrep[index]"' in done.out
