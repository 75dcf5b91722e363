"""What maps there can be, and their colours."""

from __future__ import annotations

import numpy as np
import pytest

from chrep_model.analysis.signature import Signature
from chrep_model.bundle import load_bundle
from chrep_model.prediction.parts import PredictionPart
from chrep_model.prediction.prediction import Prediction, Preview
from chrep_model.prediction.predictor import Predictor
from chrep_model.slides.slide import open_slide
from napari_chrep.canvas.maps import (
    KINDS,
    MapMaker,
    MapSubject,
    limits_of_maps,
    main_kinds,
    shared_limits,
    symmetric_limits,
    why_unavailable,
)


@pytest.fixture
def prediction(tiny_cohort, bundle, tmp_path):
    slide = open_slide(tiny_cohort / "SYNTHETIC_P1A.jpg", mpp=0.7)
    return Predictor(bundle, device="cpu", cache_dir=tmp_path).predict(slide)


def test_shared_limits_are_robust_and_never_empty():
    values = np.linspace(0, 1, 1001, dtype=np.float32)
    values[-1] = 1000
    assert shared_limits([values[:500], values[500:]]) == pytest.approx((0.01, 0.99))
    assert shared_limits([np.full(4, np.nan, np.float32)]) == (0.0, 1.0)
    low, high = shared_limits([np.full(4, 2, np.float32)])
    assert low < 2 < high


def test_zero_is_in_the_middle_of_a_difference():
    values = np.linspace(-3, 1, 401, dtype=np.float32)
    values[0] = np.nan
    low, high = symmetric_limits(values)
    assert low == -high
    assert high == pytest.approx(2.96, abs=0.02)
    assert symmetric_limits(np.zeros(3, np.float32)) == (-0.5, 0.5)
    assert symmetric_limits(np.full(3, np.nan, np.float32)) == (-0.5, 0.5)


def test_only_raw_and_calibrated_share_their_limits():
    ramp = np.linspace(0, 1, 101, dtype=np.float32)
    maps = {"raw": ramp, "calibrated": ramp + 1, "difference": ramp, "interval": ramp, "unlike": ramp / 2}
    limits = limits_of_maps(maps)
    assert limits["raw"] == limits["calibrated"] == pytest.approx((0.02, 1.98), abs=0.02)
    assert limits["difference"] == pytest.approx((-0.99, 0.99))
    assert limits["interval"] == pytest.approx((0.01, 0.99))
    assert limits["unlike"] == (0, 1)


def test_why_a_model_lacks_a_map(bundle, trusting_bundle):
    trusting = load_bundle(trusting_bundle)
    silent = load_bundle(trusting_bundle)
    vars(silent)["trust"] = None  # as of a method that does not say
    assert all("model" in why_unavailable(kind, None, None) for kind in KINDS)
    assert [kind for kind in KINDS if why_unavailable(kind, bundle, None)] == ["signature", "first", "second"]
    assert [kind for kind in KINDS if why_unavailable(kind, trusting, None)] == [
        "calibrated",
        "difference",
        "signature",
        "first",
        "second",
    ]
    assert "calibrated" in why_unavailable("difference", trusting, None)
    assert "trust" in why_unavailable("interval", silent, None) and "trust" in why_unavailable(
        "unlike", silent, None
    )
    assert (
        main_kinds(bundle) == ("raw", "calibrated")
        and main_kinds(trusting) == ("raw",)
        and main_kinds(None) == ()
    )


def test_a_signature_is_only_computed_for_new_tiles(prediction):
    half = Prediction(prediction.bundle, prediction.grid, prediction.slide)
    signature = Signature.match("two", prediction.genes[:2], prediction.bundle.panel)
    subject, maker = MapSubject(half, prediction.genes[0], None, signature), MapMaker()
    for some in np.array_split(np.arange(len(prediction)), 3):
        rows = prediction.indices[some]
        response = {
            name: np.concatenate([prediction.response(int(index))[name] for index in rows])
            for name in prediction.response(int(rows[0]))
        }
        half.add(PredictionPart(rows, response))
        np.testing.assert_allclose(
            maker.maps(["signature"], subject)["signature"], half.on_grid(signature.values(half)), atol=1e-6
        )
    other = MapSubject(
        half, prediction.genes[0], None, Signature.match("one", prediction.genes[2:3], half.bundle.panel)
    )
    assert not np.allclose(
        maker.maps(["signature"], other)["signature"],
        maker.maps(["signature"], subject)["signature"],
        equal_nan=True,
    )


def test_a_long_computation_is_done_in_steps(prediction):
    subject, maker = MapSubject(prediction, prediction.genes[3], None, None), MapMaker()
    turns = 1
    while not maker.advance(["raw", "calibrated"], subject, most=7):
        turns += 1
    assert turns == -(-2 * len(prediction) // 7)
    maps = maker.maps(["raw", "difference"], subject)
    raw, calibrated = (prediction.map(prediction.genes[3], kind) for kind in ("raw", "calibrated"))
    np.testing.assert_allclose(maps["raw"], raw, atol=1e-6)
    np.testing.assert_allclose(maps["difference"], calibrated - raw, atol=1e-6)


def test_a_preview_shows_where_nothing_is_predicted(prediction):
    tiles, few = prediction.indices, Prediction(prediction.bundle, prediction.grid, prediction.slide)
    few.add(PredictionPart(tiles[:1], prediction.response(int(tiles[0]))))
    preview = Preview(few, tiles, np.zeros(len(tiles), np.int64))
    half = Prediction(prediction.bundle, prediction.grid, prediction.slide)
    for index in tiles[1:4]:
        half.add(PredictionPart(np.array([index]), prediction.response(int(index))))
    gene, maker = prediction.genes[0], MapMaker()
    shown = maker.maps(["calibrated"], MapSubject(half, gene, None, None, preview))["calibrated"].ravel()
    whole = prediction.map(gene).ravel()
    np.testing.assert_allclose(shown[tiles[1:4]], whole[tiles[1:4]], atol=1e-6)
    np.testing.assert_allclose(shown[tiles[4:]], whole[tiles[0]], atol=1e-6)
    alone = maker.maps(["calibrated"], MapSubject(half, gene, None, None))["calibrated"].ravel()
    assert np.isnan(alone[tiles[4:]]).all()
