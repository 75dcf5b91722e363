"""The maps that a prediction can be shown as: values on the tile grid, colours, units, limits. No layers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from chrep_model.bundle import Bundle
    from chrep_model.inference.prediction import Prediction
    from chrep_model.inference.signature import Signature

FloatMap = npt.NDArray[np.float32]
Limits = tuple[float, float]

#: Percentiles of the values of a whole prediction that the colours span.
CONTRAST_PERCENTILES = (1.0, 99.0)


@dataclass(frozen=True)
class Kind:
    """How one kind of map is shown.

    Attributes
    ----------
    colormap : str
        Perceptually uniform and safe for the colour-blind; the diverging one where the middle is zero.
    unit : str
        Of the values, as the layer's title has it.
    about : str
        What it shows, in a sentence without its full stop.
    blending : str
        How it lies over what is below.
    opacity : float
        Of its layer at first.
    """

    colormap: str
    unit: str
    about: str
    blending: str = "translucent"
    opacity: float = 0.6


# The two colours that the colour-blind tell apart best, and that add up to white.
_BLENDED = "Two genes at once: the one on show in magenta, the other in green, both together in white"

#: Every kind of map, bottom to top.
KINDS = {
    "raw": Kind("viridis", "log10", "What the model reads from the picture alone"),
    "calibrated": Kind(
        "viridis", "log10", "The same, corrected by the most similar measured spots: the one to use"
    ),
    "difference": Kind("coolwarm", "log10", "Calibrated minus raw: what the measured spots changed"),
    "interval": Kind("magma", "± log10", "Half width of the interval that holds 90 % of the measured values"),
    "unlike": Kind(
        "cividis",
        "share",
        "How unlike the training tissue: the share of the training spots that were nearer to the gallery",
    ),
    "signature": Kind(
        "viridis", "mean z", "Mean of a list of genes, each in sd above its average over the training spots"
    ),
    "first": Kind("magenta", "log10", _BLENDED, opacity=0.8),
    "second": Kind("green", "log10", _BLENDED, "additive", opacity=0.8),
}

#: The two that every gene is shown as where the model has both; they share their limits.
PAIR = ("raw", "calibrated")

#: The two that lie over each other.
BLEND = ("first", "second")


@dataclass(frozen=True)
class Subject:
    """What the maps are about.

    Attributes
    ----------
    prediction : Prediction
        With at least one tile.
    gene : str
        The gene on show.
    second : str or None
        The gene that is blended with it.
    signature : Signature or None
        The list of genes in use.
    """

    prediction: Prediction
    gene: str
    second: str | None
    signature: Signature | None

    def of(self, kind: str) -> str:
        """Return whose values a map shows: a gene, a signature, or (empty) the tissue itself."""
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


def why_not(
    kind: str, bundle: Bundle | None, signature: Signature | None = None, second: str | None = None
) -> str:
    """Say in a sentence why there cannot be such a map; empty where there can.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    bundle : Bundle or None
        The model in use.
    signature : Signature or None
        The list of genes in use.
    second : str or None
        The gene to be blended with the one on show.
    """
    if bundle is None:
        return "Choose a model first."
    if kind in ("interval", "unlike") and bundle.trust is None:
        return "This model does not say how far to trust it."
    needed = {"raw": ("raw",), "calibrated": ("calibrated",), "difference": PAIR}.get(kind, ())
    absent = [variant for variant in needed if variant not in bundle.card.variants]
    if absent:
        return f"This model, made by the method {bundle.card.method}, has no {absent[0]} prediction."
    if kind == "signature" and signature is None:
        return "Paste or open a list of genes first."
    if kind in BLEND and second is None:
        return "Pick a second gene first."
    return ""


def pair(bundle: Bundle | None) -> tuple[str, ...]:
    """Return those of `PAIR` that a model has."""
    return tuple(kind for kind in PAIR if not why_not(kind, bundle))


def all_limits(maps: dict[str, FloatMap]) -> dict[str, Limits]:
    """Return the contrast limits of the maps of one subject.

    Raw and calibrated share theirs, so that their colours compare; those of the difference are symmetric
    around zero; those of a share are 0 and 1.
    """
    together = shared_limits([maps[kind] for kind in PAIR if kind in maps])
    limits = {kind: together for kind in PAIR if kind in maps}
    for kind in maps.keys() - limits.keys():
        if kind == "unlike":
            limits[kind] = (0.0, 1.0)
        elif kind == "difference":
            limits[kind] = symmetric_limits(maps[kind])
        else:
            limits[kind] = shared_limits([maps[kind]])
    return limits


def shared_limits(maps: list[FloatMap]) -> Limits:
    """Return contrast limits for several maps of one gene together, so that their colours compare.

    Parameters
    ----------
    maps : list of float32 array
        NaN where nothing was predicted.

    Returns
    -------
    (float, float)
        `CONTRAST_PERCENTILES` of all finite values; (0, 1) without any; never of zero width.
    """
    values = np.concatenate([m[np.isfinite(m)] for m in maps]) if maps else np.empty(0, np.float32)
    if values.size == 0:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(values, CONTRAST_PERCENTILES))
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def symmetric_limits(values: FloatMap) -> Limits:
    """Return limits with zero in the middle that hold as many values as `shared_limits`' upper one."""
    finite = np.abs(values[np.isfinite(values)])
    high = float(np.percentile(finite, CONTRAST_PERCENTILES[1])) if finite.size else 0.0
    return (-high, high) if high > 0 else (-0.5, 0.5)


class MapMaker:
    """Computes maps; what a signature had for tiles of before is kept.

    A gene is cheap enough to be computed for all tiles with every batch, a list of hundreds is not.
    """

    def __init__(self) -> None:
        self._signature: tuple[Prediction, Signature] | None = None
        self._kept = np.empty(0, np.float32)

    def maps(self, kinds: Iterable[str], subject: Subject) -> dict[str, FloatMap]:
        """Return maps by kind, each (rows, cols) float32 with NaN where nothing was predicted.

        Raises
        ------
        ValueError
            The model has no such map, see `why_not`.
        """
        kinds = tuple(kinds)
        prediction, gene = subject.prediction, subject.gene
        parts = PAIR if "difference" in kinds else [kind for kind in PAIR if kind in kinds]
        made = {kind: prediction.map(gene, kind) for kind in parts}
        if "difference" in kinds:
            made["difference"] = made["calibrated"] - made["raw"]
        for kind in kinds:
            if kind not in made:
                made[kind] = prediction.on_grid(self._values(kind, subject))
        return {kind: made[kind] for kind in kinds}

    def _values(self, kind: str, subject: Subject) -> FloatMap:
        prediction = subject.prediction
        if kind == "signature" and subject.signature is not None:
            return self._signature_values(prediction, subject.signature)
        if kind in BLEND:
            return prediction.gene(subject.of(kind))
        values = prediction.interval(subject.gene) if kind == "interval" else prediction.unlike()
        if values is None:
            raise ValueError(f"there is no {kind} map")
        return values

    def _signature_values(self, prediction: Prediction, signature: Signature) -> FloatMap:
        if self._signature is None or any(
            now is not kept for now, kept in zip((prediction, signature), self._signature, strict=True)
        ):
            self._signature, self._kept = (prediction, signature), np.empty(0, np.float32)
        new = signature.values(prediction, start=len(self._kept))
        self._kept = np.concatenate([self._kept, new])
        return self._kept
