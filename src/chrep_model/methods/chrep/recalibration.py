"""Fit a trained CHRep to a new site by its measured sections."""

from __future__ import annotations

from chrep_model.methods.chrep.combination import fit_combined, patches
from chrep_model.methods.chrep.fitted import FittedChrep
from chrep_model.methods.chrep.phase2 import fit_phase2
from chrep_model.methods.chrep.settings import ChrepSettings
from chrep_model.training.run import SILENT_RUN, Run
from chrep_model.training.samples import SpotTable


def recalibrate(
    old: FittedChrep, table: SpotTable, settings: ChrepSettings, *, seed: int, run: Run = SILENT_RUN
) -> FittedChrep:
    """Return a copy with a new gallery, corrector and combination; heads stay.

    Where it lowers the error on the new sections, held out in turn, predictions are also moved by what the
    old learners are off by at the new site, gene by gene.

    Parameters
    ----------
    table : SpotTable
        Spots of at least two newly measured sections, in this model's features and units.
    """
    own = settings.model_copy(update={"k": old.k, "temperature": old.temperature})

    def renewed(rows: SpotTable, run: Run) -> FittedChrep:
        gallery, corrector = fit_phase2(old.phase1, rows, own, seed, run)
        return FittedChrep(old.phase1, corrector, gallery, old.k, old.temperature, old.simple)

    if old.simple is None:
        return renewed(table, run)
    return fit_combined(table, patches(table, seed), renewed, own, run, elsewhere=True)
