"""Settings of CHRep as a whole; those of its networks stand with the networks."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from chrep_model.calibration.corrector import CorrectorSettings
from chrep_model.methods.chrep.phase1 import Phase1Settings


class ChrepSettings(BaseModel):
    """Settings of CHRep; the paper names no values, so all are our choice.

    Attributes
    ----------
    calibration : {"combined", "literal"}
        What ``calibrated`` means: our combination, or the paper's estimate plus correction.
    k, temperature : int, float
        Neighbours, and tau_t of their weights.
    exclude : {"section", "patient", "self"}
        What a training spot may not retrieve while the corrector is trained; the paper says "self".
    shrink : float
        Of the combination, see `fit_combination`.
    trees : int
        In the forest that stands beside.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    phase1: Phase1Settings = Phase1Settings()
    corrector: CorrectorSettings = CorrectorSettings()
    calibration: Literal["combined", "literal"] = "combined"
    k: int = Field(100, gt=0)
    temperature: float = Field(0.1, gt=0)
    exclude: Literal["section", "patient", "self"] = "section"
    shrink: float = Field(3000.0, ge=0)
    trees: int = Field(300, gt=0)
