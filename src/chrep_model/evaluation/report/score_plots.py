"""Plots of the scores: by section, by gene, and prediction intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from chrep_model.evaluation.oracle import ORACLE
from chrep_model.evaluation.report.glossary import METRICS
from chrep_model.evaluation.report.results import Results
from chrep_model.evaluation.report.svg import (
    GREY,
    INK,
    SvgFigure,
    colours_and_markers,
    new_figure,
    shorten,
    to_svg,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection

METRICS_BY_SECTION = [m for m in METRICS if m.name in ("pcc_acg", "pcc_heg50", "mse")]

_MANY_SECTIONS = 8
_IN_A_ROW = 6
_NAMED_GENES = 5


def section_dots(results: Results) -> SvgFigure:
    """Plot one dot per method and test section, and a line at the mean."""
    keys = results.contenders + [key for key in results.keys if key[0] == ORACLE]
    silent = [key for key in results.contenders if key not in results.varying]
    few = len(results.folds) <= _MANY_SECTIONS
    seen = colours_and_markers([(fold, "") for fold in results.folds])
    with new_figure(10, 1.5 + 0.36 * len(keys), "dots") as figure:
        axes = figure.subplots(1, len(METRICS_BY_SECTION), sharey=True, squeeze=False)[0]
        for ax, metric in zip(axes, METRICS_BY_SECTION, strict=True):
            values = results.by_fold(metric.name, metric.space)
            shown = [k for k in keys if k in values and (k not in silent or metric.better < 0)]
            for fold in results.folds:
                colour, marker = seen[fold, ""] if few else (GREY, "o")
                places = [keys.index(key) for key in shown]
                ax.plot(
                    [values[key][fold] for key in shown], places, marker, color=colour, markersize=6,
                    alpha=0.8, label=shorten(fold), mew=0,
                )  # fmt: skip
            for key in shown:
                place, mean = keys.index(key), float(values[key].mean())
                ax.plot([mean, mean], [place - 0.32, place + 0.32], color=INK, linewidth=1.6)
            ax.set_xlabel(f"{metric.title} {'→' if metric.better > 0 else '←'}")
            ax.grid(axis="x", color=GREY, alpha=0.3, linewidth=0.6)
            ax.tick_params(axis="y", length=0)
        axes[0].set_yticks(range(len(keys)), [shorten(results.label(key)) for key in keys])
        axes[0].set_ylim(len(keys) - 0.4, -0.6)
        for label, key in zip(axes[0].get_yticklabels(), keys, strict=True):
            label.set_fontweight("bold" if key == results.subject else "normal")
            label.set_fontstyle("italic" if key[0] == ORACLE else "normal")
        if few:
            figure.legend(
                *axes[-1].get_legend_handles_labels(), loc="outside lower center",
                ncols=_MANY_SECTIONS, title="test section",
            )  # fmt: skip
        caption = "Every dot is a test section (mean over seeds), the upright line the mean over sections. "
        if silent:
            names = ", ".join(results.label(key) for key in silent)
            caption += f"Without dots in the correlations: {names}, which predicts the same everywhere. "
        caption += "The arrow at an axis points to better values."
        return to_svg(figure, "Scores of every method in every test section", caption)


def gene_scatter(results: Results) -> SvgFigure | None:
    """Plot each gene's correlation, the subject against each reference; the noise ceiling is the colour."""
    subject, genes = results.subject, results.genes
    ceiling = genes["ceiling"] if "ceiling" in genes and genes["ceiling"].notna().any() else None
    others = {results.label(key): genes["pcc", *key] for key in results.references}
    if not others:
        return None
    ours = genes["pcc", *subject]
    ends = _ends([ours, *others.values()])
    if ceiling is not None:
        others["noise ceiling of the gene"] = ceiling
    width = min(10.4, 3.1 * len(others) + 0.9)
    with new_figure(width, 0.75 + 0.8 * width / len(others), "genes") as figure:
        axes = figure.subplots(1, len(others), sharey=True, squeeze=False)[0]
        for ax, (name, theirs) in zip(axes, others.items(), strict=True):
            drawn = _against(ax, theirs, ours, ceiling)
            above, both = (ours > theirs).sum(), (ours.notna() & theirs.notna()).sum()
            ax.set(xlim=(0, 1.15) if theirs is ceiling else ends, ylim=ends)
            ax.set(xlabel=shorten(name), title=f"{above} of {both} above the line", box_aspect=1)
        axes[0].set_ylabel(f"{shorten(results.label(subject))}\n(Pearson correlation)")
        if ceiling is not None:
            figure.colorbar(drawn, ax=list(axes), label="noise ceiling", shrink=0.8, pad=0.01, aspect=25)
        caption = (
            "Every dot is a gene: Pearson correlation over spots, mean over test sections and seeds. Above "
            f"the dashed line {results.label(subject)} predicts the gene better; named are the genes "
            "furthest from it."
        )
        return to_svg(figure, f"Correlation per gene, {results.label(subject)} against others", caption)


