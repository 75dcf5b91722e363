"""CHRep as a method: choose its settings, train both phases, and learn how to combine the learners."""

from __future__ import annotations

from typing import ClassVar

from chrep_model.methods.base import Method
from chrep_model.methods.chrep.combination import fit_combined, patches
from chrep_model.methods.chrep.fitted import FittedChrep
from chrep_model.methods.chrep.phase1 import Member, Phase1Settings, fit_phase1
from chrep_model.methods.chrep.phase2 import fit_phase2
from chrep_model.methods.chrep.settings import ChrepSettings
from chrep_model.methods.chrep.simple_learners import SimpleLearners, choose_rank
from chrep_model.methods.registry import register
from chrep_model.methods.ridge import choose_penalty
from chrep_model.methods.settings_choice import choose_settings
from chrep_model.training.objective import Objective
from chrep_model.training.run import SILENT_RUN, Run
from chrep_model.training.samples import SpotTable


@register
class Chrep(Method):
    """CHRep with a combination of learners; see the package."""

    name = "chrep"
    title = "CHRep"
    description = "Trained head, gallery estimate and correction, combined on training sections."
    kind = "own"
    reference = "CHRep, arXiv:2604.21573 (2026)."
    fitted_class = FittedChrep
    settings_class = ChrepSettings
    random = True
    streams = True  # gallery and networks use all spots, other learners `patches`
    settings: ChrepSettings | None

    candidates: ClassVar[tuple[ChrepSettings, ...]] = (
        ChrepSettings(),
        ChrepSettings(k=100, temperature=0.05),
        ChrepSettings(k=100, temperature=0.2),
        ChrepSettings(k=200, temperature=0.2),
        ChrepSettings(k=200, temperature=0.2, phase1=Phase1Settings(con=0.5, spa=0.1)),
        ChrepSettings(k=200, temperature=0.4),
    )

    def fit(self, table: SpotTable, *, seed: int, run: Run = SILENT_RUN) -> FittedChrep:
        """Fit on all spots, after one fit without each section to learn the combination.

        Of a streamed table the combination, its simple learners and the choice of settings are learned on
        `patches` of it.

        Candidates for the settings are compared by the paper's answer, estimate plus correction.

        Raises
        ------
        SettingsError
            The table has a single section: there is nothing to leave out.
        """

        def literal(s: ChrepSettings, rows: SpotTable, run: Run) -> FittedChrep:
            return _fit_literal(rows, s, seed, run)

        few = patches(table, seed)
        settings = self.settings or choose_settings(self.candidates, literal, few, run)
        if settings.calibration == "literal":
            return literal(settings, table, run)
        penalty = choose_penalty(few)
        rank = choose_rank(few, penalty)

        def learners(rows: SpotTable, run: Run) -> FittedChrep:
            fitted = literal(settings, rows, run)
            fitted.simple = SimpleLearners.fit(
                few if rows is table else rows, penalty, rank, settings.trees, seed
            )
            return fitted

        return fit_combined(table, few, learners, settings, run)

    def objective(self, inputs: int, genes: int) -> Objective:
        """Return the network and loss of phase 1."""
        return Member(inputs, genes, (self.settings or ChrepSettings()).phase1)


def _fit_literal(table: SpotTable, s: ChrepSettings, seed: int, run: Run) -> FittedChrep:
    """Fit both phases of the paper."""
    phase1 = fit_phase1(table, s.phase1, seed, run)
    gallery, corrector = fit_phase2(phase1, table, s, seed, run)
    return FittedChrep(phase1, corrector, gallery, s.k, s.temperature)
