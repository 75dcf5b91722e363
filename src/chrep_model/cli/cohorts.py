"""Helpers of the commands that open a cohort, check it, and print the findings on stderr."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from chrep_model.cli import console
from chrep_model.cohorts.cohort import Cohort, open_cohort
from chrep_model.cohorts.findings import Finding
from chrep_model.cohorts.pair_check import check_cohort, first_error
from chrep_model.progress import Progress

Findings = Mapping[str, tuple[Finding, ...]]


def checked_cohort(path: Path, excluded: Collection[str] = (), *, progress: Progress) -> Cohort:
    """Open a cohort, check its sections except excluded ones, and print the findings.

    Raises
    ------
    CohortError
        A section has an error.
    """
    cohort, found = read_and_check(path, excluded, progress=progress)
    wrong = first_error(cohort, found)
    if os.environ.get("RANK", "0") == "0":  # torchrun starts several processes, and only the first prints
        print_findings(cohort, found)
    if wrong is not None:
        raise wrong
    return cohort


def read_and_check(
    path: Path, excluded: Collection[str] = (), *, progress: Progress
) -> tuple[Cohort, Findings]:
    """Open a cohort, check its sections except excluded ones, and return it with the findings."""
    cohort = open_cohort(path, progress=progress)
    checked = cohort.without(excluded) if excluded else cohort
    return cohort, check_cohort(checked, progress=progress)


def print_findings(cohort: Cohort, found: Findings) -> None:
    """Print a line for each finding: corrections, warnings and errors.

    The first error is not printed, because the command ends with it, see `first_error`.
    """
    first = next((finding for of in found.values() for finding in of if finding.level == "error"), None)
    for name, findings in found.items():
        for finding in findings:
            done = finding in cohort[name].findings
            if finding is first or (finding.level == "ok" and not done):
                continue
            level = "" if finding.level == "ok" else f"{finding.level}: "
            console.warn(f"section {name}: {level}{finding.text} {finding.remedy}".rstrip())