def interval_curves(results: Results) -> SvgFigure | None:
    """Plot measured coverage and width of the prediction intervals by their nominal level."""
    frame = results.tables.intervals.dropna(subset=["coverage", "width"])
    if frame.empty:
        return None
    by_key = {
        (str(method), str(variant)): part.groupby("level")[["coverage", "width"]].mean()
        for (method, variant), part in frame.groupby(["method", "variant"], sort=False)
    }
    keys = [key for key in results.contenders if key in by_key] or list(by_key)
    low = min(float(min(by_key[key]["coverage"].min(), by_key[key].index.min())) for key in keys) - 0.05
    with new_figure(10.4, 3.6, "intervals") as figure:
        axes = figure.subplots(1, 3)
        axes[0].plot([low, 1], [low, 1], "--", color=GREY, linewidth=1)
        axes[0].set(xlim=(low, 1), ylim=(low, 1), ylabel="true values inside (share)")
        axes[1].axhline(0, linestyle="--", color=GREY, linewidth=1)
        axes[1].set(ylabel="inside − nominal (percentage points)")
        axes[2].set(ylabel="mean width (log10-spot)")
        for key, (colour, marker) in colours_and_markers(keys).items():
            part = by_key[key]
            excess = 100 * (part["coverage"] - part.index)
            for ax, values in zip(axes, (part["coverage"], excess, part["width"]), strict=True):
                ax.plot(
                    values.index, values, color=colour, marker=marker, markersize=5, linewidth=1.3, alpha=0.9,
                    label=shorten(results.label(key)),
                )  # fmt: skip
                ax.set_xlabel("nominal level (share)")
        axes[2].set_ylim(bottom=0)
        figure.legend(*axes[2].get_legend_handles_labels(), loc="outside lower center", ncols=_IN_A_ROW)
        caption = (
            "Left and middle: on the dashed line an interval holds as many true values as it promises; below "
            "the line it promises too much. Right: of two methods that keep the promise, the one with "
            "narrower intervals says more. Means over test sections and seeds."
        )
        return to_svg(figure, "Measured coverage and width of prediction intervals", caption)


def _against(ax: Axes, x: pd.Series, y: pd.Series, colour: pd.Series | None) -> PathCollection:
    """Plot dots and the line of equality; name the genes furthest from it, no name upon another."""
    looks: dict[str, Any] = {"color": "#0072b2"}
    if colour is not None:
        looks = {"c": colour, "cmap": "cividis", "vmin": 0, "vmax": 1}
    drawn = ax.scatter(x, y, s=11, linewidth=0, alpha=0.8, rasterized=True, **looks)
    ax.axline((0, 0), slope=1, linestyle="--", color=GREY, linewidth=1)
    apart = (y - x).dropna()
    room = 0.06 * float(y.max() - y.min())
    taken: list[float] = []
    for gene in apart.abs().sort_values(ascending=False).index:
        height = float(y[gene])
        if len(taken) < _NAMED_GENES and all(abs(height - other) > room for other in taken):
            taken.append(height)
            side = -1 if apart[gene] > 0 else 1
            name = ax.annotate(
                shorten(str(gene)), (x[gene], height), (4 * side, 0), textcoords="offset points",
                fontsize=7.5, ha="right" if side < 0 else "left", va="center", color=INK,
            )  # fmt: skip
            name.set_in_layout(False)
    return drawn


def _ends(values: list[pd.Series]) -> tuple[float, float]:
    """Return one range for both axes of all panels, with room for names on the left."""
    every = np.concatenate([v.dropna() for v in values])
    low, high = (float(every.min()), float(every.max())) if every.size else (0.0, 1.0)
    span = max(high - low, 0.1)
    return low - 0.25 * span, high + 0.08 * span
