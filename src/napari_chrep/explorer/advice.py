"""Warnings about a slide and a model that are shown before predictions are relied on. No widgets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from chrep_model.calibration.trust import FAR
from chrep_model.slides.tiles import MAX_UPSAMPLING

if TYPE_CHECKING:
    from chrep_model.bundle import Bundle
    from chrep_model.prediction.prediction import Prediction
    from chrep_model.slides.slide import Slide

#: Least number of predicted tiles from which a slide can be called unlike the training slides.
ENOUGH_TILES = 20

#: A slide that is finer than the training slides by the first ratio most likely has a wrong scale; one that
#: is coarser by the second is predicted worse.
_FAR_FINER = 4.0
_SOMEWHAT = 1.1


@dataclass(frozen=True)
class Advice:
    """A warning for the user, with a title and a text.

    Attributes
    ----------
    title : str
        The warning in a few words.
    text : str
        What it means and what to do, in a sentence or two.
    grave : bool
        Whether nothing can be predicted, or predictions should not be relied on.
    """

    title: str
    text: str
    grave: bool = False


def advice(
    slide: Slide | None, bundle: Bundle | None, prediction: Prediction | None, trouble: str = ""
) -> list[Advice]:
    """Return the warnings about a slide and its predictions by a model, the gravest first.

    Parameters
    ----------
    slide, bundle, prediction
        The current ones; None for each that is absent.
    trouble : str
        Reason why the slide can no longer be read; empty while it can be read.
    """
    found = []
    if trouble:
        found.append(Advice("The slide is lost", trouble, grave=True))
    if slide is not None and slide.mpp is None:
        text = "The file does not say its µm per pixel, and the model needs it: type it in here, once."
        found.append(Advice("Scale unknown", text))
    elif slide is not None and slide.mpp is not None and bundle is not None:
        found += _scale_warnings(slide.mpp.value, bundle)
    if prediction is not None and len(prediction) >= ENOUGH_TILES and prediction.is_unlike:
        share = 100 * (prediction.unlike_share() or 0.0)
        text = (
            f"{share:.0f} % of the predicted tiles are farther from the training tissue than "
            f"{100 * FAR:.0f} % of its own spots were: values and intervals may be far off. The map Unlike "
            "shows where."
        )
        found.append(Advice("Unlike the training slides", text, grave=True))
    return sorted(found, key=lambda one: not one.grave)


def is_too_coarse(mpp: float, bundle: Bundle) -> bool:
    """Return whether a slide of this scale is too coarse for a model."""
    return mpp > bundle.spec.mpp * MAX_UPSAMPLING


def _scale_warnings(mpp: float, bundle: Bundle) -> list[Advice]:
    """Compare a slide's scale with that of the model's tiles and of its training slides."""
    if is_too_coarse(mpp, bundle):
        text = (
            f"The slide has {mpp:.3g} µm per pixel; the model reads {bundle.spec.mpp:.3g}, and detail that "
            "it needs is not there. Use a finer scan, or a model for coarser slides."
        )
        return [Advice("Too coarse for this model", text, grave=True)]
    known = [float(section["mpp"]) for section in bundle.card.sections if "mpp" in section]
    if not known:
        return []
    low, high = min(known), max(known)
    range_ = f"{low:.3g}" if high - low < 0.005 else f"{low:.3g} to {high:.3g}"
    trained = f"The model was trained on slides of {range_} µm per pixel, this one has {mpp:.3g}"
    if mpp > high * _SOMEWHAT:
        return [Advice("Coarser than the training slides", f"{trained}: expect worse predictions.")]
    if mpp < low / _FAR_FINER:
        return [Advice("Much finer than the training slides", f"{trained}: check that this scale is right.")]
    return []
