"""One gene over one slide as a picture: H&E, raw, calibrated and their difference side by side."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chrep_model.errors import PredictionError
from chrep_model.geometry import Rect
from chrep_model.inference.files import replacing
from chrep_model.inference.prediction import Prediction

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PERCENTILES = (1.0, 99.0)
"""Of all values of a gene, raw and calibrated together: what the common colour scale spans."""

EXPRESSION_COLOURS, DIFFERENCE_COLOURS = "viridis", "RdBu_r"

_PICTURE_PX = 1400
_DPI = 150
_FADED = 0.35
_UNITS = "log10-spot"
_GREY = "#555555"


def write_figure(prediction: Prediction, gene: str, path: Path) -> None:
    """Write `draw_figure` as PNG; the file appears when it is complete.

    Raises
    ------
    GeneError, PredictionError
        As in `draw_figure`, or the folder cannot be written.
    """
    figure = draw_figure(prediction, gene)
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=_DPI)


def draw_figure(prediction: Prediction, gene: str) -> Figure:
    """Draw one gene.

    Raw and calibrated share one perceptually uniform colour scale, so that they compare; the difference has
    its own with white at zero. Where nothing was predicted the faded slide shows.

    Parameters
    ----------
    prediction : Prediction
        With at least one tile.
    gene : str
        Which gene.

    Raises
    ------
    GeneError
        The model does not know the gene.
    PredictionError
        Nothing is predicted.
    """
    from matplotlib.figure import Figure

    if not len(prediction):
        raise PredictionError("nothing is predicted that could be drawn", path=prediction.slide.path)
    variants = tuple(dict.fromkeys(("raw", prediction.variants[-1])))
    maps = {variant: prediction.map(gene, variant) for variant in variants}
    view = _View(prediction)
    count = 1 + len(maps) + (len(maps) > 1)
    height = 4.1 * min(max(view.rect.height / view.rect.width, 0.45), 1.6)
    figure = Figure(figsize=(0.6 + 4.1 * count, height + 1.75), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.05, wspace=0.02)  # type: ignore[union-attr]
    axes = figure.subplots(1, count, squeeze=False)[0]
    view.slide(axes[0], faded=False)
    axes[0].set_title("H&E")
    _scale_bar(axes[0], view)
    limits = _limits(list(maps.values()))
    for ax, (variant, values) in zip(axes[1:], maps.items(), strict=False):
        drawn = _heatmap(ax, view, values, variant, EXPRESSION_COLOURS, limits)
        _colour_bar(figure, drawn, ax, f"expression ({_UNITS})")
    if len(maps) > 1:
        raw, trusted = maps.values()
        reach = _reach(trusted - raw)
        title = f"{variants[-1]} − raw"
        drawn = _heatmap(axes[-1], view, trusted - raw, title, DIFFERENCE_COLOURS, (-reach, reach))
        _colour_bar(figure, drawn, axes[-1], f"difference ({_UNITS})")
    _colour_bar(figure, None, axes[0], "")
    _titles(figure, prediction, gene)
    return figure


class _View:
    """The part of the slide that is drawn: the predicted tiles and a margin, in µm."""

    def __init__(self, prediction: Prediction) -> None:
        grid, slide = prediction.grid, prediction.slide
        self.mpp = slide.require_mpp()
        self.grid, self.source = grid, slide
        centres = grid.centres(prediction.indices)
        (x0, y0), (x1, y1) = centres.min(0) - grid.tile_px / 2, centres.max(0) + grid.tile_px / 2
        rows, cols = slide.shape
        margin = 0.02 * max(x1 - x0, y1 - y0)
        around = Rect(x0, y0, x1 - x0, y1 - y0).expanded(margin)
        self.rect = around.intersection(Rect(0, 0, cols, rows)) or around
        self.picture, self._picture_rect = self._read()

    def _read(self) -> tuple[NDArray[np.uint8], Rect]:
        """Pixels of the view, and the rectangle that they cover exactly."""
        from PIL import Image

        slide, longest = self.source, max(self.rect.width, self.rect.height)
        downsamples = [level.downsample for level in slide.levels]
        level = max((i for i, down in enumerate(downsamples) if longest / down >= _PICTURE_PX), default=0)
        down = downsamples[level]
        picture = None
        if longest / down > 4 * _PICTURE_PX:  # no coarse level here: not all of this at once
            picture, down = slide.thumbnail(round(_PICTURE_PX * max(slide.shape) / longest))
        top, left = math.floor(self.rect.y / down), math.floor(self.rect.x / down)
        height, width = math.ceil(self.rect.bottom / down) - top, math.ceil(self.rect.right / down) - left
        if picture is None:
            picture = slide.read(top, left, height, width, level=level)
        else:
            picture = picture[top : top + height, left : left + width]
        covered = Rect(left * down, top * down, picture.shape[1] * down, picture.shape[0] * down)
        pixels = Image.fromarray(picture)
        pixels.thumbnail((_PICTURE_PX, _PICTURE_PX), Image.Resampling.BOX)
        return np.asarray(pixels), covered

    def slide(self, ax: Axes, *, faded: bool) -> None:
        """Draw the slide; faded to light grey as a background."""
        pixels = self.picture
        if faded:
            grey = pixels.mean(axis=2, keepdims=True) / 255
            pixels = np.repeat((255 * (1 - _FADED * (1 - grey))).astype(np.uint8), 3, axis=2)
        ax.imshow(pixels, extent=self._um(self._picture_rect), interpolation="antialiased")
        left, right, bottom, top = self._um(self.rect)
        ax.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[])
        ax.spines[:].set_visible(False)

    def map_extent(self) -> tuple[float, float, float, float]:
        """Where the map of the tile grid lies: every value is a square around its tile's centre."""
        rows, cols = self.grid.shape
        step, start = self.grid.step_px, (self.grid.tile_px - self.grid.step_px) / 2
        return self._um(Rect(start, start, cols * step, rows * step))

    def _um(self, rect: Rect) -> tuple[float, float, float, float]:
        """Extent as matplotlib wants it: left, right, bottom, top; y down."""
        return rect.x * self.mpp, rect.right * self.mpp, rect.bottom * self.mpp, rect.y * self.mpp


