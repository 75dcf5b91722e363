"""CHRep (arXiv 2604.21573) on frozen embeddings, with our combination of learners.

Phase 1 trains an adapter with three losses: correlation-aware regression, symmetric image-gene alignment,
topology. Phase 2 freezes it, builds a gallery of training spots and predicts by the neighbours' weighted mean
(Estimate) plus a learned residual (Correction). That much is the paper; it stands in the variants ``raw``,
``estimate`` and ``correction``.

``calibrated`` is ours: instead of throwing the head away, it combines head, estimate and correction with two
simple learners on the same embeddings (a low-rank ridge and a forest, see `simple`), by weights that are
learned per gene from predictions on training sections which the learners had not seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from chrep_model.calibration.calibrator import (
    Answers,
    Combination,
    cross_combined,
    cross_offset,
    fit_combination,
    mean_error,
)
from chrep_model.calibration.corrector import Corrector, CorrectorSettings, fit_corrector
from chrep_model.calibration.gallery import (
    Exclude,
    Gallery,
    neighbour_spread,
    weighted_mean,
)
from chrep_model.methods.base import (
    ALL,
    Arrays,
    FittedMethod,
    Genes,
    Method,
    Response,
    Term,
    gallery_of,
    leave_section_out,
    trust_of,
)
from chrep_model.methods.phase1 import Member, Phase1, Phase1Settings, fit_phase1
from chrep_model.methods.ridge import choose_penalty
from chrep_model.methods.search import choose
from chrep_model.methods.simple import Simple, choose_rank
from chrep_model.training.objective import Objective
from chrep_model.training.run import SILENT_RUN, Run
from chrep_model.training.samples import SpotTable
from chrep_model.training.streamed import Streamed

TAUGHT = 2**16
"""Spots of a streamed table, at random, that the corrector is trained on."""

PATCHES, LEARNED_ON = 16, 2**17
"""Of a streamed table, so many sections at most, and spots in all, are what ridge, forest and combination are
learned on: a weight for each gene and learner wants no more."""

LEARNERS = ("head", "estimate", "correction", "linear", "trees")


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


class FittedChrep(FittedMethod):
    """A fitted `Chrep`."""

    name: ClassVar[str] = "chrep"
    variants: ClassVar[tuple[str, ...]] = ("raw", "estimate", "correction", "calibrated")
    k: int
    temperature: float

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
        """Return z_i, the morphology feature F_H at unit length."""
        return self.phase1.compared(features)

    def _respond(self, features: NDArray[np.float32], z: NDArray[np.float32]) -> Response:
        with torch.inference_mode():
            hidden = self.corrector.body(torch.from_numpy(z)).numpy()
        response = {
            "head": self.phase1.hidden(features),
            "corrector": hidden,
        }
        if self.simple is not None:
            response["linear"] = self.simple.linear(features)
            response["forest"] = self.simple.forest.predict(features)
        return response

    def read(self, response: Response, variant: str, genes: Genes = ALL) -> NDArray[np.float32]:
        """``raw`` head; ``estimate`` gE; ``correction`` gE + D, the paper's answer; ``calibrated`` ours."""
        if variant == "raw":
            return self.phase1.read(response["head"], genes)
        found = self.neighbours(response)
        values, known = self.gallery.expression[:, genes], self.gallery.known(genes)
        estimate = weighted_mean(found, self.temperature, values, known)
        if variant == "estimate":
            return estimate
        w, b = self._correction
        corrected: NDArray[np.float32] = estimate + response["corrector"] @ w[:, genes] + b[genes]
        if variant == "correction" or self.simple is None or self.combination is None:
            return corrected
        head = self.phase1.read(response["head"], genes)
        simple = [self.simple.genes(response[name], genes) for name in ("linear", "forest")]
        return self.combination([head, estimate, corrected, *simple], genes)

    def spread(self, response: Response, genes: Genes = ALL) -> NDArray[np.float32]:
        """Return the weighted sd of the neighbours' measured values, (n, number of genes)."""
        found = self.neighbours(response)
        values, known = self.gallery.expression[:, genes], self.gallery.known(genes)
        return neighbour_spread(found, self.temperature, values, known)

    def terms(self, response: Response, genes: Genes = ALL) -> list[Term]:
        """Return `LEARNERS` with their weights in the combination; in the paper, the correction alone."""
        answers = dict(zip(LEARNERS, _answers(self, response, genes), strict=False))
        if self.combination is None:
            ones = np.ones(answers["head"].shape[1], np.float32)
            weights = {"head": 0 * ones, "estimate": 0 * ones, "correction": ones}
        else:
            weights = dict(zip(LEARNERS, self.combination.weights[:, genes], strict=True))
        terms = [Term(name, answers[name], weight) for name, weight in weights.items()]
        if self.combination is not None and self.combination.offset is not None:
            offset = self.combination.offset[genes]
            everywhere = np.broadcast_to(offset, answers["head"].shape)
            terms.append(Term("site", everywhere, np.ones_like(offset)))
        return terms

    def recalibrated(
        self, table: SpotTable, settings: ChrepSettings, *, seed: int, run: Run = SILENT_RUN
    ) -> FittedChrep:
        """Return a copy with a new gallery, corrector and combination; heads stay.

        Where it lowers the error on the new sections, held out in turn, predictions are also moved by what
        the old learners are off by at the new site, gene by gene.

        Parameters
        ----------
        table : SpotTable
            Spots of at least two newly measured sections, in this model's features and units.
        """
        own = settings.model_copy(update={"k": self.k, "temperature": self.temperature})

        def renewed(rows: SpotTable, run: Run) -> FittedChrep:
            gallery, corrector = _fit_phase2(self.phase1, rows, own, seed, run)
            return FittedChrep(self.phase1, corrector, gallery, self.k, self.temperature, self.simple)

        if self.simple is None:
            return renewed(table, run)
        return _calibrated(table, patches(table, seed), renewed, own, run, elsewhere=True)

    def arrays(self) -> Arrays:
        """Return the weights of all parts, flat."""
        out: Arrays = {f"phase1.{k}": v for k, v in self.phase1.arrays().items()}
        out |= {f"corrector.{k}": v.numpy() for k, v in self.corrector.state_dict().items()}
        out |= {"k": np.array([self.k]), "temperature": np.array([self.temperature])}
        if self.simple is not None and self.combination is not None:
            out |= {f"simple.{k}": v for k, v in self.simple.arrays().items()}
            found = {"weights": self.combination.weights, "offset": self.combination.offset}
            out |= {f"combination.{k}": v for k, v in found.items() if v is not None}
        return out

    @classmethod
    def from_arrays(cls, arrays: Arrays, gallery: Gallery) -> FittedChrep:
        """Build it from stored `arrays`."""

        def part(prefix: str) -> Arrays:
            return {k.removeprefix(f"{prefix}."): v for k, v in arrays.items() if k.startswith(f"{prefix}.")}

        state = {k: torch.from_numpy(v) for k, v in part("corrector").items()}
        hidden, dim = state["body.0.weight"].shape
        corrector = Corrector(dim, len(state["readout.bias"]), hidden, 0.0)
        corrector.load_state_dict(state)
        simple = combination = None
        if "combination.weights" in arrays:
            simple = Simple.from_arrays(part("simple"))
            combination = Combination(**part("combination"))
        k, temperature = int(arrays["k"][0]), float(arrays["temperature"][0])
        return cls(
            Phase1.from_arrays(part("phase1")), corrector, gallery, k, temperature, simple, combination
        )


