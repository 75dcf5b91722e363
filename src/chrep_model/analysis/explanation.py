"""Explanation of a tile's value: the training spots that it is computed from, and the terms of its sum.

All values are in the unit of the heatmap, log10-spot. A model sums standardised values, so a value is the
gene's mean over the training spots plus the deviation of each term from this mean.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chrep_model.prediction.prediction import LOWEST, Prediction, within_unit

if TYPE_CHECKING:
    from chrep_model.calibration.gallery import Neighbours
    from chrep_model.methods.base import FittedMethod
    from chrep_model.methods.model import Model

NEAREST = 48
"""Number of gallery spots listed for a method that does not compute values from neighbours."""


@dataclass(frozen=True)
class Neighbour:
    """One training spot of the gallery that is similar to a tile.

    Attributes
    ----------
    row : int
        Row of the gallery.
    section, patient : str
        Section and patient of the spot.
    position_um : (float, float)
        Spot centre (x, y) in µm from the corner of its section's slide.
    similarity : float
        Cosine similarity to the tile, in the space in which the method compares tissue.
    weight : float or None
        Weight in the neighbours' mean, 0 if the gene was not measured; None for a method without this mean.
    measured : float or None
        Measured value of the gene, log10-spot; None if the spot's section did not measure it.
    of_this_slide : bool
        Whether the section's slide has the name of the predicted one, so that the model was trained on it.
    """

    row: int
    section: str
    patient: str
    position_um: tuple[float, float]
    similarity: float
    weight: float | None
    measured: float | None
    of_this_slide: bool


@dataclass(frozen=True)
class Share:
    """One term of the sum that gives a tile's value.

    Attributes
    ----------
    name : str
        Name of the learner: ``head``, ``estimate``, ``correction``, ``linear``, ``trees``, ``site`` (the mean
        error of the others at the site of calibration), or a method's name.
    answer : float
        Prediction of the learner alone, log10-spot.
    weight : float
        Weight of its deviation from the gene's mean.
    contribution : float
        weight * (answer - mean), log10-spot.
    """

    name: str
    answer: float
    weight: float
    contribution: float


@dataclass(frozen=True)
class Explanation:
    """The terms and neighbours behind a tile's value of one gene.

    Attributes
    ----------
    tile : int
        Flat index of the grid.
    gene, method, variant : str
        Explained gene, method, and last variant of the value.
    value : float
        Value on the heatmap, log10-spot: the ``total``, or `LOWEST` if that is larger.
    half_width : float or None
        Half width of the 90 % interval around ``value``; None if the model has no intervals.
    unlike : float or None
        Share of held-out training spots nearer to the gallery; None if the model does not provide it.
    mean : float
        Mean of the gene over the training spots.
    terms : tuple of Share
        Terms of the sum, in the method's order.
    neighbours : tuple of Neighbour
        Sorted by descending weight, or by similarity if there are no weights.
    gallery : ndarray
        (n,) float32 measured values of the gene over the gallery's spots that have one.
    k, temperature : int or None, float or None
        Values in use; see `FittedMethod`.
    """

    tile: int
    gene: str
    method: str
    variant: str
    value: float
    half_width: float | None
    unlike: float | None
    mean: float
    terms: tuple[Share, ...]
    neighbours: tuple[Neighbour, ...]
    gallery: NDArray[np.float32]
    k: int | None
    temperature: float | None

    @property
    def total(self) -> float:
        """Sum of the model, log10-spot: ``mean`` plus the contributions of the ``terms``."""
        return self.mean + sum(term.contribution for term in self.terms)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends of the 90 % interval, not below `LOWEST`; None if the model has no intervals."""
        if self.half_width is None:
            return None
        return max(LOWEST, self.value - self.half_width), self.value + self.half_width

    @property
    def from_neighbours(self) -> bool:
        """Whether the neighbours' measured values are part of the value."""
        return self.k is not None


@dataclass(frozen=True)
class AdjustableSettings:
    """k and temperature of a method, which a user can change to see the effect.

    Attributes
    ----------
    k, temperature : int, float
        Fitted values.
    most : int
        Largest k that can be tried.
    """

    k: int
    temperature: float
    most: int


