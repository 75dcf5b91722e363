"""Compute the maps of a prediction: values on the tile grid, colours, units and contrast limits.

Nothing here knows napari's layers; `heatmaps` puts the maps into them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from chrep_model.analysis.signature import Signature
    from chrep_model.bundle import Bundle
    from chrep_model.prediction.prediction import Prediction, Preview

FloatMap = npt.NDArray[np.float32]
Limits = tuple[float, float]

#: Percentiles of a prediction's values that become the contrast limits.
CONTRAST_PERCENTILES = (1.0, 99.0)

#: While a prediction grows, limits are kept if they would move by less than this fraction of their width.
CLOSE = 0.2

#: Number of values computed in one step, about 20 ms on one core; with larger steps panning would stutter.
STEP = 2048
#: Minimum number of tiles per step for a signature, however many genes it has.
MIN_STEP = 32


@dataclass(frozen=True)
class MapKind:
    """Colours, unit and description of one kind of map.

    Attributes
    ----------
    colormap : str
        Name of a perceptually uniform colormap that is safe for colour-blind people; diverging if the middle
        is zero.
    unit : str
        Unit of the values, as written in the layer's title.
    about : str
        What the map shows, as a sentence without its full stop.
    blending : str
        How napari blends the map with the layers below.
    opacity : float
        Initial opacity of the layer.
    """

    colormap: str
    unit: str
    about: str
    blending: str = "translucent"
    opacity: float = 0.6


# Magenta and green: the colours that colour-blind people tell apart best, and that add up to white.
_BLENDED = "Two genes at once: the one on show in magenta, the other in green, both together in white"

#: Every kind of map, from bottom to top.
KINDS = {
    "raw": MapKind("viridis", "log10", "What the model reads from the picture alone"),
    "calibrated": MapKind(
        "viridis", "log10", "The same, corrected by the most similar measured spots: the one to use"
    ),
    "difference": MapKind("coolwarm", "log10", "Calibrated minus raw: what the measured spots changed"),
    "interval": MapKind(
        "magma", "± log10", "Half width of the interval that holds 90 % of the measured values"
    ),
    "unlike": MapKind(
        "cividis",
        "share",
        "How unlike the training tissue: the share of the training spots that were nearer to the gallery",
    ),
    "signature": MapKind(
        "viridis", "mean z", "Mean of a list of genes, each in sd above its average over the training spots"
    ),
    "first": MapKind("magenta", "log10", _BLENDED, opacity=0.8),
    "second": MapKind("green", "log10", _BLENDED, "additive", opacity=0.8),
}

#: Kinds shown for every gene, as far as the model has them; they share their contrast limits.
MAIN_KINDS = ("raw", "calibrated")

#: Kinds that are blended: the current gene and the second gene.
BLEND = ("first", "second")


@dataclass(frozen=True)
class MapSubject:
    """Prediction, genes and signature that a set of maps shows.

    Attributes
    ----------
    prediction : Prediction
        Has at least one tile, unless there is a preview.
    gene : str
        The current gene.
    second : str or None
        The gene that is blended with the current one.
    signature : Signature or None
        The current list of genes.
    preview : Preview or None
        Coarse prediction, shown where no tile is predicted yet.
    """

    prediction: Prediction
    gene: str
    second: str | None
    signature: Signature | None
    preview: Preview | None = None

    def of(self, kind: str) -> str:
        """Return the gene or signature that a kind of map shows; empty for a map of the tissue itself."""
        if kind == "signature":
            return "" if self.signature is None else self.signature.name
        if kind == "second":
            return self.second or ""
        return "" if kind == "unlike" else self.gene

    def title(self, kind: str) -> str:
        """Return the title of a map with its unit, such as ``ERBB2 calibrated [log10]``."""
        about = self.of(kind)
        words = about if kind in BLEND else f"{about} {kind}" if about else "Unlike training"
        return f"{words} [{KINDS[kind].unit}]"


def why_unavailable(
    kind: str, bundle: Bundle | None, signature: Signature | None = None, second: str | None = None
) -> str:
    """Return a sentence that says why a kind of map is unavailable; empty if it is available.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    bundle : Bundle or None
        The current model.
    signature : Signature or None
        The current list of genes.
    second : str or None
        The gene to blend with the current one.
    """
    if bundle is None:
        return "Choose a model first."
    if kind in ("interval", "unlike") and bundle.trust is None:
        return "This model does not say how far to trust it."
    needed = {"raw": ("raw",), "calibrated": ("calibrated",), "difference": MAIN_KINDS}.get(kind, ())
    absent = [variant for variant in needed if variant not in bundle.card.variants]
    if absent:
        return f"This model, made by the method {bundle.card.method}, has no {absent[0]} prediction."
    if kind == "signature" and signature is None:
        return "Paste or open a list of genes first."
    if kind in BLEND and second is None:
        return "Pick a second gene first."
    return ""


def main_kinds(bundle: Bundle | None) -> tuple[str, ...]:
    """Return the `MAIN_KINDS` that a model provides."""
    return tuple(kind for kind in MAIN_KINDS if not why_unavailable(kind, bundle))


def limits_of_maps(maps: dict[str, FloatMap]) -> dict[str, Limits]:
    """Return the contrast limits of the maps of one subject.

    Raw and calibrated share their limits, so that their colours compare. The limits of the difference are
    symmetric around zero; those of the unlike map are 0 and 1.
    """
    together = shared_limits([maps[kind] for kind in MAIN_KINDS if kind in maps])
    limits = {kind: together for kind in MAIN_KINDS if kind in maps}
    for kind in maps.keys() - limits.keys():
        if kind == "unlike":
            limits[kind] = (0.0, 1.0)
        elif kind == "difference":
            limits[kind] = symmetric_limits(maps[kind])
        else:
            limits[kind] = shared_limits([maps[kind]])
    return limits


def shared_limits(maps: list[FloatMap]) -> Limits:
    """Return common contrast limits for several maps of one gene, so that their colours compare.

    Parameters
    ----------
    maps : list of float32 array
        Maps with NaN outside the predicted tiles.

    Returns
    -------
    (float, float)
        `CONTRAST_PERCENTILES` of all finite values; (0, 1) if there are none. The width is never zero.
    """
    values = np.concatenate([m[np.isfinite(m)] for m in maps]) if maps else np.empty(0, np.float32)
    if values.size == 0:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(values, CONTRAST_PERCENTILES))
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def close(limits: Limits, former: Limits, share: float) -> bool:
    """Return whether limits differ from the former ones by at most a given fraction of their width."""
    most = share * (former[1] - former[0])
    return all(abs(new - old) <= most for new, old in zip(limits, former, strict=True))


def symmetric_limits(values: FloatMap) -> Limits:
    """Return limits symmetric around zero, from the upper contrast percentile of the absolute values."""
    finite = np.abs(values[np.isfinite(values)])
    high = float(np.percentile(finite, CONTRAST_PERCENTILES[1])) if finite.size else 0.0
    return (-high, high) if high > 0 else (-0.5, 0.5)


class MapMaker:
    """Calculator for maps, which works in steps and keeps the values already computed.

    It works on the Qt thread, where computing tens of thousands of tiles at once would block the window.
    `advance` computes a part of them and is called repeatedly; `maps` computes the rest.
    """

    def __init__(self) -> None:
        self._prediction: Prediction | None = None
        self._preview: Preview | None = None
        self._kept: dict[Source, FloatMap] = {}
        self._preview_values: dict[Source, FloatMap] = {}

    def advance(self, kinds: Iterable[str], subject: MapSubject, most: int = STEP) -> bool:
        """Compute the values of at most `most` more tiles; return True when all are computed."""
        self._drop_unused(kinds, subject)
        for source, kept in self._kept.items():
            step = most if source[0] != "signature" else max(MIN_STEP, most // len(source[1].genes))
            new = _read(subject.prediction, source, slice(len(kept), len(kept) + step))
            self._kept[source] = np.concatenate([kept, new])
            most -= len(new)
            if most <= 0:
                break
        return all(len(kept) == len(subject.prediction) for kept in self._kept.values())

    def maps(self, kinds: Iterable[str], subject: MapSubject) -> dict[str, FloatMap]:
        """Return the maps by kind, each (rows, cols) float32, NaN without prediction and preview.

        Raises
        ------
        ValueError
            The model does not provide one of these maps, see `why_unavailable`.
        """
        kinds = tuple(kinds)
        while not self.advance(kinds, subject):
            pass
        made = {}
        for kind in kinds:
            sources = _sources(kind, subject)
            made[kind] = subject.prediction.on_grid(_combined([self._kept[source] for source in sources]))
            if subject.preview is not None:
                rough = [self._read_preview(subject.preview, source) for source in sources]
                subject.preview.fill(_combined(rough), made[kind])
        return made

    def _drop_unused(self, kinds: Iterable[str], subject: MapSubject) -> None:
        """Drop the values of former predictions and previews, and of maps that are no longer requested."""
        if subject.prediction is not self._prediction:
            self._prediction, self._kept = subject.prediction, {}
        if subject.preview is not self._preview:
            self._preview, self._preview_values = subject.preview, {}
        wanted = dict.fromkeys(source for kind in kinds for source in _sources(kind, subject))
        none = np.empty(0, np.float32)
        self._kept = {source: self._kept.get(source, none) for source in wanted}

    def _read_preview(self, preview: Preview, source: Source) -> FloatMap:
        """Return a source's values for all tiles of a preview, from the cache if possible."""
        if source not in self._preview_values:
            self._preview_values[source] = _read(preview.prediction, source, slice(None))
        return self._preview_values[source]


