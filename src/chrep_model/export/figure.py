"""Draw one gene over one slide: H&E, raw, calibrated and their difference side by side."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chrep_model.errors import PredictionError
from chrep_model.files import write_atomically
from chrep_model.geometry import Rect
from chrep_model.prediction.prediction import Prediction

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PERCENTILES = (1.0, 99.0)
"""Range of the common colour scale: percentiles of all values of a gene, raw and calibrated."""

EXPRESSION_COLOURS, DIFFERENCE_COLOURS = "viridis", "RdBu_r"

_PICTURE_PX = 1400
_DPI = 150
_SHADE = 0.32
_UNITS = "log10-spot"
_UNITS_IN_FULL = "log10-spot: log10(1 + 10⁴ × share of the tile's counts)"
_GREY, _RED = "#555555", "#b3261e"
_MARGIN, _GAP, _ABOVE, _BELOW = 0.15, 0.12, 0.75, 0.95


def write_figure(prediction: Prediction, gene: str, path: Path) -> None:
    """Write `draw_figure` as PNG, SVG or PDF, by the name's suffix; the file appears when complete.

    Raises
    ------
    GeneError, PredictionError
        As in `draw_figure`, or the folder cannot be written.
    Cancelled
        The user asked to stop, see `Prediction.within`; no file is left.
    """
    figure = draw_figure(prediction, gene)
    with write_atomically(path) as part:
        figure.savefig(part, format=path.suffix[1:] if path.suffix in (".svg", ".pdf") else "png", dpi=_DPI)
        prediction.progress.raise_if_cancelled()


def draw_figure(prediction: Prediction, gene: str) -> Figure:
    """Draw one gene over the slide: raw, calibrated and their difference.

    Raw and calibrated maps have one perceptually uniform colour scale, so that they are comparable; that of
    the difference is white at zero. The slide is drawn over the maps as a shade, to show the tissue.

    Parameters
    ----------
    prediction : Prediction
        A prediction with at least one tile.
    gene : str
        Gene to draw.

    Raises
    ------
    GeneError
        The model does not know the gene.
    PredictionError
        Nothing is predicted.
    """
    if not len(prediction):
        raise PredictionError("nothing is predicted that could be drawn", path=prediction.slide.path)
    variants = tuple(dict.fromkeys(("raw", prediction.variants[-1])))
    maps = [prediction.map(gene, variant) for variant in variants]
    view = _View(prediction)
    page = _Page(view.rect.height / view.rect.width, panels=1 + len(maps) + (len(maps) > 1))
    first = page.panel(0, "H&E")
    view.slide(first)
    _scale_bar(first, view)
    for number, (values, variant) in enumerate(zip(maps, variants, strict=True), start=1):
        drawn = _heatmap(page.panel(number, variant), view, values, EXPRESSION_COLOURS, _limits(maps))
    page.colour_bar(drawn, 1, len(maps), f"expression ({_UNITS})")
    if len(maps) > 1:
        difference = maps[1] - maps[0]
        reach = _reach(difference)
        ax = page.panel(3, f"{variants[1]} − {variants[0]}")
        drawn = _heatmap(ax, view, difference, DIFFERENCE_COLOURS, (-reach, reach))
        page.colour_bar(drawn, 3, 3, f"difference ({_UNITS})")
    page.words(prediction, gene)
    return page.figure


class _Page:
    """A row of panels of one size, with colour bars below and text around them; lengths in inches."""

    def __init__(self, aspect: float, panels: int) -> None:
        from matplotlib.figure import Figure

        aspect = min(max(aspect, 0.4), 2.0)
        self.width = 4.0 if aspect <= 1.2 else 4.8 / aspect
        self.height = self.width * aspect
        self.size = (
            2 * _MARGIN + panels * self.width + (panels - 1) * _GAP, _BELOW + self.height + _ABOVE
        )  # fmt: skip
        self.figure = Figure(figsize=self.size, facecolor="white")

    def panel(self, number: int, title: str) -> Axes:
        """Add a panel at position `number`, counted from the left."""
        ax = self._axes(self._left(number), _BELOW, self.width, self.height)
        ax.set_title(title, fontsize=12)
        return ax

    def colour_bar(self, drawn: Any, first: int, last: int, label: str) -> None:
        """Add a colour bar below one panel, or below several that share it."""
        left, right = self._left(first), self._left(last) + self.width
        width = min(right - left, 0.9 * self.width)
        ax = self._axes((left + right - width) / 2, _BELOW - 0.3, width, 0.12)
        bar = self.figure.colorbar(drawn, cax=ax, orientation="horizontal", extend="both")
        bar.set_label(label, fontsize=9, color=_GREY)
        ax.tick_params(labelsize=8, color=_GREY, labelcolor=_GREY, length=2)
        bar.outline.set_visible(False)

    def words(self, prediction: Prediction, gene: str) -> None:
        """Write gene and slide above the panels, the model and its training data below."""
        card = prediction.bundle.card
        self._text(_MARGIN, self.size[1] - 0.12, gene, size=16, weight="bold", va="top")
        tiles = f"{len(prediction)} tiles of {card.mpp * card.px:.0f} µm"
        model = f"model {card.name}: {card.method} on {card.encoder}, trained on {card.cohort}"
        self._text(
            _MARGIN,
            0.1,
            f"{prediction.slide.name}, {tiles}; {model}; {_UNITS_IN_FULL}",
            size=8.5,
            color=_GREY,
        )
        if "SYNTHETIC" in card.note:
            note = "SYNTHETIC data: no patient, no measurement"
            right = self.size[0] - _MARGIN
            self._text(
                right, self.size[1] - 0.12, note, size=10, weight="bold", va="top", ha="right", color=_RED
            )

    def _text(self, x: float, y: float, text: str, **style: Any) -> None:
        self.figure.text(x / self.size[0], y / self.size[1], text, **style)

    def _left(self, number: int) -> float:
        return _MARGIN + number * (self.width + _GAP)

    def _axes(self, left: float, bottom: float, width: float, height: float) -> Axes:
        across, up = self.size
        return self.figure.add_axes((left / across, bottom / up, width / across, height / up))


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
        """Return the pixels of the view, and the rectangle that they cover exactly."""
        from PIL import Image

        slide, longest = self.source, max(self.rect.width, self.rect.height)
        downsamples = [level.downsample for level in slide.levels]
        level = max((i for i, down in enumerate(downsamples) if longest / down >= _PICTURE_PX), default=0)
        down = downsamples[level]
        picture = None
        if longest / down > 4 * _PICTURE_PX:  # without a coarse level this would be too large
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

    def slide(self, ax: Axes) -> None:
        """Draw the slide."""
        self._draw(ax, self.picture)

    def shade(self, ax: Axes) -> None:
        """Darken the panel by the structure of the slide, without changing hues."""
        shade = np.zeros((*self.picture.shape[:2], 4), np.uint8)
        shade[..., 3] = _SHADE * (255 - self.picture.mean(axis=2))
        self._draw(ax, shade)

    def _draw(self, ax: Axes, pixels: NDArray[np.uint8]) -> None:
        ax.imshow(pixels, extent=self._um(self._picture_rect), interpolation="antialiased")
        left, right, bottom, top = self._um(self.rect)
        ax.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[])
        ax.spines[:].set_visible(False)

    def map_extent(self) -> tuple[float, float, float, float]:
        """Return the extent of the tile grid's map, each value a square around its tile's centre."""
        rows, cols = self.grid.shape
        step, start = self.grid.step_px, (self.grid.tile_px - self.grid.step_px) / 2
        return self._um(Rect(start, start, cols * step, rows * step))

    def _um(self, rect: Rect) -> tuple[float, float, float, float]:
        """Return an extent in the order of matplotlib: left, right, bottom, top; y down."""
        return rect.x * self.mpp, rect.right * self.mpp, rect.bottom * self.mpp, rect.y * self.mpp


def _heatmap(
    ax: Axes, view: _View, values: NDArray[np.float32], colours: str, limits: tuple[float, float]
) -> Any:
    drawn = ax.imshow(
        np.ma.masked_invalid(values), extent=view.map_extent(), interpolation="nearest", cmap=colours,
        vmin=limits[0], vmax=limits[1],
    )  # fmt: skip
    view.shade(ax)
    return drawn


def _scale_bar(ax: Axes, view: _View) -> None:
    """Draw a scale bar of a round length, about a quarter of the width, in the lower left corner."""
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


def _limits(maps: list[NDArray[np.float32]]) -> tuple[float, float]:
    values = np.concatenate([m[np.isfinite(m)] for m in maps])
    low, high = (float(v) for v in np.percentile(values, PERCENTILES))
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _reach(difference: NDArray[np.float32]) -> float:
    """Return half the width of a colour scale around zero; never zero."""
    reach = float(np.percentile(np.abs(difference[np.isfinite(difference)]), PERCENTILES[1]))
    return reach if reach > 0 else 0.1
