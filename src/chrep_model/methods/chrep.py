"""CHRep (arXiv 2604.21573) on frozen embeddings, and what we make of it.

Phase 1 trains an adapter with three losses: correlation-aware regression, symmetric image-gene alignment,
topology. Phase 2 freezes it, builds a gallery of training spots and predicts by the neighbours' weighted mean
(Estimate) plus a learned residual (Correction). That much is the paper; it stands in the variants ``raw``,
``estimate`` and ``correction``.

``calibrated`` is ours: instead of throwing the head away, it combines head, estimate and correction with two
simple learners on the same embeddings (a low-rank ridge and a forest), by weights that are learned per gene
from predictions on training sections which the learners had not seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from chrep_model.calibration.calibrator import Combination, fit_combination
from chrep_model.calibration.corrector import Corrector, CorrectorSettings, fit_corrector
from chrep_model.calibration.gallery import Exclude, Gallery, Neighbours, unit_rows, weighted_mean
from chrep_model.methods.base import (
    ALL,
    Arrays,
    FittedMethod,
    Genes,
    Method,
    Response,
    gallery_of,
    leave_section_out,
)
from chrep_model.methods.phase1 import Phase1, Phase1Settings, fit_phase1
from chrep_model.methods.ridge import RidgeSolver, choose_penalty, choose_rank, principal_components
from chrep_model.methods.trees import COMPONENTS, Forest, fit_forest
from chrep_model.training.run import SILENT, Run
from chrep_model.training.samples import SpotTable

LEARNERS = ("head", "estimate", "correction", "linear", "trees")


class ChrepSettings(BaseModel):
    """Settings of CHRep; the paper names no values, so every one is a choice of ours.

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
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    phase1: Phase1Settings = Phase1Settings()
    corrector: CorrectorSettings = CorrectorSettings()
    calibration: Literal["combined", "literal"] = "combined"
    k: int = Field(100, gt=0)
    temperature: float = Field(0.05, gt=0)
    exclude: Literal["section", "patient", "self"] = "section"
    shrink: float = Field(3000.0, ge=0)


@dataclass(frozen=True)
class Simple:
    """The two simple learners; both predict principal components of expression.

    Attributes
    ----------
    w, b : ndarray
        (d, rank) and (rank,): the linear learner's scores are X @ w + b.
    forest : Forest
        The other one's, of `COMPONENTS` scores.
    directions : ndarray
        (genes, max(rank, COMPONENTS)) float32; each learner uses the first ones.
    mean : ndarray
        (genes,) float32.
    """

    w: NDArray[np.float32]
    b: NDArray[np.float32]
    forest: Forest
    directions: NDArray[np.float32]
    mean: NDArray[np.float32]

    @classmethod
    def fit(cls, table: SpotTable, penalty: float, rank: int, seed: int) -> Simple:
        """Fit both on principal components of expression."""
        mean = table.targets.mean(0)
        directions = principal_components(table.targets, max(rank, COMPONENTS))
        scores = (table.targets - mean) @ directions
        w, b = RidgeSolver(table.features, scores[:, :rank]).weights(penalty)
        return cls(w, b, fit_forest(table.features, scores[:, :COMPONENTS], seed), directions, mean)

    def genes(self, scores: NDArray[np.float32], genes: Genes) -> NDArray[np.float32]:
        """Scores of the first components (n, count) to expression (n, number of genes)."""
        out: NDArray[np.float32] = scores @ self.directions[genes, : scores.shape[1]].T + self.mean[genes]
        return out


