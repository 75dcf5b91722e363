"""BLEEP (Xie et al., NeurIPS 2023, arXiv 2306.01859) on frozen embeddings.

Image and expression are projected into one space under a contrastive loss whose targets are as soft as the
batch is alike; a tile gets the mean of the training spots whose expression codes are most similar to its
image code.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from chrep_model.methods.base import gallery_of
from chrep_model.methods.network_inputs import Inputs
from chrep_model.methods.registry import register
from chrep_model.methods.retrieval import (
    FittedRetrieval,
    Paired,
    Retrieval,
    RetrievalSettings,
    spot_codes,
)
from chrep_model.networks.heads import ResidualHead
from chrep_model.networks.losses import soft_alignment_loss
from chrep_model.statistics import unit_rows
from chrep_model.training.objective import SpotBatch
from chrep_model.training.samples import SpotTable


class BleepSettings(RetrievalSettings):
    """Settings of BLEEP. All values are published; `epochs` gives about the published 110 training steps."""


class BleepNetwork(Paired):
    """Projections of image and expression, trained with BLEEP's loss."""

    def __init__(self, inputs: int, genes: int, settings: BleepSettings) -> None:
        super().__init__()
        self.settings = settings
        self.image = ResidualHead(inputs, settings.width)
        self.spot = ResidualHead(genes, settings.width)

    def loss(self, x: Tensor, batch: SpotBatch) -> Tensor:
        """Return the contrastive loss with soft targets between image and expression codes."""
        return soft_alignment_loss(self.image(x), self.spot(batch.targets), self.settings.temperature)

    def spots(self, targets: Tensor, position: Tensor, section: Tensor) -> Tensor:
        """Return the expression codes of spots."""
        out: Tensor = self.spot(targets)
        return out


class FittedBleep(FittedRetrieval):
    """Fitted `Bleep`."""


@register
class Bleep(Retrieval):
    """BLEEP; see the module."""

    name = "bleep"
    title = "BLEEP"
    description = "Contrastive alignment of image and expression, then retrieval."
    kind = "rival"
    reference = "BLEEP: Xie et al., NeurIPS 2023, arXiv:2306.01859."
    fitted_class = FittedBleep
    settings_class = BleepSettings
    candidates: ClassVar[tuple[BleepSettings, ...]] = (
        BleepSettings(),
        BleepSettings(epochs=15),
        BleepSettings(epochs=15, temperature=16),
        BleepSettings(temperature=16),
        BleepSettings(temperature=16, k=100),
        BleepSettings(temperature=16, k=25),
    )

    def network(self, inputs: int, genes: int, settings: BleepSettings) -> BleepNetwork:
        """Return a new, untrained network."""
        return BleepNetwork(inputs, genes, settings)

    def fitted(
        self, network: BleepNetwork, inputs: Inputs, table: SpotTable, settings: BleepSettings
    ) -> FittedBleep:
        """Put the spots into the gallery under their expression codes."""
        gallery = gallery_of(table, unit_rows(spot_codes(network, table)))
        return FittedBleep(inputs, network.image, gallery, settings.k)
