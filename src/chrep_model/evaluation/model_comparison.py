"""Compare a retrained model with the model in use, section by section, before it is replaced.

Every section is predicted by a model that was made in the new way without it, or without any section of its
patient, and by the model in use. Where the model in use was trained on the section, its score flatters it,
and the row says so. The model that is kept in the end is made of all sections; what it is worth on a new one,
these scores tell.
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
"""Sections that must be left when one is held out: training and calibrating hold one out themselves."""

FOLDS = 5
"""Groups that are held out in turn, at most."""

Look = Callable[[Bundle, Section], NDArray[np.float32]]
"""Features of a section's spots, (n, d), as a bundle's encoder and context see them."""

Fit = Callable[[Cohort, str], Bundle]
"""Makes a bundle of a cohort in the new way; gets the name of what is held out."""

Seen = Literal["no", "patient", "section"]


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=True, ser_json_inf_nan="constants")


class Score(_Facts):
    """Accuracy of a model on one section.

    Attributes
    ----------
    pcc : float
        Mean over the genes of their Pearson correlation over the spots.
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
        Which both models know and the section measured; only these are scored.
    seen : {"no", "patient", "section"}
        What of it the model in use was trained on: nothing, another section of the patient, the section.
    in_use : Score or None
        None where the model in use has no gene in common with the new one, or with the section.
    new : Score
        Of a model that was made without this section.
    kept : bool
        Whether the new model has heads that were trained on this section all the same: calibrating keeps
        those of the model in use.
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
        One per section that was held out; none where nothing could be held out.
    how : str
        What was done, in sentences for the user.
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
    """Return the names of sections that are held out together: one patient's, else one by one.

    Parameters
    ----------
    cohort : Cohort
        All sections.
    card : Card
        Of the model in use: groups with sections that it has not seen come first, as only there the
        comparison is fair to both.
    most : int
        Groups at most.

    Returns
    -------
    list of tuple of str
        Empty where fewer than `LEAST` sections would be left.
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
        On all of which the new model will be made.
    fit : callable
        Makes a bundle in the new way. It gets a cohort that lacks what is held out.
    look : callable
        See `Look`.
    folds : int
        So many groups are held out at most; 0 for no comparison.

    Returns
    -------
    ModelComparison
        Genes that both models know and the section measured are scored, each model in its own units: counts
        per spot are normalised
        over the model's genes, which makes a difference where the two panels differ.
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
    except GeneError:  # the section names its genes otherwise
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
