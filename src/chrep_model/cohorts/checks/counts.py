"""Check for spots without counts, and for genes without counts that are common in other sections."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from chrep_model.cohorts.checks.section_view import SectionView
from chrep_model.cohorts.findings import Finding
from chrep_model.cohorts.section import Section

#: A gene detected in this share of the other sections' spots cannot be without counts by chance.
_COMMON = 0.20
#: Sections with fewer spots are not compared with others.
_FEWEST_SPOTS = 30


def findings(view: SectionView) -> Iterator[Finding]:
    """Find spots without any count."""
    totals = np.asarray(view.counts.sum(axis=1)).ravel()
    empty = int((totals == 0).sum())
    if empty == len(totals):
        yield Finding("error", "No spot has any count.", "Check that X holds the raw counts.")
    elif empty:
        yield Finding(
            "warning",
            f"{empty:,} of {len(totals):,} spots have no counts.",
            "Leave them out of the h5ad: a model would learn that this tissue expresses nothing.",
        )


def between_sections(sections: Sequence[Section]) -> Iterator[tuple[str, Finding]]:
    """Find genes that have no counts in one section although they are common in the others."""
    detected = [
        dict(
            zip(section.genes, np.bincount(section.counts.indices, minlength=len(section.genes)), strict=True)
        )
        for section in sections
    ]
    for section, own in zip(sections, detected, strict=True):
        if len(section) < _FEWEST_SPOTS:
            continue
        others = [
            (len(other), found)
            for other, found in zip(sections, detected, strict=True)
            if other is not section
        ]
        never = []
        for gene in (gene for gene, spots in own.items() if spots == 0):
            measured = [(spots, found[gene]) for spots, found in others if found.get(gene)]
            if measured and sum(n for _, n in measured) > _COMMON * sum(spots for spots, _ in measured):
                never.append(gene)
        if never:
            shown = ", ".join(never[:5]) + (", ..." if len(never) > 5 else "")
            yield (
                section.name,
                Finding(
                    "warning",
                    f"{len(never):,} genes have no count in any of its spots, and are common in other "
                    f"sections ({shown}): they are taken as zero here.",
                    "Leave their columns out of this file if they were not measured.",
                ),
            )
