"""Maps of single genes: the truth and what each method says, side by side on one colour scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from chrep_model.evaluation.report.drawing import INK, drawing, short, written
from chrep_model.evaluation.report.histology import histology
from chrep_model.evaluation.report.markup import Markup, join, tag
from chrep_model.evaluation.report.results import Key, Results
from chrep_model.evaluation.scoring import MAP_CANDIDATES, SMOOTHED
from chrep_model.evaluation.tables import MAPPED
from chrep_model.export.figure import EXPRESSION_COLOURS, PERCENTILES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import Collection

ROOM = 3_500_000
"""Characters that all maps together may take of the page."""

_PANELS = 6
_WIDTH, _BAR, _ABOVE, _BELOW = 10.4, 0.85, 0.45, 0.35  # inches
_SPOT = 0.92  # of the distance between neighbours: spots stay apart, and there is little white between them


def maps(results: Results) -> Markup:
    """Pictures for every test section and gene that was kept, and two lists to choose from."""
    frame = results.maps.dropna(subset=["truth"])
    if frame.empty:
        return Markup()
    limits = {str(gene): _limits(part) for gene, part in frame.groupby("gene", sort=False)}
    by_pair = frame.groupby(["fold", "gene"], sort=False)
    parts = {(str(fold), str(gene)): part for (fold, gene), part in by_pair}
    genes_of: dict[str, list[str]] = {}
    for fold, gene in parts:
        genes_of.setdefault(fold, []).append(gene)
    # gene by gene and not section by section: where the room ends, every section has some of its genes
    order = sorted(parts, key=lambda pair: genes_of[pair[0]].index(pair[1]))
    pictures: dict[tuple[str, str], Markup] = {}
    for fold, gene in order:
        picture = _picture(results, parts[fold, gene], fold, gene, limits[gene])
        pictures[fold, gene] = tag("div", picture, class_="map", data_section=fold, data_gene=gene)
        if sum(map(len, pictures.values())) > ROOM:
            break
    sections, genes = (list(dict.fromkeys(names)) for names in zip(*pictures, strict=True))
    slides = (_slide(results, frame, section) for section in sections if section in results.slides)
    rest = _rest(len(parts) - len(pictures))
    return join(_chosen(results, frame), _choice(sections, genes), *slides, *pictures.values(), rest)


def _chosen(results: Results, frame: pd.DataFrame) -> Markup:
    names = [results.label(key) for key in _panels(results, frame)]
    return tag(
        "p",
        f"Of every test section the {MAPPED} genes are shown that all methods together predict best, among "
        f"its {MAP_CANDIDATES} most reliably measured ones: an upper end, and no example of what to expect. "
        f"The maps are those of {', '.join(names)}; maps.parquet holds those of all methods.",
    )


def _slide(results: Results, frame: pd.DataFrame, section: str) -> Markup:
    spots = frame[frame["fold"] == section].drop_duplicates(["x_um", "y_um"])
    margin = _pitch(spots[["x_um", "y_um"]].to_numpy(float))
    picture = histology(results.slides[section], margin)
    return tag("div", picture, class_="slide", data_section=section)


def _choice(sections: list[str], genes: list[str]) -> Markup:
    lists = [
        tag(
            "label",
            f"{title} ",
            tag("select", *(tag("option", v, value=v) for v in values), data_chooses=name),
        )
        for title, name, values in (("Test section", "section", sections), ("Gene", "gene", genes))
    ]
    return tag("p", *lists, class_="needs-script choice")


def _rest(count: int) -> Markup:
    if not count:
        return Markup()
    return tag("p", f"{count} more maps were left out for their size; maps.parquet holds all.", class_="dim")


def _panels(results: Results, frame: pd.DataFrame) -> list[Key]:
    """Whose maps are shown: the subject, first as its head says it, then the references."""
    method, variant = results.subject
    wanted = [(method, "raw"), (method, variant), *results.references]
    wanted += [key for key in results.speaking if key not in wanted]
    there = set(zip(frame["method"], frame["variant"], strict=True))
    kept = [key for key in dict.fromkeys(wanted) if key in there and key[1] != SMOOTHED]
    return kept[: _PANELS - 1]


def _picture(
    results: Results, frame: pd.DataFrame, fold: str, gene: str, limits: tuple[float, float]
) -> Markup:
    spots = frame.drop_duplicates(["x_um", "y_um"]).assign(value=lambda part: part["truth"])
    panels = {"truth": spots}
    for key in _panels(results, frame):
        title = short(results.label(key)) + _agreement(results, key, fold, gene)
        panels[title] = frame[(frame["method"] == key[0]) & (frame["variant"] == key[1])]
    xy = spots[["x_um", "y_um"]].to_numpy(float)
    pitch = _pitch(xy)
    low, high = xy.min(0) - pitch, xy.max(0) + pitch
    side = (_WIDTH - _BAR) / max(len(panels), 4)
    height = float(np.clip(side * (high[1] - low[1]) / (high[0] - low[0]), 0.8, 5.0))
    width, total = side * len(panels) + _BAR, height + _ABOVE + _BELOW
    with drawing(width, total, f"map {fold} {gene}") as figure:
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
        return written(figure, f"Maps of {gene} in section {fold}", caption)


def _agreement(results: Results, key: Key, fold: str, gene: str) -> str:
    """The correlation of the map with the truth, on a line of its own; of the first seed, as the map."""
    g = results.per_gene
    row = g[(g["method"] == key[0]) & (g["variant"] == key[1]) & (g["fold"] == fold) & (g["gene"] == gene)]
    r = row.sort_values("seed")["pcc"].dropna()
    return "" if r.empty else f"\nr = {r.iloc[0]:.2f}".replace("-", "−")


def _spots(ax: Axes, part: pd.DataFrame, pitch: float, limits: tuple[float, float]) -> Collection:
    """Discs at the spots; a value that is not a number leaves its place empty."""
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
    """What the colours span: the truth and all predictions of a gene in all sections, without outliers."""
    values = np.concatenate([frame["truth"], frame["value"].dropna()])
    low, high = np.percentile(values, PERCENTILES)
    return float(low), float(max(high, low + 1e-6))


def _pitch(xy: NDArray[np.float64]) -> float:
    """Median distance from a spot to the next, in µm."""
    from scipy.spatial import cKDTree

    if len(xy) < 2:
        return 100.0
    return float(np.median(cKDTree(xy).query(xy, k=2)[0][:, 1])) or 100.0


def _scale_bar(ax: Axes, low: NDArray[np.float64], high: NDArray[np.float64]) -> None:
    """A bar of a round length, about a quarter of the width, below the spots."""
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
