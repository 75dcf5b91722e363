"""HECLIP (Bioinformatics 2025, btaf363, arXiv 2501.14948) on frozen embeddings.

An image-centric contrastive loss shapes the image codes; a tile then gets the plain mean of the training
spots whose *images* look most like its own.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, nn

from chrep_model.methods.base import gallery_of
from chrep_model.methods.network_inputs import Inputs
from chrep_model.methods.registry import register
from chrep_model.methods.retrieval import (
    Aligned,
    FittedRetrieval,
    Retrieval,
    RetrievalSettings,
    image_codes,
)
from chrep_model.networks.heads import ResidualHead
from chrep_model.networks.losses import image_centric_loss
from chrep_model.statistics import unit_rows
from chrep_model.training.objective import SpotBatch
from chrep_model.training.samples import SpotTable


class HeclipSettings(RetrievalSettings):
    """Settings of HECLIP. Rate, decay, batch, temperature, k and width are published.

    Attributes
    ----------
    form : {"heg", "hvg"}
        Of highly expressed genes: both sides are projected. Of highly variable genes: the image is projected
        onto the genes themselves, and expression is not encoded at all.
    """

    batch: int = 128
    form: Literal["heg", "hvg"] = "heg"


class HeclipNetwork(Aligned):
    """Image projection, with one of expression in the form ``heg``, trained with HECLIP's loss."""

    def __init__(self, inputs: int, genes: int, settings: HeclipSettings) -> None:
        super().__init__()
        self.settings = settings
        encoded = settings.form == "heg"
        self.image = ResidualHead(inputs, settings.width if encoded else genes)
        self.spot = ResidualHead(genes, settings.width) if encoded else nn.Identity()

    def loss(self, x: Tensor, batch: SpotBatch) -> Tensor:
        """Return the image-centric contrastive loss."""
        return image_centric_loss(self.image(x), self.spot(batch.targets), self.settings.temperature)


class FittedHeclip(FittedRetrieval):
    """Fitted `Heclip`."""


@register
class Heclip(Retrieval):
    """HECLIP; see the module."""

    name = "heclip"
    title = "HECLIP"
    description = "Image-centric contrastive loss, then retrieval from image to image."
    kind = "rival"
    reference = "HECLIP: Bioinformatics 2025, btaf363, arXiv:2501.14948."
    fitted_class = FittedHeclip
    settings_class = HeclipSettings
    candidates: ClassVar[tuple[HeclipSettings, ...]] = (
        HeclipSettings(),
        HeclipSettings(epochs=15),
        HeclipSettings(epochs=15, temperature=16),
        HeclipSettings(epochs=15, temperature=4),
        HeclipSettings(epochs=15, temperature=16, k=100),
        HeclipSettings(epochs=15, temperature=16, k=25),
    )

    def network(self, inputs: int, genes: int, settings: HeclipSettings) -> HeclipNetwork:
        """Return a new, untrained network."""
        return HeclipNetwork(inputs, genes, settings)

    def fitted(
        self, network: HeclipNetwork, inputs: Inputs, table: SpotTable, settings: HeclipSettings
    ) -> FittedHeclip:
        """Put the spots into the gallery under their image codes."""
        codes = image_codes(network.image, inputs, table.features)
        return FittedHeclip(inputs, network.image, gallery_of(table, unit_rows(codes)), settings.k)