def adjustable_settings(prediction: Prediction) -> AdjustableSettings | None:
    """Return the fitted k and temperature; None for a method without a temperature."""
    from chrep_model.methods.base import REACH

    fitted = prediction.bundle.model.fitted
    if fitted.k is None or fitted.temperature is None:
        return None
    most = min(max(fitted.k, REACH), len(fitted.gallery))
    return AdjustableSettings(min(fitted.k, most), fitted.temperature, most)


def explain(
    prediction: Prediction,
    tile: int,
    gene: str,
    *,
    k: int | None = None,
    temperature: float | None = None,
) -> Explanation:
    """Explain one tile's value of one gene from the prediction alone; the encoder does not run.

    Parameters
    ----------
    prediction : Prediction
        Prediction that holds the tile.
    tile : int
        Flat index of the tile on the grid.
    gene : str
        Name of the gene.
    k, temperature : int, float, optional
        Values other than the fitted ones, for a method with `adjustable_settings`. Corrector, combination
        and intervals, which were fitted with the original values, do not change.

    Raises
    ------
    GeneError
        The model does not know the gene.
    PredictionError
        The tile is not predicted.
    SettingsError
        k or temperature are out of range, or the method has none.
    """
    response = prediction.response(tile)
    model = prediction.bundle.model
    column = model.panel.indices([gene])
    if k is not None or temperature is not None:
        model = _reweighted(model, k, temperature)
    fitted, variant = model.fitted, model.fitted.variants[-1]
    mean, sd = float(model.panel.mean[column[0]]), float(model.panel.sd[column[0]])
    half, trust = model.interval(response, variant, column), fitted.trust
    measured = fitted.gallery.expression[:, column[0]] * np.float32(sd) + np.float32(mean)
    if (known := fitted.gallery.known(column)) is not None:
        measured[~known.measured[known.section, 0]] = np.nan
    near = fitted.neighbours(response)
    return Explanation(
        tile=tile,
        gene=gene,
        method=fitted.name,
        variant=variant,
        value=float(within_unit(model.read(response, variant, column))[0, 0]),
        half_width=None if half is None else float(half[0, 0]),
        unlike=None if trust is None else float(trust.unlike(response["distance"])[0]),
        mean=mean,
        terms=tuple(
            Share(
                term.name,
                mean + sd * float(term.answer[0, 0]),
                float(term.weight[0]),
                sd * float(term.weight[0] * term.answer[0, 0]),
            )
            for term in fitted.terms(response, column)
        ),
        neighbours=_named(prediction, fitted, near, fitted.weights(response), measured),
        gallery=measured if known is None else measured[~np.isnan(measured)],
        k=None if fitted.k is None else near.index.shape[1],
        temperature=fitted.temperature,
    )


def _reweighted(model: Model, k: int | None, temperature: float | None) -> Model:
    fitted = model.fitted
    other = fitted.reweighted(
        (fitted.k or 0) if k is None else k,
        (fitted.temperature or 0.0) if temperature is None else temperature,
    )
    return replace(model, fitted=other)


def _named(
    prediction: Prediction,
    fitted: FittedMethod,
    near: Neighbours,
    weights: NDArray[np.float32] | None,
    measured: NDArray[np.float32],
) -> tuple[Neighbour, ...]:
    """Return a tile's neighbours with their sections and positions, by descending weight."""
    gallery, index, similarity = fitted.gallery, near.index[0], near.similarity[0]
    missing = np.isnan(measured[index])
    if weights is not None and missing.any():  # only spots that measured the gene count in its mean
        weights = np.where(missing, 0, weights)
        weights = weights / np.maximum(weights.sum(1, keepdims=True), np.finfo(np.float32).tiny)
    order = np.arange(min(NEAREST, len(index))) if weights is None else np.argsort(-weights[0], kind="stable")
    cards: dict[str, dict[str, Any]] = {str(s["name"]): dict(s) for s in prediction.bundle.card.sections}
    slide = prediction.slide.path.name
    named = []
    for place in order:
        row, value = int(index[place]), float(measured[index[place]])
        section = gallery.section_names[int(gallery.section[row])]
        card = cards.get(section, {})
        x, y = gallery.position[row]
        named.append(
            Neighbour(
                row=row,
                section=section,
                patient=str(card.get("patient", "")),
                position_um=(float(x), float(y)),
                similarity=float(similarity[place]),
                weight=None if weights is None else float(weights[0, place]),
                measured=None if np.isnan(value) else value,
                of_this_slide=card.get("slide") == slide,
            )
        )
    return tuple(named)
