"""Whether every spot was counted."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from chrep_model.cohorts.checks.look import Look
from chrep_model.cohorts.findings import Finding


def findings(look: Look) -> Iterator[Finding]:
    """Look for spots without any count."""
    totals = np.asarray(look.counts.sum(axis=1)).ravel()
    empty = int((totals == 0).sum())
    if empty == len(totals):
        yield Finding("error", "No spot has any count.", "Check that X holds the raw counts.")
    elif empty:
        yield Finding(
            "warning",
            f"{empty:,} of {len(totals):,} spots have no counts.",
            "Leave them out of the h5ad: a model would learn that this tissue expresses nothing.",
        )
