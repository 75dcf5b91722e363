"""CHRep (arXiv 2604.21573) on frozen embeddings, with our combination of learners.

Phase 1 trains an adapter with three losses: correlation-aware regression, symmetric image-gene alignment,
topology. Phase 2 freezes it, builds a gallery of training spots and predicts by the neighbours' weighted mean
(Estimate) plus a learned residual (Correction). That much is the paper; it stands in the variants ``raw``,
``estimate`` and ``correction``.

``calibrated`` is ours: instead of throwing the head away, it combines head, estimate and correction with two
simple learners on the same embeddings (a low-rank ridge and a forest, see `simple_learners`), by weights that
are learned per gene from predictions on training sections which the learners had not seen.
"""

from chrep_model.methods.chrep.fitted import LEARNERS, FittedChrep
from chrep_model.methods.chrep.method import Chrep
from chrep_model.methods.chrep.recalibration import recalibrate
from chrep_model.methods.chrep.settings import ChrepSettings

__all__ = ["LEARNERS", "Chrep", "ChrepSettings", "FittedChrep", "recalibrate"]
