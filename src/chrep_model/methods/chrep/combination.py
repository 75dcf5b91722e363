"""Learn how CHRep's learners combine, from what they say of training sections that they have not seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from chrep_model.calibration.calibrator import (
    Answers,
    cross_combined,
    cross_offset,
    fit_combination,
    mean_error,
)
from chrep_model.methods.base import leave_section_out, trust_of
from chrep_model.methods.chrep.fitted import LEARNERS, FittedChrep
from chrep_model.methods.chrep.settings import ChrepSettings
from chrep_model.training.run import Run
from chrep_model.training.samples import SpotTable
from chrep_model.training.streamed import Streamed

PATCHES, LEARNED_ON = 16, 2**17
"""Of a streamed table, so many sections at most, and spots in all, are what ridge, forest and combination are
learned on: a weight for each gene and learner wants no more."""

Fit = Callable[[SpotTable, Run], FittedChrep]
"""Fits the learners to some rows of the training table."""


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


def fit_combined(
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
        for whole, answer in zip(answers, part.answers(response), strict=True):
            whole[test] = answer
        spread[test], distance[test] = part.spread(response), response["distance"]
    return answers, spread, distance