class Chrep(Method):
    """CHRep with a combination of learners; see the module."""

    name: ClassVar[str] = "chrep"
    random: ClassVar[bool] = True

    candidates: ClassVar[tuple[ChrepSettings, ...]] = (
        ChrepSettings(),
        ChrepSettings(k=100, temperature=0.05),
        ChrepSettings(k=100, temperature=0.2),
        ChrepSettings(k=200, temperature=0.2),
        ChrepSettings(k=200, temperature=0.2, phase1=Phase1Settings(con=0.5, spa=0.1)),
        ChrepSettings(k=200, temperature=0.4),
    )

    def __init__(self, settings: ChrepSettings | None = None) -> None:
        self.settings = settings

    @property
    def streams(self) -> bool:
        """Whether it can train from disk: gallery and networks use all spots, other learners `patches`."""
        return True

    def fit(self, table: SpotTable, *, seed: int, run: Run = SILENT_RUN) -> FittedChrep:
        """Fit on all spots, after one fit without each section to learn the combination.

        Of a streamed table the combination, its simple learners and the choice of settings are learned on
        `patches` of it.

        Candidates for the settings are compared by the paper's answer, estimate plus correction.

        Raises
        ------
        SettingsError
            The table has a single section: there is nothing to leave out.
        """

        def literal(s: ChrepSettings, rows: SpotTable, run: Run) -> FittedChrep:
            return _fit_literal(rows, s, seed, run)

        few = patches(table, seed)
        settings = self.settings or choose(self.candidates, literal, few, run)
        if settings.calibration == "literal":
            return literal(settings, table, run)
        penalty = choose_penalty(few)
        rank = choose_rank(few, penalty)

        def learners(rows: SpotTable, run: Run) -> FittedChrep:
            fitted = literal(settings, rows, run)
            fitted.simple = Simple.fit(few if rows is table else rows, penalty, rank, settings.trees, seed)
            return fitted

        return _calibrated(table, few, learners, settings, run)

    def objective(self, inputs: int, genes: int) -> Objective:
        """Return the network and loss of phase 1."""
        return Member(inputs, genes, (self.settings or ChrepSettings()).phase1)