class FittedChrep(FittedMethod):
    """See `Chrep`."""

    name: ClassVar[str] = "chrep"
    variants: ClassVar[tuple[str, ...]] = ("raw", "estimate", "correction", "calibrated")

    def __init__(
        self,
        phase1: Phase1,
        corrector: Corrector,
        gallery: Gallery,
        k: int,
        temperature: float,
        simple: Simple | None = None,
        combination: Combination | None = None,
    ) -> None:
        self.phase1, self.corrector, self.gallery = phase1, corrector.eval(), gallery
        self.k, self.temperature = k, temperature
        self.simple, self.combination = simple, combination
        readout = corrector.readout
        self._correction = (readout.weight.detach().numpy().T, readout.bias.detach().numpy())

    def compare(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """z_i, the morphology feature F_H at unit length."""
        return unit_rows(self.phase1.feature(features))

    def _respond(self, features: NDArray[np.float32], z: NDArray[np.float32]) -> Response:
        found = self.gallery.search(z, self.k)
        with torch.inference_mode():
            hidden = self.corrector.body(torch.from_numpy(z)).numpy()
        response = {
            "head": self.phase1.hidden(features),
            "neighbours": found.index,
            "similarity": found.similarity,
            "corrector": hidden,
        }
        if self.simple is not None:
            response["linear"] = features @ self.simple.w + self.simple.b
            response["forest"] = self.simple.forest.predict(features)
        return response

    def read(self, response: Response, variant: str, genes: Genes = ALL) -> NDArray[np.float32]:
        """``raw`` head; ``estimate`` gE; ``correction`` gE + D, the paper's answer; ``calibrated`` ours."""
        if variant == "raw":
            return self.phase1.read(response["head"], genes)
        found = Neighbours(response["neighbours"], response["similarity"])
        estimate = weighted_mean(found, self.temperature, self.gallery.expression[:, genes])
        if variant == "estimate":
            return estimate
        w, b = self._correction
        corrected: NDArray[np.float32] = estimate + response["corrector"] @ w[:, genes] + b[genes]
        if variant == "correction" or self.simple is None or self.combination is None:
            return corrected
        head = self.phase1.read(response["head"], genes)
        simple = [self.simple.genes(response[name], genes) for name in ("linear", "forest")]
        return self.combination([head, estimate, corrected, *simple], genes)

    def recalibrated(
        self, table: SpotTable, settings: ChrepSettings, *, seed: int, run: Run = SILENT
    ) -> FittedChrep:
        """Give the same head and simple learners a new gallery, corrector and combination.

        Parameters
        ----------
        table : SpotTable
            Spots of at least two newly measured sections, in this model's features and units.
        """

        def renewed(rows: SpotTable) -> FittedChrep:
            gallery, corrector = _fit_phase2(self.phase1, rows, settings, seed)
            return FittedChrep(self.phase1, corrector, gallery, self.k, self.temperature, self.simple)

        combination = None
        if self.simple is not None:
            combination = _held_out_combination(table, renewed, settings.shrink, run)
        run.say("all sections")
        fitted = renewed(table)
        fitted.combination = combination
        return fitted

    def arrays(self) -> Arrays:
        """Weights of every part, flat."""
        out: Arrays = {f"phase1.{k}": v for k, v in self.phase1.arrays().items()}
        out |= {f"corrector.{k}": v.numpy() for k, v in self.corrector.state_dict().items()}
        out |= {"k": np.array([self.k]), "temperature": np.array([self.temperature])}
        if self.simple is not None and self.combination is not None:
            out |= {f"forest.{k}": v for k, v in vars(self.simple.forest).items()}
            out |= {f"simple.{k}": getattr(self.simple, k) for k in ("w", "b", "directions", "mean")}
            out["combination.weights"] = self.combination.weights
        return out

    @classmethod
    def from_arrays(cls, arrays: Arrays, gallery: Gallery) -> FittedChrep:
        """Build again."""

        def part(prefix: str) -> Arrays:
            return {k.removeprefix(f"{prefix}."): v for k, v in arrays.items() if k.startswith(f"{prefix}.")}

        state = {k: torch.from_numpy(v) for k, v in part("corrector").items()}
        hidden, dim = state["body.0.weight"].shape
        corrector = Corrector(dim, len(state["readout.bias"]), hidden, 0.0)
        corrector.load_state_dict(state)
        simple = combination = None
        if "combination.weights" in arrays:
            simple = Simple(forest=Forest(**part("forest")), **part("simple"))
            combination = Combination(**part("combination"))
        k, temperature = int(arrays["k"][0]), float(arrays["temperature"][0])
        return cls(
            Phase1.from_arrays(part("phase1")), corrector, gallery, k, temperature, simple, combination
        )


class Chrep(Method):
    """CHRep with its combination; see the module."""

    name: ClassVar[str] = "chrep"
    random: ClassVar[bool] = True

    def __init__(self, settings: ChrepSettings) -> None:
        self.settings = settings

    def fit(self, table: SpotTable, *, seed: int, run: Run = SILENT) -> FittedChrep:
        """Fit on all spots; before that, once without each section to learn the combination.

        Raises
        ------
        SettingsError
            The table has a single section: there is nothing to leave out.
        """
        combination, penalty = None, choose_penalty(table)
        rank = choose_rank(table, penalty)
        if self.settings.calibration == "combined":
            combination = _held_out_combination(
                table, lambda rows: self._fit_learners(rows, penalty, rank, seed), self.settings.shrink, run
            )
        run.say("all sections")
        fitted = self._fit_learners(table, penalty, rank, seed)
        fitted.combination = combination
        return fitted

    def _fit_learners(self, table: SpotTable, penalty: float, rank: int, seed: int) -> FittedChrep:
        s = self.settings
        phase1 = fit_phase1(table, s.phase1, seed)
        gallery, corrector = _fit_phase2(phase1, table, s, seed)
        simple = None
        if s.calibration == "combined":
            simple = Simple.fit(table, penalty, rank, seed)
        return FittedChrep(phase1, corrector, gallery, s.k, s.temperature, simple)


def _held_out_combination(
    table: SpotTable, fit: Callable[[SpotTable], FittedChrep], shrink: float, run: Run
) -> Combination:
    """Learn the combination from what learners fitted without a section say of it."""
    answers: list[NDArray[np.float32]] = [np.empty_like(table.targets) for _ in LEARNERS]
    folds = leave_section_out(table)
    for i, (train, test) in enumerate(folds):
        run.say(f"combination: without section {i + 1} of {len(folds)}")
        part = fit(table.rows(train))
        for whole, answer in zip(answers, _answers(part, table.features[test]), strict=True):
            whole[test] = answer
    return fit_combination(answers, table.targets, table.section, shrink=shrink)


def _fit_phase2(phase1: Phase1, table: SpotTable, s: ChrepSettings, seed: int) -> tuple[Gallery, Corrector]:
    """Gallery of the table's spots, and the corrector trained on estimates that leave the own section out."""
    gallery = gallery_of(table, unit_rows(phase1.feature(table.features)))
    # With a single section left there is nobody else to retrieve from: the paper's exclusion has to do.
    exclude: Exclude = s.exclude if len(np.unique(table.section)) > 1 else "self"
    if exclude == "patient" and len(np.unique(table.patient)) < 2:
        exclude = "section"
    found = gallery.search(gallery.z, s.k, exclude=exclude, section=table.section, patient=table.patient)
    corrector = fit_corrector(
        gallery.z, weighted_mean(found, s.temperature, table.targets), table.targets, table.section,
        s.corrector, mae=s.phase1.mae, pcc=s.phase1.pcc, seed=seed,
    )  # fmt: skip
    return gallery, corrector


def _answers(fitted: FittedChrep, features: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """What each of `LEARNERS` says, in that order."""
    response = fitted.respond(features)
    answers = [fitted.read(response, variant) for variant in ("raw", "estimate", "correction")]
    assert fitted.simple is not None  # noqa: S101  (only called for the combination)
    return [*answers, *(fitted.simple.genes(response[name], ALL) for name in ("linear", "forest"))]
