"""``chrep tune``: what it measures is kept for later predictions."""

from __future__ import annotations

from chrep_model.bundle import load_bundle
from chrep_model.networks import tuning


def test_the_command_measures_the_encoder_of_a_bundle(bundle, tmp_path, monkeypatch, chrep):
    monkeypatch.setenv("CHREP_CACHE", str(tmp_path))
    monkeypatch.setattr(tuning, "SIZES", (2, 4))
    done = chrep("tune", "-b", bundle, "--device", "cpu")
    assert done.code == 0
    assert "cannot be compiled here: stainbank has no compiled form" in done.out
    kept = tuning.tuning_of(load_bundle(bundle).encoder("cpu"), tmp_path)
    assert kept is not None
    assert f"kept for later predictions: {kept.batch_size} tiles at a time\n" in done.out
