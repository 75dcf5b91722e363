"""CHRep's phase 2: a gallery of the training spots, and a corrector of what its neighbours say."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from chrep_model.calibration.corrector import Corrector, fit_corrector
from chrep_model.calibration.gallery import Exclude, Gallery, weighted_mean
from chrep_model.methods.base import gallery_of
from chrep_model.methods.chrep.phase1 import Phase1
from chrep_model.methods.chrep.settings import ChrepSettings
from chrep_model.training.run import Run
from chrep_model.training.samples import SpotTable
from chrep_model.training.streamed import Streamed

TAUGHT = 2**16
"""Spots of a streamed table, at random, that the corrector is trained on."""


def fit_phase2(
    phase1: Phase1, table: SpotTable, s: ChrepSettings, seed: int, run: Run
) -> tuple[Gallery, Corrector]:
    """Return the gallery of the table's spots, and a corrector trained without each spot's own section.

    Of a streamed table the corrector sees some spots only: to retrieve for all of them from all of them would
    take the square of their number.
    """
    gallery = gallery_of(table, phase1.compared(table.features))
    # With a single section left there is nobody else to retrieve from: the paper's exclusion has to do.
    exclude: Exclude = s.exclude if len(np.unique(table.section)) > 1 else "self"
    if exclude == "patient" and len(np.unique(table.patient)) < 2:
        exclude = "section"
    taught: NDArray[np.int64] | slice = slice(None)
    if isinstance(table.features, Streamed):
        taught = np.sort(
            np.random.default_rng(seed).choice(len(table), min(TAUGHT, len(table)), replace=False)
        )
    asked, targets, section = gallery.z[taught], table.targets[taught], table.section[taught]
    found = gallery.search(
        asked, s.k, exclude=exclude, section=section, patient=table.patient[taught],
        row=np.arange(len(table))[taught],
    )  # fmt: skip
    watched = None
    if (spots := run.watched) is not None:
        z = phase1.compared(spots.features)
        near = gallery.search(z, s.k)
        estimate = weighted_mean(near, s.temperature, table.targets, gallery.known())
        watched = (z, estimate, spots.targets, spots.section)
    corrector = fit_corrector(
        asked, weighted_mean(found, s.temperature, table.targets, gallery.known()), targets, section,
        s.corrector, mae=s.phase1.mae, pcc=s.phase1.pcc, seed=seed, measured=table.measured, watched=watched,
        run=run.within("corrector"),
    )  # fmt: skip
    return gallery, corrector
