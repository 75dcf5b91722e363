"""Comparison of a retrained model with the model in use, section by section, before it is replaced.

Every section is predicted by the model in use, and by a new model trained without that section, or without
any section of its patient. If the model in use was trained on the section, its score is too good, and the row
is marked. The final new model is trained on all sections; the scores estimate its accuracy on a new one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from chrep_model.bundle import Bundle
from chrep_model.cohorts.cohort import Cohort
from chrep_model.cohorts.section import Section
from chrep_model.errors import GeneError
from chrep_model.statistics import gene_correlations, mean_of_known

if TYPE_CHECKING:
    from chrep_model.bundle.card import Card

LEAST = 2
"""Fewest sections to train on when others are held out; training and calibration hold out one more."""

FOLDS = 5
"""Largest number of groups that are held out in turn."""

Look = Callable[[Bundle, Section], NDArray[np.float32]]
"""Function that returns the features of a section's spots, (n, d), for a bundle's encoder and context."""

Fit = Callable[[Cohort, str], Bundle]
"""Function that trains a new bundle on a cohort, given the name of the held-out group."""

Seen = Literal["no", "patient", "section"]


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=True, ser_json_inf_nan="constants")


class Score(_Facts):
    """Accuracy of a model on one section.

    Attributes
    ----------
    pcc : float
        Mean over genes of the Pearson correlation over spots.
    mse : float
        Mean squared error, log10-spot units.
    """

    pcc: float
    mse: float


class SectionScores(_Facts):
    """Scores of both models on one section.

    Attributes
    ----------
    section, patient : str
    spots : int
    genes : int
        Number of scored genes: those in both models that the section measured.
    seen : {"no", "patient", "section"}
        Whether the model in use was trained on this section, on another section of its patient, or neither.
    in_use : Score or None
        Score of the model in use; None if it has no gene in common with the new model or the section.
    new : Score
        Score of a new model trained without this section.
    kept : bool
        Whether the new model's heads were nevertheless trained on this section, because calibration keeps
        the heads of the model in use.
    """

    section: str
    patient: str
    spots: int
    genes: int
    seen: Seen
    in_use: Score | None
    new: Score
    kept: bool = False


class ModelComparison(_Facts):
    """Result of comparing the model in use with a new one.

    Attributes
    ----------
    rows : tuple of SectionScores
        One per held-out section; empty if no section could be held out.
    how : str
        Description of the comparison, in sentences for the user.
    """

    rows: tuple[SectionScores, ...]
    how: str

    def mean(self, *, fair: bool = False) -> tuple[Score, Score] | None:
        """Return mean scores (in use, new) over rows that have both; `fair`: over unseen sections only."""
        pairs = [(r.in_use, r.new) for r in self.rows if r.in_use and not (fair and r.seen == "section")]
        if not pairs:
            return None
        old, new = ([pair[i] for pair in pairs] for i in (0, 1))
        return _mean(old), _mean(new)


def _mean(scores: Sequence[Score]) -> Score:
    pcc, mse = (np.array([getattr(s, name) for s in scores]) for name in ("pcc", "mse"))
    return Score(pcc=mean_of_known(pcc), mse=mean_of_known(mse))


def seen_by(card: Card, section: Section) -> Seen:
    """Return whether a model was trained on a section or its patient, by the names on its card."""
    known = [*card.sections, *card.of_heads]
    if any(section.name == s["name"] or section.slide_path.name == s["slide"] for s in known):
        return "section"
    return "patient" if any(section.patient == s["patient"] for s in known) else "no"


def held_out_groups(cohort: Cohort, card: Card, most: int = FOLDS) -> list[tuple[str, ...]]:
    """Return groups of sections to hold out together: those of one patient, else single sections.

    Parameters
    ----------
    cohort : Cohort
        All sections.
    card : Card
        Card of the model in use. Groups with sections that it was not trained on come first, because only
        for these the comparison is fair.
    most : int
        Largest number of groups.

    Returns
    -------
    list of tuple of str
        Names of the sections in each group; empty if fewer than `LEAST` training sections would remain.
    """
    by_patient = [names for names in cohort.patients.values() if len(cohort) - len(names) >= LEAST]
    alone = [(name,) for name in cohort.names] if len(cohort) > LEAST else []
    groups = by_patient if len(by_patient) > 1 else alone
    fresh = [any(seen_by(card, cohort[name]) == "no" for name in group) for group in groups]
    return [groups[i] for i in sorted(range(len(groups)), key=lambda i: not fresh[i])][:most]


def compare(in_use: Bundle, cohort: Cohort, fit: Fit, look: Look, *, folds: int = FOLDS) -> ModelComparison:
    """Score the model in use and a newly trained one on the sections of a cohort.

    Parameters
    ----------
    in_use : Bundle
        The model that may be replaced.
    cohort : Cohort
        Sections on which the final new model will be trained.
    fit : callable
        Trains a new bundle on a cohort without the held-out group.
    look : callable
        See `Look`.
    folds : int
        Largest number of groups to hold out; 0 for no comparison.

    Returns
    -------
    ModelComparison
        Scores of genes in both models that the section measured. Each model is scored in its own units, as
        counts are normalised over the model's genes, which differ if the panels do.
    """
    groups = held_out_groups(cohort, in_use.card, folds)
    rows = []
    for group in groups:
        new = fit(cohort.without(group), " and ".join(group))
        rows += [_row(in_use, new, cohort[name], look) for name in group]
    return ModelComparison(rows=tuple(rows), how=_how(cohort, groups, rows, folds))


def _row(in_use: Bundle, new: Bundle, section: Section, look: Look) -> SectionScores:
    known, listed = set(in_use.genes), set(section.genes)
    measured = [gene for gene in new.genes if gene in listed]
    common = [gene for gene in measured if gene in known]
    genes = common or measured or list(new.genes)
    try:
        old = _score(in_use, section, common, look) if common else None
    except GeneError:  # the section uses other gene names
        old = None
    return SectionScores(
        section=section.name, patient=section.patient, spots=len(section), genes=len(genes),
        seen=seen_by(in_use.card, section), in_use=old, new=_score(new, section, genes, look),
        kept=seen_by(new.card, section) == "section",
    )  # fmt: skip


def _score(bundle: Bundle, section: Section, genes: Sequence[str], look: Look) -> Score:
    model, columns = bundle.model, np.array([bundle.panel.index(gene) for gene in genes])
    response = model.respond(look(bundle, section))
    predicted = model.read(response, model.fitted.variants[-1], columns)
    truth = model.panel.expression(section)[:, columns]
    return Score(
        pcc=mean_of_known(gene_correlations(truth, predicted)),
        mse=float(np.mean((predicted.astype(np.float64) - truth) ** 2)),
    )


def _sections(count: int) -> str:
    """Return a number of sections as text."""
    return f"{count} section" if count == 1 else f"{count} sections"


def _how(cohort: Cohort, groups: list[tuple[str, ...]], rows: Sequence[SectionScores], folds: int) -> str:
    if not folds:
        return "Not compared: no section was to be held out."
    if not groups:
        return (
            f"Not compared: the cohort has {_sections(len(cohort))}, and with one held out at least {LEAST} "
            "must be left to make a model of. Add sections to learn whether the new model is better."
        )
    what = "patient" if any(len(group) > 1 for group in groups) else "section"
    tested = sum(len(group) for group in groups)
    were = "was" if tested == 1 else "were each"
    text = (
        f"{_sections(tested)} {were} predicted by a model made in the new way without it"
        f"{' and without the other sections of its patient' if what == 'patient' else ''}."
    )
    if tested < len(cohort):
        text += f" {len(cohort) - tested} of the cohort's {len(cohort)} were not held out, to save time."
    if any(row.seen == "section" for row in rows):
        text += " Where the model in use was trained on the section, its score flatters it"
        text += ", and the new one's as well: it keeps the heads." if any(row.kept for row in rows) else "."
    if any(row.in_use is None for row in rows):
        text += " Where it has no gene in common with the section or the new model, it has no score."
    return text
