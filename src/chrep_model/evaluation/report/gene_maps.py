"""Maps of single genes, measured and predicted, on one colour scale; and the tissue under the spots."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from chrep_model.cohorts.section import Section
from chrep_model.evaluation.report.results import Key, Results
from chrep_model.evaluation.report.svg import INK, SvgFigure, new_figure, shorten, to_svg
from chrep_model.evaluation.scoring import SMOOTHED
from chrep_model.export.figure import EXPRESSION_COLOURS, PERCENTILES
from chrep_model.geometry import px_to_um

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import Collection

ROOM = 3_500_000
"""Characters that all maps together may take of the page."""

_PANELS = 6
_READ_PX, _SHOWN_PX, _JPEG_QUALITY = 2048, 560, 78
_WIDTH, _BAR, _ABOVE, _BELOW = 10.4, 0.85, 0.45, 0.35  # inches
_SPOT = 0.92  # of the distance between neighbours: spots stay apart, and there is little white between them


@dataclass(frozen=True)
class GeneMap:
    """Maps of one gene in one test section."""

    section: str
    gene: str
    figure: SvgFigure


@dataclass(frozen=True)
class SlideImage:
    """The slide of a test section around its spots: a JPEG in base64, its size in px and its width in mm."""

    section: str
    jpeg: str
    size: tuple[int, int]
    width_mm: float


@dataclass(frozen=True)
class Maps:
    """Titles of the methods shown, slides, maps, and how many maps are left out for their size."""

    methods: list[str]
    slides: list[SlideImage]
    maps: list[GeneMap]
    left_out: int


def gene_maps(results: Results) -> Maps | None:
    """Draw the maps of every test section and gene that were kept, up to `ROOM`; None if there are none."""
    frame = results.tables.maps.dropna(subset=["truth"])
    if frame.empty:
        return None
    limits = {str(gene): _limits(part) for gene, part in frame.groupby("gene", sort=False)}
    by_pair = frame.groupby(["fold", "gene"], sort=False)
    parts = {(str(fold), str(gene)): part for (fold, gene), part in by_pair}
    genes_of: dict[str, list[str]] = {}
    for fold, gene in parts:
        genes_of.setdefault(fold, []).append(gene)
    # gene by gene and not section by section: where the room ends, every section has some of its genes
    order = sorted(parts, key=lambda pair: genes_of[pair[0]].index(pair[1]))
    panels = _panels(results, frame)
    maps: list[GeneMap] = []
    for fold, gene in order:
        figure = _draw(results, panels, parts[fold, gene], fold, gene, limits[gene])
        maps.append(GeneMap(fold, gene, figure))
        if sum(len(drawn.figure.inner) for drawn in maps) > ROOM:
            break
    slides = [
        _slide(results.slides[section], _pitch(_positions(frame[frame["fold"] == section])))
        for section in dict.fromkeys(drawn.section for drawn in maps)
        if section in results.slides
    ]
    return Maps([results.label(key) for key in panels], slides, maps, len(parts) - len(maps))


def _slide(section: Section, margin_um: float) -> SlideImage:
    """Cut out the field of the maps: a section's spots, and `margin_um` beyond the outermost centres."""
    from PIL import Image

    with section.open_slide() as slide:
        pixels, down = slide.thumbnail(_READ_PX)
    margin = margin_um / px_to_um(1.0, section.mpp)
    low, high = (section.xy.min(0) - margin) / down, (section.xy.max(0) + margin) / down
    x0, y0 = np.maximum(np.floor(low), 0).astype(int)
    x1, y1 = np.minimum(np.ceil(high), pixels.shape[1::-1]).astype(int)
    picture = Image.fromarray(pixels[y0:y1, x0:x1])
    picture.thumbnail((_SHOWN_PX, _SHOWN_PX), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, "jpeg", quality=_JPEG_QUALITY, optimize=True)
    jpeg = base64.b64encode(stream.getvalue()).decode()
    return SlideImage(section.name, jpeg, picture.size, px_to_um((x1 - x0) * down, section.mpp) / 1000)


def _panels(results: Results, frame: pd.DataFrame) -> list[Key]:
    """Return the variants whose maps are shown: the subject's, raw first, then the references'."""
    method, variant = results.subject
    wanted = [(method, "raw"), (method, variant), *results.references, *results.varying]
    there = set(zip(frame["method"], frame["variant"], strict=True))
    kept = [key for key in dict.fromkeys(wanted) if key in there and key[1] != SMOOTHED]
    return kept[: _PANELS - 1]


def _positions(frame: pd.DataFrame) -> NDArray[np.float64]:
    return frame[["x_um", "y_um"]].drop_duplicates().to_numpy(float)


