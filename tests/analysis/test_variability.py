"""Moran's I of predicted maps, computed by a second process."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest

from chrep_model.analysis import variability as module
from chrep_model.analysis.variability import MOST_TILES, morans_i, some_of, variability
from chrep_model.errors import Cancelled, PredictionError
from chrep_model.progress import Progress


def test_by_hand():
    """Squares 0 0 / 1 1: each tile has one neighbour like it and one unlike it; of stripes all are alike."""
    rows, cols = np.divmod(np.arange(64), 8)
    places = np.stack([rows, cols], axis=1)
    checkers = (rows + cols) % 2
    halves = rows >= 4
    even = np.ones(64)
    values = np.stack([checkers, halves, even], axis=1).astype(np.float32)
    chess, regions, none = morans_i(places, values)
    assert chess == pytest.approx(-1.0)
    # Of each half, 24 tiles have only neighbours like them; 6 on the border one of 4 unlike, 2 one of 3.
    by_hand = (2 * 24 + 2 * 6 * (3 - 1) / 4 + 2 * 2 * (2 - 1) / 3) / 64
    assert regions == pytest.approx(by_hand)
    assert np.isnan(none)


@pytest.mark.slow
def test_it_is_what_squidpy_says_of_the_exported_table(prediction):
    import squidpy

    parts = list(variability(prediction))
    genes = tuple(gene for part in parts for gene in part.genes)
    assert genes == prediction.genes
    table = prediction.to_anndata(genes[:5])
    table.obsm["spatial"] = table.obs[["row", "col"]].to_numpy()
    squidpy.gr.spatial_neighbors(table, coord_type="grid", n_neighs=4)
    squidpy.gr.spatial_autocorr(table, layer="calibrated", mode="moran")
    expected = table.uns["moranI"]["I"][list(genes[:5])]
    np.testing.assert_allclose(parts[0].moran[:5], expected, rtol=1e-4)
    few = prediction.only(prediction.indices[:7])
    assert list(variability(few)) == []


def test_it_ends_when_asked_to_and_leaves_no_process(prediction, monkeypatch):
    started = []
    popen = subprocess.Popen

    def start(*args, **more):
        started.append(popen(*args, **more))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    with pytest.raises(Cancelled):
        next(variability(prediction, progress=Progress(cancelled=lambda: bool(started))))
    assert started[0].returncode is not None
    monkeypatch.setattr(module.sys, "executable", shutil.which("false"))
    with pytest.raises(PredictionError, match="ended early"):
        next(variability(prediction))


def test_blocks_from_all_over_speak_for_a_large_prediction():
    cols = 200
    indices = np.random.default_rng(1).permutation(120 * cols)
    chosen = some_of(indices, cols)
    assert 0.9 * MOST_TILES < len(chosen) <= MOST_TILES
    assert len(set(chosen)) == len(chosen) and set(chosen) <= set(indices)
    np.testing.assert_array_equal(np.sort(chosen), np.sort(some_of(indices[::-1], cols)))
    to_the_right = np.isin(chosen + 1, chosen).mean()
    assert to_the_right > 0.9
    rows = chosen // cols
    assert rows.min() < 30 and rows.max() > 90
    assert len(some_of(indices[:50], cols)) == 50