def _heatmap(
    ax: Axes,
    view: _View,
    values: NDArray[np.float32],
    title: str,
    colours: str,
    limits: tuple[float, float],
) -> Any:
    view.slide(ax, faded=True)
    held = ax.axis()
    drawn = ax.imshow(
        np.ma.masked_invalid(values), extent=view.map_extent(), interpolation="nearest", cmap=colours,
        vmin=limits[0], vmax=limits[1],
    )  # fmt: skip
    ax.axis(held)
    ax.set_title(title)
    return drawn


def _colour_bar(figure: Figure, drawn: Any, ax: Axes, label: str) -> None:
    """Colour bar below a panel; without a map, as much empty room, so that all panels are of one size."""
    if drawn is None:
        return
    bar = figure.colorbar(drawn, ax=ax, location="bottom", fraction=0.05, pad=0.02, aspect=30, extend="both")
    bar.set_label(label, color=_GREY, fontsize=9)
    bar.ax.tick_params(labelsize=8, color=_GREY, labelcolor=_GREY)
    bar.outline.set_visible(False)  # type: ignore[operator]


def _scale_bar(ax: Axes, view: _View) -> None:
    """A bar of a round length, about a quarter of the width, in the lower left corner."""
    left, right, bottom, top = view._um(view.rect)
    wanted = (right - left) / 4
    magnitude = 10 ** math.floor(math.log10(wanted))
    length = max(m * magnitude for m in (1, 2, 5) if m * magnitude <= wanted)
    pad, thick = 0.03 * (right - left), 0.012 * (bottom - top)
    from matplotlib.patches import Rectangle

    label = f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} µm"
    board = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 2.5}
    ax.add_patch(Rectangle((left + pad, bottom - pad - thick), length, thick, color="black", zorder=3))
    ax.text(
        left + pad + length / 2, bottom - pad - 2 * thick, label, ha="center", va="bottom", fontsize=9,
        bbox=board, zorder=3,
    )  # fmt: skip


def _titles(figure: Figure, prediction: Prediction, gene: str) -> None:
    card = prediction.bundle.card
    figure.suptitle(
        f"{gene}   ·   {prediction.slide.name}", x=0.01, ha="left", fontsize=15, fontweight="bold"
    )
    facts = (
        f"Model {card.name} ({card.method} on {card.encoder}, trained on {card.cohort}); "
        f"{len(prediction)} tiles of {card.mpp * card.px:.0f} µm"
    )
    figure.supxlabel(facts, x=0.01, ha="left", fontsize=8.5, color=_GREY)
    if "SYNTHETIC" in card.note:
        figure.text(
            0.99, 0.985, "SYNTHETIC data: no patient, no measurement", ha="right", va="top",
            fontsize=10, fontweight="bold", color="#b3261e",
        )  # fmt: skip


def _limits(maps: list[NDArray[np.float32]]) -> tuple[float, float]:
    values = np.concatenate([m[np.isfinite(m)] for m in maps])
    low, high = (float(v) for v in np.percentile(values, PERCENTILES))
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _reach(difference: NDArray[np.float32]) -> float:
    """Half the width of the scale around zero; never zero."""
    reach = float(np.percentile(np.abs(difference[np.isfinite(difference)]), PERCENTILES[1]))
    return reach if reach > 0 else 0.1
