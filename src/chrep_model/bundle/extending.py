"""Extension of a bundle's gallery by the measured spots of a section, without training.

Encoder, heads, corrector, combination and intervals do not change; only the gallery's estimate (the weighted
mean of the neighbours) uses the new spots. This takes as long as embedding them.
"""

from __future__ import annotations

import copy
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from chrep_model.bundle.card import HEADS, Card, provenance
from chrep_model.bundle.reading import Bundle
from chrep_model.bundle.writing import save_bundle
from chrep_model.cohorts.section import Section
from chrep_model.errors import BundleError

if TYPE_CHECKING:
    from chrep_model.calibration.gallery import Gallery
    from chrep_model.encoders.encoder import Encoder
    from chrep_model.training.samples import SpotTable


def with_section(
    bundle: Bundle,
    section: Section,
    features: NDArray[np.float32],
    encoder: Encoder,
    out: str | os.PathLike[str],
) -> Bundle:
    """Write a bundle with a section's spots added to its gallery, or replaced if it has that section.

    Parameters
    ----------
    bundle : Bundle
        A bundle of the method chrep; not changed.
    section : Section
        The measured section.
    features : ndarray
        (n, d) float32 features of its spots, computed with the bundle's encoder and context.
    encoder : Encoder
        The bundle's encoder.
    out : path
        Folder of the new bundle.

    Raises
    ------
    BundleError
        The bundle's method does not compare tissue with its gallery, or `out` cannot be written.
    GeneError
        The section uses other gene names.
    """
    from chrep_model.methods.chrep import FittedChrep
    from chrep_model.methods.model import Model, spot_table

    old = bundle.model
    if not isinstance(old.fitted, FittedChrep):
        raise BundleError(
            f"a bundle of the method {bundle.card.method} takes no further spots",
            path=bundle.path,
            remedy="Use one of chrep.",
        )
    table = spot_table([section], {section.name: features}, old.panel, old.scale).in_memory()
    fitted = copy.copy(old.fitted)
    z = fitted.compare(table.features)
    fitted.gallery = _extended(old.fitted.gallery, section, z, table, bundle.card)
    added = f"{len(section)} measured spots of {section.name} were added to the gallery of {bundle.card.name}"
    if missing := old.panel.missing(section):
        added += f" ({len(missing)} of the genes were not measured there)"
    former = [s for s in bundle.card.sections if s["name"] != section.name]
    return save_bundle(
        out, Model(old.panel, old.scale, fitted), encoder, weights=bundle.encoder_weights,
        context_um=bundle.context_um, cohort=bundle.card.cohort, sections=[*former, *provenance([section])],
        seed=bundle.card.seed, settings=bundle.card.settings | {HEADS: bundle.card.of_heads},
        note=f"{added}; all else, and how far it is trusted, is as before. {bundle.card.note}".strip(),
    )  # fmt: skip


def _extended(
    gallery: Gallery,
    section: Section,
    z: NDArray[np.float32],
    table: SpotTable,
    card: Card,
) -> Gallery:
    names = gallery.section_names
    kept = np.ones(len(gallery), bool)
    if section.name in names:
        kept = gallery.section != names.index(section.name)
    number = names.index(section.name) if section.name in names else len(names)
    rows = np.full(len(z), 1, np.int64)
    parts = {
        "z": z, "expression": table.targets, "position": table.position,
        "section": number * rows, "patient": _patient(gallery, section, card) * rows,
    }  # fmt: skip
    joined = {name: np.concatenate([getattr(gallery, name)[kept], new]) for name, new in parts.items()}
    if section.name not in names:
        names = (*names, section.name)
    measured = _measured(gallery, number, table)
    return replace(gallery, **joined, index=None, section_names=names, measured=measured)


def _measured(gallery: Gallery, number: int, table: SpotTable) -> NDArray[np.bool_] | None:
    """Return which section of the extended gallery measured which gene; the new section is `number`."""
    if gallery.measured is None and table.measured is None:
        return None
    out = np.ones((max(len(gallery.section_names), number + 1), table.targets.shape[1]), bool)
    if gallery.measured is not None:
        out[: len(gallery.measured)] = gallery.measured
    out[number] = True if table.measured is None else table.measured[0]
    return None if out.all() else out


def _patient(gallery: Gallery, section: Section, card: Card) -> int:
    """Return the gallery's number for the section's patient, or a new one."""
    of_patient = {str(s["name"]) for s in card.sections if s["patient"] == section.patient}
    known = [n for n, name in enumerate(gallery.section_names) if name in of_patient]
    numbers = gallery.patient[np.isin(gallery.section, known)]
    return int(numbers[0]) if len(numbers) else int(gallery.patient.max()) + 1
