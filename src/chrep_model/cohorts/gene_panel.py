"""The gene panel of a model: its genes, and the conversion of their counts to the values that are learned.

The panel is fitted on training sections and stored with the model; test sections are only converted with it.
One unit is used throughout, called *log10-spot*: ``log10(1 + 1e4 * c / l)`` with the count ``c`` and the
spot's total ``l`` over the panel's genes.

A gene that a section does not list was not measured there: it is missing, not zero. Such a section does not
count for the gene, and its totals are increased by the gene's expected counts, see `log10_spot`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from chrep_model.cohorts.aliases import GeneNames
from chrep_model.cohorts.gene_lists import first, listed, nearest
from chrep_model.cohorts.log10_spot import (
    aligned,
    coverage,
    expected_shares,
    log10_spot,
    measured,
    moments,
    shares_of_means,
    spots_measured,
)
from chrep_model.cohorts.section import Section
from chrep_model.errors import GeneError

if TYPE_CHECKING:
    import pandas as pd

MIN_DETECTED = 0.10
# A smaller sd is rounding error, which must not be scaled up to unit variance.
SD_FLOOR = 1e-6
# A section with a smaller share of the panel's genes is assumed to use another kind of gene names.
MIN_PRESENT = 0.5
# Genes are only chosen if at least this share of the training sections measured them.
MIN_MEASURED = 0.5

Warn = Callable[[str], None]


def _silent(line: str) -> None:
    pass


@dataclass(frozen=True, eq=False)
class GenePanel:
    """The genes of a model with the mean and sd of their values in training.

    Attributes
    ----------
    genes : tuple of str
        The most variable first if they were chosen; in the given order if they were listed.
    mean, sd : ndarray
        float32 (G,), log10-spot units, over the training spots of sections that measured the gene; sd is 1
        for a gene that does not vary.
    ids : tuple of str or None
        Second name of each gene in the training data, usually an Ensembl id; empty where unknown. None if
        the data have none.
    share : ndarray
        float64 (G,), sums to 1: each gene's expected share of a spot's counts over the panel. Used for the
        totals of sections that lack genes. Derived from `mean` if not given, as for panels stored by earlier
        versions.
    """

    genes: tuple[str, ...]
    mean: np.ndarray
    sd: np.ndarray
    ids: tuple[str, ...] | None = None
    share: np.ndarray = None  # type: ignore[assignment]  # set in __post_init__

    def __post_init__(self) -> None:
        mean, sd = (np.ascontiguousarray(values, dtype=np.float32) for values in (self.mean, self.sd))
        if not self.genes or mean.shape != (len(self.genes),) or sd.shape != mean.shape:
            raise GeneError(
                f"a panel of {len(self.genes)} genes cannot have {mean.size} means and {sd.size} sds"
            )
        if len(set(self.genes)) != len(self.genes):
            raise GeneError("a gene occurs twice in this panel")
        if self.ids is not None and len(self.ids) != len(self.genes):
            raise GeneError(f"a panel of {len(self.genes)} genes cannot have {len(self.ids)} ids")
        if not (np.isfinite(mean).all() and np.isfinite(sd).all() and (sd > 0).all()):
            raise GeneError("this panel has means or sds that are not finite numbers, or an sd of zero")
        share = shares_of_means(mean) if self.share is None else np.asarray(self.share, np.float64)
        if share.shape != mean.shape or not (np.isfinite(share).all() and (share >= 0).all() and share.any()):
            raise GeneError("this panel's shares are not one number per gene, none of them below zero")
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "sd", sd)
        object.__setattr__(self, "share", share / share.sum())

    @classmethod
    def fit(
        cls,
        sections: Iterable[Section],
        genes: int | Sequence[str] | os.PathLike[str],
        *,
        warn: Warn = _silent,
    ) -> GenePanel:
        """Choose genes on training sections, and compute their mean and sd there.

        Parameters
        ----------
        sections : iterable of Section
            Training sections only. A section does not count for genes that it does not list.
        genes : int, sequence of str, or path
            Number of genes to choose, or the genes as a list or a text file (see
            `gene_lists.read_gene_list`). Chosen are the genes with the largest variance in log10-spot units,
            among those that at least half of the sections measured and that are detected in more than 10 %
            of these sections' spots. If there are fewer, all are taken.
        warn : callable, optional
            Called with a line about listed genes that no section measured; they are not used.

        Raises
        ------
        GeneError
            A name is repeated, no section measured any listed gene, or no gene is detected often enough.
        """
        sections = tuple(sections)
        if not sections:
            raise GeneError("genes cannot be chosen without a training section")
        known = tuple(dict.fromkeys(name for section in sections for name in section.genes))
        if isinstance(genes, (int, np.integer)):
            names = _most_variable(sections, known, int(genes))
        else:
            names = listed(genes, sections, known, warn)
        counts = [aligned(section, names) for section in sections]
        present = np.stack([measured(section, names) for section in sections])
        share = expected_shares(counts, present)
        mean, sd = moments(_values(counts, present, share), present)
        sd = np.where(sd < SD_FLOOR, 1.0, sd)
        return cls(names, mean.astype(np.float32), sd.astype(np.float32), _ids(sections, names), share)

    def __len__(self) -> int:
        return len(self.genes)

    def expression(self, section: Section) -> np.ndarray:
        """Return a section's measured values for the genes of this panel.

        Returns
        -------
        ndarray
            float32 (n, G), log10-spot units. A gene that the section does not list, and so did not measure,
            is NaN in all spots. A spot without any count on the panel is 0 for all measured genes.

        Raises
        ------
        GeneError
            The section lists fewer than half of the panel's genes, so it uses another kind of gene names.
        """
        missing = self._checked_missing(section)
        present = self.measured(section)
        values = log10_spot(aligned(section, self.genes), coverage(self.share, present))
        out: np.ndarray = values.toarray().astype(np.float32)
        if missing:
            out[:, ~present] = np.nan
        return out

    def _checked_missing(self, section: Section) -> tuple[str, ...]:
        """Return `missing`; GeneError if more than half of the genes are missing."""
        missing = self.missing(section)
        if len(missing) > len(self.genes) * (1 - MIN_PRESENT):
            raise GeneError(
                f"section {section.name} lists only {len(self.genes) - len(missing)} of the panel's "
                f"{len(self.genes)} genes (not {', '.join(missing[:3])}, ...; "
                f"it has {', '.join(section.genes[:3])}, ...)",
                path=section.counts_path,
                remedy="Use the same kind of gene names (symbols or Ensembl ids, same species) in both; "
                "where a section measured few genes, list genes that all measured, or leave the section out.",
            )
        return missing

    def depth(self, section: Section) -> np.ndarray:
        """Return each spot's total counts over the panel's genes, float32 (n,).

        If the section did not measure all of them, the expected counts of the others are added.
        """
        total = np.asarray(aligned(section, self.genes).sum(axis=1)).ravel()
        return (total / coverage(self.share, self.measured(section))).astype(np.float32)

    def measured(self, section: Section) -> np.ndarray:
        """Return which of the panel's genes a section measured, bool (G,)."""
        return measured(section, self.genes)

    def missing(self, section: Section) -> tuple[str, ...]:
        """Return the panel's genes that a section does not list, and so did not measure."""
        return tuple(
            name for name, known in zip(self.genes, self.measured(section), strict=True) if not known
        )

    def gaps(self, sections: Sequence[Section]) -> list[str]:
        """Describe, for the user, the panel's genes that some of the sections did not measure.

        Returns
        -------
        list of str
            Whole sentences; empty if every section measured every gene.

        Raises
        ------
        GeneError
            See `expression`.
        """
        lines = [
            f"section {section.name} did not measure {len(missing)} of the {len(self)} genes "
            f"({first(missing)}): they are taken as missing there, not as zero"
            for section in sections
            if (missing := self._checked_missing(section))
        ]
        count = np.sum([self.measured(section) for section in sections], axis=0)
        none = [name for name, n in zip(self.genes, count, strict=True) if not n]
        few = [
            name for name, n in zip(self.genes, count, strict=True) if 0 < n < MIN_MEASURED * len(sections)
        ]
        of = f"of the {len(self)} genes were measured by"
        if none:
            lines.append(f"{len(none)} {of} none of the sections ({first(none)}): nothing is learned of them")
        if few:
            lines.append(
                f"{len(few)} {of} fewer than half of the {len(sections)} sections ({first(few)}): "
                "what is said of them rests on these sections alone"
            )
        return lines

    def standardise(self, expression: np.ndarray) -> np.ndarray:
        """Convert log10-spot values (..., G) to z-scores of the training spots, float32."""
        return ((expression - self.mean) / self.sd).astype(np.float32, copy=False)

    def unstandardise(self, z: np.ndarray) -> np.ndarray:
        """Convert z-scores (..., G) back to log10-spot values, float32."""
        return (z * self.sd + self.mean).astype(np.float32, copy=False)

    def index(self, name: str) -> int:
        """Return a gene's column; GeneError with the most similar names if it is unknown."""
        try:
            return self._columns[name]
        except KeyError:
            raise GeneError(f"the panel has no gene {name!r}", remedy=nearest(name, self.genes)) from None

    def indices(self, names: Iterable[str]) -> np.ndarray:
        """Return the columns of several genes, int64; see `index`."""
        return np.array([self.index(name) for name in names], dtype=np.int64)

    @cached_property
    def names(self) -> GeneNames:
        """Look-up of the genes by symbol, id or protein name, see `cohorts.aliases`."""
        return GeneNames(self.genes, self.ids)

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) of the gene names and numbers, the same on every machine."""
        digest = hashlib.sha256()
        for name in self.genes:
            digest.update(name.encode() + b"\0")
        for values in (self.mean, self.sd):
            digest.update(values.astype("<f4").tobytes())
        return digest.hexdigest()

    def to_frame(self) -> pd.DataFrame:
        """Return the panel as a table with the columns gene, mean, sd, share and, if known, id."""
        import pandas as pd

        columns = {"gene": list(self.genes), "mean": self.mean, "sd": self.sd, "share": self.share}
        frame = pd.DataFrame(columns)
        return frame if self.ids is None else frame.assign(id=list(self.ids))

    @classmethod
    def from_frame(cls, frame: pd.DataFrame) -> GenePanel:
        """Build the panel from a table that `to_frame` returned; GeneError if it is not such a table."""
        absent = [column for column in ("gene", "mean", "sd") if column not in frame]
        if absent:
            raise GeneError(f"this table of genes has no column {', '.join(absent)}")
        try:
            mean, sd = (frame[column].to_numpy(dtype=np.float32) for column in ("mean", "sd"))
            share: Any = frame["share"].to_numpy(dtype=np.float64) if "share" in frame else None
        except (TypeError, ValueError):
            raise GeneError("this table of genes has means, sds or shares that are not numbers") from None
        ids = tuple(str(name) for name in frame["id"]) if "id" in frame else None
        return cls(tuple(str(name) for name in frame["gene"]), mean, sd, ids, share)

    @cached_property
    def _columns(self) -> dict[str, int]:
        return {name: column for column, name in enumerate(self.genes)}


def _ids(sections: Iterable[Section], names: Sequence[str]) -> tuple[str, ...] | None:
    """Return the gene ids of the first section that has any; None if none does."""
    known: dict[str, str] = {}
    for section in sections:
        for name, identifier in zip(section.genes, section.gene_ids or (), strict=False):
            known.setdefault(name, identifier)
    return tuple(known.get(name, "") for name in names) if known else None


def _most_variable(sections: tuple[Section, ...], known: tuple[str, ...], n_genes: int) -> tuple[str, ...]:
    if n_genes < 1:
        raise GeneError(f"{n_genes} genes cannot be chosen", remedy="Ask for one gene at least.")
    counts = [aligned(section, known) for section in sections]
    present = np.stack([measured(section, known) for section in sections])
    widely = present.sum(axis=0) >= MIN_MEASURED * len(sections)
    detected_in = sum(np.bincount(part.indices, minlength=len(known)) for part in counts)
    detected = np.flatnonzero(widely & (detected_in > MIN_DETECTED * spots_measured(counts, present)))
    if detected.size == 0:
        n_spots = sum(len(section) for section in sections)
        raise GeneError(
            f"no gene is detected in more than {MIN_DETECTED:.0%} of the {n_spots} training spots",
            path=sections[0].counts_path,
            remedy="Check that X holds the raw counts of spots under tissue, or list the genes.",
        )
    counts, present = [part[:, detected] for part in counts], present[:, detected]
    _, sd = moments(_values(counts, present, expected_shares(counts, present)), present)
    names = [known[column] for column in detected]
    # Rounded, then sorted by name, so that the choice does not depend on rounding or the order of sections.
    order = sorted(range(len(names)), key=lambda i: (-round(float(sd[i]), 9), names[i]))
    return tuple(names[i] for i in order[:n_genes])


def _values(counts: Sequence[Any], present: np.ndarray, share: np.ndarray) -> list[Any]:
    """Convert the sections' counts to log10-spot values; totals allow for genes that were not measured."""
    return [log10_spot(part, coverage(share, known)) for part, known in zip(counts, present, strict=True)]
