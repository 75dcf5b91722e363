"""The results of an evaluation, as the parts of the report look them up."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from chrep_model.cohorts.section import Section
from chrep_model.evaluation.metrics import LOG10_SPOT
from chrep_model.evaluation.oracle import ORACLE
from chrep_model.evaluation.report.glossary import METRICS, Metric, method_text
from chrep_model.evaluation.scoring import SMOOTHED
from chrep_model.evaluation.summary import trusted_variants
from chrep_model.evaluation.tables import Tables
from chrep_model.methods.registry import find

if TYPE_CHECKING:
    from chrep_model.methods.base import Kind

PCC = METRICS[0]

Key = tuple[str, str]
"""A method and one of its variants."""


@dataclass(frozen=True)
class Results:
    """The tables and the summary of an evaluation.

    Attributes
    ----------
    tables : Tables
        As written to the evaluation's folder.
    summary : dict
        As in ``summary.json``.
    slides : mapping
        Test section -> the section whose slide is shown beside its maps.
    """

    tables: Tables
    summary: dict[str, Any]
    slides: Mapping[str, Section]

    @cached_property
    def keys(self) -> list[Key]:
        """All methods and variants, in the order in which they were run."""
        scores = self.tables.scores
        return list(dict.fromkeys(zip(scores["method"], scores["variant"], strict=True)))

    @cached_property
    def trusted(self) -> dict[str, str]:
        """Method -> its variant to trust: the last one that is not smoothed."""
        return trusted_variants(self.tables.scores)

    @cached_property
    def contenders(self) -> list[Key]:
        """The trusted variants without the oracle, highest correlation first."""
        keys = [(m, v) for m, v in self.trusted.items() if m != ORACLE]
        return self.ranked(keys)

    @cached_property
    def varying(self) -> list[Key]:
        """The contenders whose predictions vary within some test section."""
        values = self.by_fold("pcc_acg")
        return [key for key in self.contenders if values[key].fillna(0).any()]

    @property
    def rival(self) -> Key | None:
        """The published rival with the highest correlation, if one was run."""
        return self._best_of("rival")

    @property
    def subject(self) -> Key:
        """The method that the report is about: ours, or the best one if ours was not run."""
        return self._best_of("own") or self.contenders[0]

    @cached_property
    def references(self) -> list[Key]:
        """What the subject is compared with: ridge, trees, the best published rival; or the next best."""
        wanted = [self.trusted_of("ridge"), self.trusted_of("trees"), self.rival]
        found = [key for key in wanted if key is not None and key != self.subject]
        return found or [key for key in self.varying if key != self.subject][:1]

    @cached_property
    def folds(self) -> list[str]:
        """Test sections, in the order of the cohort."""
        return [str(fold) for fold in dict.fromkeys(self.tables.scores["fold"])]

    @cached_property
    def patients(self) -> dict[str, str]:
        """Test section -> patient."""
        scores = self.tables.scores
        return dict(zip(scores["fold"], scores["patient"].astype(str), strict=True))

    @property
    def one_patient(self) -> bool:
        """Whether there are several test sections, all of one patient."""
        return len(self.patients) > 1 and len(set(self.patients.values())) == 1

    def _best_of(self, kind: Kind) -> Key | None:
        """Return the method of a kind with the highest correlation; None if none was run."""
        return next((key for key in self.contenders if kind_of(key) == kind), None)

    @property
    def siblings_in_training(self) -> bool:
        """Whether sections of a test section's patient may have been trained on."""
        settings, several = self.summary["settings"], len(set(self.patients.values())) < len(self.patients)
        return settings["split"] == "section" and bool(several or settings.get("test_sections"))

    @property
    def several_seeds(self) -> bool:
        """Whether some method was run with more than one seed."""
        return self.tables.scores["seed"].nunique() > 1

    @property
    def genes_not_measured(self) -> bool:
        """Whether some test section lacks genes."""
        return any((counts > 0).any() for counts in self.by_fold("genes_not_measured").values())

    def trusted_of(self, method: str) -> Key | None:
        """Return a method with its trusted variant, or None if it was not run."""
        return (method, self.trusted[method]) if method in self.trusted else None

    def measured(self, metric: Metric) -> bool:
        """Whether any method has a value of this metric."""
        return any(self.entry(key, metric) for key in self.keys)

    def entry(self, key: Key, metric: Metric = PCC) -> dict[str, Any] | None:
        """Return the summary's entry on one metric of one method."""
        return self._entries.get((*key, metric.name, metric.space))

    def mean(self, key: Key, metric: Metric = PCC) -> float:
        """Return the mean over the test sections, NaN if it was not measured."""
        entry = self.entry(key, metric)
        return float("nan") if entry is None or entry["mean"] is None else float(entry["mean"])

    def ranked(self, keys: list[Key]) -> list[Key]:
        """Sort by mean correlation, highest first; those without one come last."""
        return sorted(keys, key=lambda key: -np.nan_to_num(self.mean(key), nan=-1.0))

    def by_fold(self, metric: str, space: str = LOG10_SPOT) -> dict[Key, pd.Series]:
        """Return one value per test section for every method and variant, the mean over seeds."""
        scores = self.tables.scores
        part = scores[(scores["metric"] == metric) & (scores["space"] == space)]
        return {
            (str(method), str(variant)): rows.groupby("fold")["value"].mean().reindex(self.folds)
            for (method, variant), rows in part.groupby(["method", "variant"], sort=False)
        }

    def difference(self, key: Key, reference: Key, metric: str = "pcc_acg") -> dict[str, Any] | None:
        """Return the summary's entry on one method against another, paired over test sections."""
        return self._difference(key, metric, reference=reference[0])

    def difference_to_rival(self, key: Key, metric: str) -> dict[str, Any] | None:
        """Return the summary's entry on a method against the published rival that is best in this metric."""
        return self._difference(key, metric, against="rival")

    def _difference(self, key: Key, metric: str, **wanted: str) -> dict[str, Any] | None:
        wanted |= {"method": key[0], "metric": metric}
        return next((d for d in self.summary["differences"] if wanted.items() <= d.items()), None)

    @cached_property
    def genes(self) -> pd.DataFrame:
        """One row per gene, means over sections and seeds.

        Columns ``mean`` and where measured ``ceiling``, both of the truth, and for every method and variant
        ``(figure, method, variant)`` with figure in ``pcc``, ``ssim``, ``rvd``.
        """
        per_gene = self.tables.per_gene
        facts = [c for c in ("mean", "ceiling") if c in per_gene]
        figures = [c for c in ("pcc", "ssim", "rvd") if c in per_gene]
        found: dict[Hashable, pd.Series] = {
            fact: per_gene.groupby("gene", sort=False)[fact].mean() for fact in facts
        }
        for (method, variant), rows in per_gene.groupby(["method", "variant"], sort=False):
            by_gene = rows.groupby("gene", sort=False)
            found |= {(figure, method, variant): by_gene[figure].mean() for figure in figures}
        genes = pd.concat(list(found.values()), axis=1)
        genes.columns = pd.Index(list(found), tupleize_cols=False)
        return genes

    def label(self, key: Key) -> str:
        """Return the title of a method, with its variant if there are several besides the smoothed one."""
        method, variant = key
        title = method_text(method)[0]
        only = len([m for m, v in self.keys if m == method and v != SMOOTHED]) == 1
        return title if only and variant != SMOOTHED else f"{title} {variant}"

    @cached_property
    def _entries(self) -> dict[tuple[str, str, str, str], dict[str, Any]]:
        return {(e["method"], e["variant"], e["metric"], e["space"]): e for e in self.summary["scores"]}


def kind_of(key: Key) -> Kind | None:
    """Return what a method is here; None for one that is not known."""
    method = find(key[0])
    return None if method is None else method.kind
