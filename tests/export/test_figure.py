"""The figure of one gene."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from chrep_model.errors import GeneError, PredictionError
from chrep_model.export.figure import draw_figure, write_figure
from chrep_model.prediction.prediction import Prediction


def panels(figure):
    return {ax.get_title(): ax for ax in figure.axes if ax.get_title()}


def maps(ax):
    return [image for image in ax.images if image.get_array().ndim == 2]


def test_panels_scales_and_words(prediction):
    figure = draw_figure(prediction, prediction.genes[0])
    drawn = panels(figure)
    assert list(drawn) == ["H&E", "raw", "calibrated", "calibrated − raw"]
    (raw,), (calibrated,), (difference,) = (maps(ax) for ax in list(drawn.values())[1:])
    assert raw.get_clim() == calibrated.get_clim()
    assert difference.get_clim()[0] == -difference.get_clim()[1]
    np.testing.assert_allclose(
        difference.get_array(), calibrated.get_array() - raw.get_array(), rtol=1e-5, atol=1e-6
    )
    words = " ".join(text.get_text() for text in figure.texts)
    for expected in (prediction.genes[0], "SYNTHETIC_P1A", "model tiny", "SYNTHETIC data"):
        assert expected in words
    assert any("µm" in text.get_text() for text in drawn["H&E"].texts)
    assert "log10-spot" in " ".join(ax.get_xlabel() for ax in figure.axes)


def test_maps_lie_on_their_tiles(prediction):
    """Half overlapping tiles: each value is a square of one step around its tile's centre."""
    ax = panels(draw_figure(prediction, prediction.genes[0]))["raw"]
    (drawn,) = maps(ax)
    left, right, bottom, top = drawn.get_extent()
    rows, cols = prediction.grid.shape
    x, y = prediction.grid.centres([1 * cols + 2])[0] * 0.7
    assert left + (right - left) * 2.5 / cols == pytest.approx(x)
    assert top + (bottom - top) * 1.5 / rows == pytest.approx(y)
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # y runs down, as in the slide


def test_a_method_with_one_variant(prediction, monkeypatch):
    monkeypatch.setattr(Prediction, "variants", ("raw",))
    assert list(panels(draw_figure(prediction, prediction.genes[0]))) == ["H&E", "raw"]


def test_png_is_a_picture(prediction, tmp_path):
    path = tmp_path / "gene.png"
    write_figure(prediction, prediction.genes[0], path)
    assert [p.name for p in tmp_path.iterdir()] == ["gene.png"]
    with Image.open(path) as image:
        assert image.width > 1500 and image.height > 500
        assert len(image.convert("RGB").getcolors(maxcolors=1 << 24)) > 1000


def test_unknown_gene_and_nothing_predicted(prediction):
    with pytest.raises(GeneError):
        draw_figure(prediction, "NOSUCH")
    with pytest.raises(PredictionError):
        draw_figure(Prediction(prediction.bundle, prediction.grid, prediction.slide), prediction.genes[0])