def patches(table: SpotTable, seed: int) -> SpotTable:
    """Return a subset in memory of a streamed table: patches of spots; another table unchanged.

    Neighbours stay neighbours, as the topology wants them.
    """
    if not isinstance(table.features, Streamed):
        return table
    rng = np.random.default_rng(seed)
    sections = np.unique(table.section)
    sections = rng.choice(sections, min(PATCHES, len(sections)), replace=False)
    keep = np.zeros(len(table), bool)
    for section in sections:
        rows = np.flatnonzero(table.section == section)
        apart = np.linalg.norm(table.position[rows] - table.position[rng.choice(rows)], axis=1)
        keep[rows[np.argsort(apart, kind="stable")[: LEARNED_ON // len(sections)]]] = True
    return replace(table.rows(keep), features=table.features[keep], targets=np.asarray(table.targets[keep]))


def _fit_literal(table: SpotTable, s: ChrepSettings, seed: int, run: Run) -> FittedChrep:
    """Fit both phases of the paper."""
    phase1 = fit_phase1(table, s.phase1, seed, run)
    gallery, corrector = _fit_phase2(phase1, table, s, seed, run)
    return FittedChrep(phase1, corrector, gallery, s.k, s.temperature)


Fit = Callable[[SpotTable, Run], FittedChrep]
"""Fits the learners to some rows of the training table."""


def _calibrated(
    table: SpotTable, few: SpotTable, fit: Fit, s: ChrepSettings, run: Run, *, elsewhere: bool = False
) -> FittedChrep:
    """Fit to the table; fits to `few` without each section teach the combination and its trust."""
    answers, spread, distance = _held_out(few, fit, run)
    targets, section, measured, known = few.targets, few.section, few.measured, few.learnable()
    run.message("all sections")
    fitted = fit(table, run.within("all sections"))
    combination = fit_combination(answers, targets, section, shrink=s.shrink, known=known)
    predicted = cross_combined(answers, targets, section, shrink=s.shrink, known=known)
    if elsewhere:
        moved = cross_offset(predicted, targets, section, measured)
        counted: NDArray[np.bool_] | slice = slice(None) if known is None else known[section]
        if np.mean((moved - targets)[counted] ** 2) < np.mean((predicted - targets)[counted] ** 2):
            offset = mean_error(combination(answers, slice(None)), targets, section, measured)
            combination, predicted = replace(combination, offset=offset), moved
    fitted.combination = combination
    fitted.trust = trust_of(few, predicted, spread, distance)
    return fitted


def _held_out(
    table: SpotTable, fit: Fit, run: Run
) -> tuple[Answers, NDArray[np.float32], NDArray[np.float32]]:
    """Return held-out answers of all learners, the neighbours' spread, and the distance."""
    answers: Answers = [np.empty_like(table.targets) for _ in LEARNERS]
    spread, distance = np.empty_like(table.targets), np.empty(len(table), np.float32)
    folds = leave_section_out(table)
    for i, (train, test) in enumerate(folds):
        name = table.section_names[table.section[test][0]]
        run.message(f"combination: without section {i + 1} of {len(folds)}")
        part = fit(table.rows(train), run.within(f"without {name}").watching(table.rows(test)))
        response = part.respond(table.features[test])
        for whole, answer in zip(answers, _answers(part, response), strict=True):
            whole[test] = answer
        spread[test], distance[test] = part.spread(response), response["distance"]
    return answers, spread, distance


def _fit_phase2(
    phase1: Phase1, table: SpotTable, s: ChrepSettings, seed: int, run: Run
) -> tuple[Gallery, Corrector]:
    """Return the gallery of the table's spots, and a corrector trained without each spot's own section.

    Of a streamed table the corrector sees some spots only: to retrieve for all of them from all of them would
    take the square of their number.
    """
    gallery = gallery_of(table, phase1.compared(table.features))
    # With a single section left there is nobody else to retrieve from: the paper's exclusion has to do.
    exclude: Exclude = s.exclude if len(np.unique(table.section)) > 1 else "self"
    if exclude == "patient" and len(np.unique(table.patient)) < 2:
        exclude = "section"
    taught: NDArray[np.int64] | slice = slice(None)
    if isinstance(table.features, Streamed):
        taught = np.sort(
            np.random.default_rng(seed).choice(len(table), min(TAUGHT, len(table)), replace=False)
        )
    asked, targets, section = gallery.z[taught], table.targets[taught], table.section[taught]
    found = gallery.search(
        asked, s.k, exclude=exclude, section=section, patient=table.patient[taught],
        row=np.arange(len(table))[taught],
    )  # fmt: skip
    watched = None
    if (spots := run.watched) is not None:
        z = phase1.compared(spots.features)
        near = gallery.search(z, s.k)
        estimate = weighted_mean(near, s.temperature, table.targets, gallery.known())
        watched = (z, estimate, spots.targets, spots.section)
    corrector = fit_corrector(
        asked, weighted_mean(found, s.temperature, table.targets, gallery.known()), targets, section,
        s.corrector, mae=s.phase1.mae, pcc=s.phase1.pcc, seed=seed, measured=table.measured, watched=watched,
        run=run.within("corrector"),
    )  # fmt: skip
    return gallery, corrector


def _answers(fitted: FittedChrep, response: Response, genes: Genes = ALL) -> Answers:
    """Return the answers of `LEARNERS`, in that order; without the simple ones if there are none."""
    answers = [fitted.read(response, variant, genes) for variant in ("raw", "estimate", "correction")]
    if fitted.simple is None:
        return answers
    return [*answers, *(fitted.simple.genes(response[name], genes) for name in ("linear", "forest"))]
