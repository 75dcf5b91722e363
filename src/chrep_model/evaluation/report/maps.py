"""Maps of single genes: the truth and what each method says, side by side on one colour scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from chrep_model.evaluation.report.drawing import INK, drawing, written
from chrep_model.evaluation.report.markup import Markup, join, tag
from chrep_model.evaluation.report.results import Key, Results
from chrep_model.evaluation.report.words import SMOOTHED
from chrep_model.inference.figure import EXPRESSION_COLOURS, PERCENTILES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import Collection

ROOM = 2_500_000
"""Characters that all maps together may take of the page."""

_PANELS = 6
_WIDTH = 10.4
_SPOT = 0.92  # of the distance between neighbours: spots stay apart, and there is little white between them


def maps(results: Results) -> Markup:
    """Pictures for every test section and gene that was kept, and two lists to choose from."""
    frame = results.maps.dropna(subset=["truth"]) if len(results.maps) else results.maps
    if frame.empty:
        return Markup()
    limits = {gene: _limits(part) for gene, part in frame.groupby("gene", sort=False)}
    pictures: dict[tuple[str, str], Markup] = {}
    left_out = used = 0
    # gene by gene and not section by section: where the room ends, every section has some of the genes
    pairs = frame[["fold", "gene"]].drop_duplicates()
    pairs = pairs.assign(rank=pairs.groupby("fold").cumcount()).sort_values("rank", kind="stable")
    for fold, gene in zip(pairs["fold"], pairs["gene"], strict=True):
        part = frame[(frame["fold"] == fold) & (frame["gene"] == gene)]
        picture = tag(
            "div", _picture(results, part, str(fold), str(gene), limits[gene]),
            class_="map", data_section=fold, data_gene=gene,
        )  # fmt: skip
        if used + len(picture) > ROOM and pictures:
            left_out += 1
            continue
        used += len(picture)
        pictures[str(fold), str(gene)] = picture
    sections, genes = (list(dict.fromkeys(names)) for names in zip(*pictures, strict=True))
    return join(_choice(sections, genes), *pictures.values(), _rest(left_out))


def _choice(sections: list[str], genes: list[str]) -> Markup:
    lists = [
        tag(
            "label",
            f"{title} ",
            tag("select", *(tag("option", v, value=v) for v in values), data_chooses=name),
        )
        for title, name, values in (("Test section", "section", sections), ("Gene", "gene", genes))
    ]
    return tag("p", *lists, tag("output", "", data_says="maps"), class_="needs-script choice")


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
    keys = _panels(results, frame)
    first = frame.groupby(["x_um", "y_um"], sort=False)["truth"].first().reset_index()
    panels = [("truth", first["x_um"], first["y_um"], first["truth"])]
    for method, variant in keys:
        part = frame[(frame["method"] == method) & (frame["variant"] == variant)]
        name = f"{results.label((method, variant))}{_agreement(results, (method, variant), fold, gene)}"
        panels.append((name, part["x_um"], part["y_um"], part["value"]))
    xy = first[["x_um", "y_um"]].to_numpy(float)
    pitch = _pitch(xy)
    low, high = xy.min(0) - pitch, xy.max(0) + pitch
    side = (_WIDTH - 1.0) / max(len(panels), 4)
    height = float(np.clip(side * (high[1] - low[1]) / (high[0] - low[0]), 1.0, 5.0)) + 0.85
    with drawing(side * len(panels) + 1.0, height, f"map {fold} {gene}") as figure:
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for ax, (name, x, y, values) in zip(axes, panels, strict=True):
            drawn = _spots(ax, np.column_stack([x, y]), values.to_numpy(float), pitch, limits)
            ax.set(xlim=(low[0], high[0]), ylim=(high[1], low[1]), aspect="equal", title=name)
            ax.title.set_fontsize(8.5)
            ax.set_axis_off()
        _scale_bar(axes[0], low, high)
        bar = figure.colorbar(drawn, ax=list(axes), extend="both", shrink=0.85, pad=0.01, aspect=18)
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


def _spots(
    ax: Axes, xy: NDArray[np.float64], values: NDArray[np.float64], pitch: float, limits: tuple[float, float]
) -> Collection:
    from matplotlib.collections import EllipseCollection

    seen = np.isfinite(values)
    size = np.full(int(seen.sum()), _SPOT * pitch)
    spots = EllipseCollection(
        size, size, np.zeros_like(size), units="xy", offsets=xy[seen], offset_transform=ax.transData,
        cmap=EXPRESSION_COLOURS, linewidth=0, rasterized=True,
    )  # fmt: skip
    spots.set_array(values[seen])
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
    ax.plot([low[0], low[0] + length], [high[1], high[1]], color=INK, linewidth=2.5, clip_on=False)
    ax.annotate(
        name, (low[0] + length / 2, high[1]), (0, -4), textcoords="offset points", ha="center", va="top",
        fontsize=8, color=INK, annotation_clip=False,
    )  # fmt: skip