def _draw(
    results: Results, keys: list[Key], frame: pd.DataFrame, fold: str, gene: str, limits: tuple[float, float]
) -> SvgFigure:
    panels = {"truth": frame.drop_duplicates(["x_um", "y_um"]).assign(value=lambda part: part["truth"])}
    for key in keys:
        title = shorten(results.label(key)) + _agreement(results, key, fold, gene)
        panels[title] = frame[(frame["method"] == key[0]) & (frame["variant"] == key[1])]
    xy = _positions(frame)
    pitch = _pitch(xy)
    low, high = xy.min(0) - pitch, xy.max(0) + pitch
    side = (_WIDTH - _BAR) / max(len(panels), 4)
    height = float(np.clip(side * (high[1] - low[1]) / (high[0] - low[0]), 0.8, 5.0))
    width, total = side * len(panels) + _BAR, height + _ABOVE + _BELOW
    with new_figure(width, total, f"map {fold} {gene}") as figure:
        figure.set_layout_engine("none")  # all panels are alike: there is nothing to lay out
        for column, (title, part) in enumerate(panels.items()):
            box = (column * side / width, _BELOW / total, 0.97 * side / width, height / total)
            ax = figure.add_axes(box, xlim=(low[0], high[0]), ylim=(high[1], low[1]), aspect="equal")
            ax.set_axis_off()
            ax.set_title(title, fontsize=8.5)
            drawn = _spots(ax, part, pitch, limits)
            if column == 0:
                _scale_bar(ax, low, high)
        box = (len(panels) * side / width, _BELOW / total, 0.12 / width, height / total)
        bar = figure.colorbar(drawn, cax=figure.add_axes(box), extend="both")
        bar.set_label("log10-spot", fontsize=8.5)
        bar.ax.tick_params(labelsize=8)
        caption = f"{gene} in section {fold}, measured and predicted from the image, all on one colour scale."
        return to_svg(figure, f"Maps of {gene} in section {fold}", caption)


def _agreement(results: Results, key: Key, fold: str, gene: str) -> str:
    """Return the correlation of the map with the truth on a line of its own, of the first seed as the map."""
    g = results.tables.per_gene
    row = g[(g["method"] == key[0]) & (g["variant"] == key[1]) & (g["fold"] == fold) & (g["gene"] == gene)]
    r = row.sort_values("seed")["pcc"].dropna()
    return "" if r.empty else f"\nr = {r.iloc[0]:.2f}".replace("-", "−")


def _spots(ax: Axes, part: pd.DataFrame, pitch: float, limits: tuple[float, float]) -> Collection:
    """Draw discs at the spots; a value that is not a number leaves its place empty."""
    from matplotlib.collections import EllipseCollection

    there = part.dropna(subset=["value"])
    size = np.full(len(there), _SPOT * pitch)
    spots = EllipseCollection(
        size, size, np.zeros_like(size), units="xy", offset_transform=ax.transData,
        offsets=there[["x_um", "y_um"]].to_numpy(float),
        cmap=EXPRESSION_COLOURS, linewidth=0, rasterized=True,
    )  # fmt: skip
    spots.set_array(there["value"].to_numpy(float))
    spots.set_clim(*limits)
    ax.add_collection(spots)
    return spots


def _limits(frame: pd.DataFrame) -> tuple[float, float]:
    """Return the range of the colours: truth and predictions of a gene in all sections, without outliers."""
    values = np.concatenate([frame["truth"], frame["value"].dropna()])
    low, high = np.percentile(values, PERCENTILES)
    return float(low), float(max(high, low + 1e-6))


def _pitch(xy: NDArray[np.float64]) -> float:
    """Return the median distance from a spot to the next, in µm."""
    from scipy.spatial import cKDTree

    if len(xy) < 2:
        return 100.0
    return float(np.median(cKDTree(xy).query(xy, k=2)[0][:, 1])) or 100.0


def _scale_bar(ax: Axes, low: NDArray[np.float64], high: NDArray[np.float64]) -> None:
    """Draw a bar of a round length, about a quarter of the width, below the spots."""
    quarter = float(high[0] - low[0]) / 4
    power = 10 ** np.floor(np.log10(quarter))
    length = float(power * max(step for step in (1, 2, 5) if step * power <= quarter))
    name = f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} µm"
    start = float(low[0]) + quarter / 4
    ax.plot([start, start + length], [high[1], high[1]], color=INK, linewidth=2.5, clip_on=False)
    ax.annotate(
        name, (start + length / 2, high[1]), (0, -4), textcoords="offset points", ha="center", va="top",
        fontsize=8, color=INK, annotation_clip=False,
    )  # fmt: skip
