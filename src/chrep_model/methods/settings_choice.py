"""Choose settings that the papers do not give, by one search inside the training for all methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from chrep_model.methods.base import FittedMethod
from chrep_model.statistics import gene_correlations
from chrep_model.training.run import SILENT_RUN, Run
from chrep_model.training.samples import SpotTable

BUDGET = 6
"""Fits that a method may spend on choosing, whichever it is."""

S = TypeVar("S")


def choose_settings(
    candidates: Sequence[S],
    fit: Callable[[S, SpotTable, Run], FittedMethod],
    table: SpotTable,
    run: Run = SILENT_RUN,
) -> S:
    """Return the candidate with the highest mean gene-wise PCC on one held-out training section.

    The section of median size is held out; with a single one the first candidate, which is the published or
    the plain choice, is taken.

    Parameters
    ----------
    candidates : sequence
        Settings, at most `BUDGET`; of equal ones the first wins.
    fit : callable
        Fits one of them to part of the table.
    table : SpotTable
        Training spots.
    run : Run
        Gets a line per fit.
    """
    if len(candidates) > BUDGET:
        raise ValueError(f"{len(candidates)} candidates are more than the budget of {BUDGET}")
    sections, sizes = np.unique(table.section, return_counts=True)
    if len(sections) < 2:
        return candidates[0]
    held_out = table.section == sections[np.argsort(sizes, kind="stable")[len(sizes) // 2]]
    genes = table.testable(table.section[held_out][0])
    scores = []
    for i, candidate in enumerate(candidates, start=1):
        run.message(f"search: {i} of {len(candidates)}")
        fitted = fit(candidate, table.rows(~held_out), run.within(f"candidate {i}"))
        predicted = fitted.predict(table.features[held_out])
        correlations = gene_correlations(table.targets[held_out], predicted)[genes]
        scores.append(float(np.nan_to_num(correlations).mean()))
    best = int(np.argmax(scores))
    run.message(f"search: {best + 1} of {len(candidates)} is best, PCC {scores[best]:.3f}")
    return candidates[best]
