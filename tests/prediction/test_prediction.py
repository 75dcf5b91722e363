"""How far to trust a prediction: intervals per gene and tile, likeness to the training tissue."""

from __future__ import annotations

import numpy as np
import pytest

from chrep_model.bundle import load_bundle
from chrep_model.cohorts.cohort import open_cohort
from chrep_model.errors import GeneError, SettingsError
from chrep_model.pipeline import TrainSettings, train
from chrep_model.prediction.prediction import Prediction
from chrep_model.prediction.predictor import Predictor
from chrep_model.slides.slide import open_slide


def test_intervals_are_the_model_s_for_every_tile(trusting):
    gene = trusting.genes[3]
    half = trusting.interval(gene)
    assert half.shape == (len(trusting),)
    assert half.dtype == np.float32
    trust, scale = trusting.bundle.trust, trusting.bundle.panel.sd[3]
    alone = trust.half_width(np.zeros((len(half), 1), np.float32), trusting.distance(), np.array([3]))
    np.testing.assert_allclose(half, alone[:, 0] * scale, rtol=1e-6)


def test_higher_levels_are_wider(trusting):
    widths = [trusting.interval(trusting.genes[0], level) for level in (0.5, 0.8, 0.9, 0.95)]
    assert (np.diff(widths, axis=0) >= 0).all()
    assert (widths[-1] > widths[0]).all()


def test_intervals_widen_away_from_the_training_tissue(trusting):
    half, distance = trusting.interval(trusting.genes[0]), trusting.distance()
    assert (np.diff(half[np.argsort(distance)]) >= 0).all()
    assert half.max() > half.min()


def test_intervals_that_cannot_be_had(trusting):
    with pytest.raises(GeneError):
        trusting.interval("NOSUCH")
    with pytest.raises(SettingsError, match=r"60%.*0\.9"):
        trusting.interval(trusting.genes[0], 0.6)


def test_the_training_slides_are_like_themselves(trusting):
    share = trusting.unlike()
    assert share.shape == (len(trusting),)
    assert ((share >= 0) & (share <= 1)).all()
    np.testing.assert_array_equal(share, trusting.bundle.trust.unlike(trusting.distance()))
    assert trusting.unlike_share() < 0.05
    assert not trusting.is_unlike


def test_a_slide_that_is_like_nothing_in_the_training(trusting_bundle, striped_slide, tmp_path):
    with open_slide(striped_slide, mpp=0.7) as slide:
        found = Predictor(load_bundle(trusting_bundle), device="cpu", cache_dir=tmp_path / "c").predict(slide)
    assert found.unlike_share() > 0.4
    assert found.is_unlike
    assert found.facts()["unlike_share"] == found.unlike_share()


def test_nothing_predicted_yet(trusting):
    empty = Prediction(trusting.bundle, trusting.grid, trusting.slide)
    assert empty.interval(trusting.genes[0]).shape == (0,)
    assert empty.unlike().shape == (0,)
    assert empty.unlike_share() == 0
    assert not empty.is_unlike


def test_a_model_that_does_not_say(tiny_cohort, tmp_path):
    """A ridge learns no intervals: nothing is made up, in the prediction or in what is exported."""
    settings = TrainSettings(method="ridge", tile_um=100, mpp=2.0, context_um=(), genes=5)
    ridge = train(
        open_cohort(tiny_cohort), settings, tmp_path / "r.chrep", device="cpu", cache=tmp_path / "c"
    )
    with open_slide(tiny_cohort / "SYNTHETIC_P1A.jpg", mpp=0.7) as slide:
        found = Predictor(ridge, device="cpu", cache_dir=tmp_path / "c").predict(slide)
    assert found.interval(found.genes[0]) is None
    assert found.unlike() is None
    assert found.unlike_share() is None
    assert not found.is_unlike
    table = found.to_anndata()
    assert list(table.layers) == ["raw"]
    assert "unlike_training" not in table.obs
    assert "accuracy" not in table.var
    assert "unlike_share" not in table.uns["chrep"]
