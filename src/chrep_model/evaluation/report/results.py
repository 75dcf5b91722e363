"""What was measured, as the page asks for it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from chrep_model.cohorts.section import Section
from chrep_model.evaluation.metrics import LOG10_SPOT
from chrep_model.evaluation.oracle import ORACLE
from chrep_model.evaluation.report.words import Figure, method_words
from chrep_model.evaluation.scoring import SMOOTHED
from chrep_model.evaluation.summary import trusted_variants
from chrep_model.methods.registry import find

if TYPE_CHECKING:
    from chrep_model.methods.base import Kind

Key = tuple[str, str]
"""A method and one of its variants."""


@dataclass(frozen=True)
class Results:
    """The frames and the summary of a benchmark.

    Attributes
    ----------
    table, per_gene : DataFrame
        As in ``scores.csv`` and ``per_gene.parquet``.
    summary : dict
        As in ``summary.json``.
    maps, intervals : DataFrame
        As in ``maps.parquet`` and ``intervals.parquet``; empty where nothing was measured.
    slides : mapping
        Test section -> what its slide is shown from; those that are missing are not shown.
    """

    table: pd.DataFrame
    per_gene: pd.DataFrame
    summary: dict[str, Any]
    maps: pd.DataFrame
    intervals: pd.DataFrame
    slides: Mapping[str, Section] = field(default_factory=dict)

    @cached_property
    def keys(self) -> list[Key]:
        """All methods and variants, in the order in which they were run."""
        return list(dict.fromkeys(zip(self.table["method"], self.table["variant"], strict=True)))

    @cached_property
    def trusted(self) -> dict[str, str]:
        """Method -> its variant to trust: the one named last, smoothing apart."""
        return trusted_variants(self.table)

    @cached_property
    def contenders(self) -> list[Key]:
        """The trusted variants, best correlation first; without the oracle."""
        keys = [(m, v) for m, v in self.trusted.items() if m != ORACLE]
        return sorted(keys, key=lambda key: -_or(self.mean(key, "pcc_acg"), -1.0))

    @cached_property
    def speaking(self) -> list[Key]:
        """The contenders whose predictions vary at all within some section."""
        values = self.by_fold("pcc_acg")
        return [key for key in self.contenders if values[key].fillna(0).any()]

    @property
    def rival(self) -> Key | None:
        """The published rival with the highest correlation, where one was run."""
        return self._best_of("rival")

    @property
    def subject(self) -> Key:
        """Whom the page is about: ours, or the leader where ours was not run."""
        return self._best_of("own") or self.contenders[0]

    @cached_property
    def references(self) -> list[Key]:
        """What the subject is held against: ridge, trees, the best published rival; else the next best."""
        wanted = [self.trusted_of("ridge"), self.trusted_of("trees"), self.rival]
        found = [key for key in wanted if key is not None and key != self.subject]
        return found or [key for key in self.speaking if key != self.subject][:1]

    @cached_property
    def folds(self) -> list[str]:
        """Test sections, in the order of the cohort."""
        return [str(fold) for fold in dict.fromkeys(self.table["fold"])]

    @cached_property
    def patients(self) -> dict[str, str]:
        """Test section -> patient."""
        return dict(zip(self.table["fold"], self.table["patient"].astype(str), strict=True))

    def trusted_of(self, method: str) -> Key | None:
        """The method with its trusted variant; ``None`` if it was not run."""
        return (method, self.trusted[method]) if method in self.trusted else None

    def _best_of(self, kind: Kind) -> Key | None:
        """The method of a kind with the highest correlation; ``None`` if none was run."""
        return next((key for key in self.contenders if kind_of(key) == kind), None)

    def measured(self, figure: Figure) -> bool:
        """Whether any method has this figure."""
        return any(self.entry(key, figure.metric, figure.space) for key in self.keys)

    @property
    def several_seeds(self) -> bool:
        """Whether some method was repeated."""
        return self.table["seed"].nunique() > 1

    def entry(self, key: Key, metric: str, space: str = LOG10_SPOT) -> dict[str, Any] | None:
        """The summary's line on one figure."""
        return self._entries.get((*key, metric, space))

    def mean(self, key: Key, metric: str, space: str = LOG10_SPOT) -> float:
        """Mean over the test sections; NaN where it was not measured."""
        entry = self.entry(key, metric, space)
        return float("nan") if entry is None or entry["mean"] is None else float(entry["mean"])

    def by_fold(self, metric: str, space: str = LOG10_SPOT) -> dict[Key, pd.Series]:
        """Method and variant -> one value per test section, mean over seeds."""
        part = self.table[(self.table["metric"] == metric) & (self.table["space"] == space)]
        return {
            (str(method), str(variant)): rows.groupby("fold")["value"].mean().reindex(self.folds)
            for (method, variant), rows in part.groupby(["method", "variant"], sort=False)
        }

    def difference(self, key: Key, reference: Key, metric: str = "pcc_acg") -> dict[str, Any] | None:
        """The summary's line on one method against another, paired over test sections."""
        found = (d for d in self.summary["differences"] if (d["method"], d["metric"]) == (key[0], metric))
        return next((d for d in found if d["reference"] == reference[0]), None)

    def difference_to_rival(self, key: Key, metric: str) -> dict[str, Any] | None:
        """The summary's line on a method against the published rival that is best in this figure."""
        wanted = (key[0], metric, "rival")
        found = (d for d in self.summary["differences"] if (d["method"], d["metric"], d["against"]) == wanted)
        return next(found, None)

    @cached_property
    def genes(self) -> pd.DataFrame:
        """One row per gene, means over sections and seeds.

        Columns ``mean`` and where measured ``ceiling``, both of the truth, and for every method and variant
        ``(figure, method, variant)`` with figure in ``pcc``, ``ssim``, ``rvd``.
        """
        facts = [c for c in ("mean", "ceiling") if c in self.per_gene]
        figures = [c for c in ("pcc", "ssim", "rvd") if c in self.per_gene]
        found: dict[Hashable, pd.Series] = {
            fact: self.per_gene.groupby("gene", sort=False)[fact].mean() for fact in facts
        }
        for (method, variant), rows in self.per_gene.groupby(["method", "variant"], sort=False):
            by_gene = rows.groupby("gene", sort=False)
            found |= {(figure, method, variant): by_gene[figure].mean() for figure in figures}
        genes = pd.concat(list(found.values()), axis=1)
        genes.columns = pd.Index(list(found), tupleize_cols=False)
        return genes

    def label(self, key: Key) -> str:
        """How a method's variant is written: without the variant where there is only one."""
        method, variant = key
        name = method_words(method)[0]
        only = len([m for m, v in self.keys if m == method and v != SMOOTHED]) == 1
        return name if only and variant != SMOOTHED else f"{name} {variant}"

    @cached_property
    def _entries(self) -> dict[tuple[str, str, str, str], dict[str, Any]]:
        return {(e["method"], e["variant"], e["metric"], e["space"]): e for e in self.summary["scores"]}


def kind_of(key: Key) -> Kind | None:
    """Return what a method is here; None for one that is not known."""
    method = find(key[0])
    return None if method is None else method.kind


def _or(value: float, other: float) -> float:
    return value if np.isfinite(value) else other