#: Key of computed values: a variant or kind of map, and its gene or signature.
Source = tuple[str, Any]


def _sources(kind: str, subject: MapSubject) -> list[Source]:
    """Return the sources whose values a kind of map is computed from."""
    if kind == "difference":
        return [(variant, subject.gene) for variant in reversed(MAIN_KINDS)]
    if kind in BLEND:
        return [(subject.prediction.variants[-1], subject.of(kind))]
    return [(kind, subject.signature if kind == "signature" else subject.of(kind))]


def _combined(values: list[FloatMap]) -> FloatMap:
    """Return the difference of two sources' values, or the values of a single source."""
    first, *others = values
    return first - others[0] if others else first


def _read(prediction: Prediction, source: Source, tiles: slice) -> FloatMap:
    """Return a source's values for a slice of the tiles, (number of tiles,)."""
    what, about = source
    if what == "signature":
        values: FloatMap = about.values(prediction, tiles)
        return values
    if what == "unlike":
        unlike = prediction.unlike()
        if unlike is None:
            raise ValueError("there is no unlike map")
        return unlike[tiles]
    column = prediction.bundle.panel.indices([about])
    if what == "interval":
        half = prediction.intervals(column, tiles=tiles)
        if half is None:
            raise ValueError("there is no interval map")
        return half[:, 0]
    return prediction.values(column, what, tiles=tiles)[:, 0]
